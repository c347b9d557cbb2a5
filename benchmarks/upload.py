"""
The download of an image and its upload to S3: images per second and memory.

The comparison is `S3Hook.load_bytes` with a body that was read at once, which stores any bytes. This provider also
decodes and hashes the image. The image host and S3 are local servers in separate processes.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image

from dev.airflow_cluster import clean_environment
from dev.processes import Processes, free_port, listens
from dev.s3_server import start_s3_server

BUCKET = "benchmark"
#: Edge lengths of the square images. Noise can't be compressed, so that they have 3 and 27 MB.
EDGES = (1024, 3000)
ROUNDS = 12
PROVIDER, WHOLE = "this provider, streamed and checked", "read at once, S3Hook.load_bytes"


def _image(edge: int, seed: int) -> bytes:
    noise = random.Random(seed).randbytes(3 * edge * edge)
    with io.BytesIO() as file:
        Image.frombytes("RGB", (edge, edge), noise).save(file, "PNG", compress_level=1)
        return file.getvalue()


def _provider(url: str, base_url: str) -> Callable[[int], None]:
    from airflow_provider_ideogram.api.image_source import ImageUrl
    from airflow_provider_ideogram.api.job import Job
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.connection import ConnectionSettings
    from airflow_provider_ideogram.hooks.download import download_image
    from airflow_provider_ideogram.storage.image_record import Completion
    from airflow_provider_ideogram.storage.image_store import ImageStore
    from airflow_provider_ideogram.storage.target import Target

    settings = ConnectionSettings("SG_benchmark", base_url=base_url)
    store = ImageStore("aws_default")
    request = GenerationRequest("noise", seed=7)

    def move(number: int) -> None:
        target = Target(BUCKET, f"provider/{number}.png")
        job = Job(f"r-{number}", time.time(), request, request.fingerprint, target.uri)
        with download_image(ImageUrl(url), settings) as image:
            store.put(job, image, target, Completion())

    return move


def _whole(url: str) -> Callable[[int], None]:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook("aws_default")

    def move(number: int) -> None:
        body = httpx.get(url, trust_env=False, timeout=60).raise_for_status().content
        hook.load_bytes(body, f"whole/{number}.png", BUCKET, replace=True)

    return move


def _peak_mb(move: Callable[[int], None]) -> float:
    tracemalloc.start()
    move(-1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(seed: int) -> dict[float, dict[str, tuple[float, float]]]:
    """Return images per second and the peak of allocated megabytes, by the image's megabytes and the method."""
    results: dict[float, dict[str, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        environment = clean_environment()
        s3 = start_s3_server(processes, environment, BUCKET)
        os.environ |= {"AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(), "AIRFLOW_HOME": folder}
        port = free_port()
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", folder]
        host = processes.start("image-host", command, environment)
        processes.wait_until(host, lambda: listens(port), 30.0)
        for edge in EDGES:
            body = _image(edge, seed)
            (Path(folder) / "image.png").write_bytes(body)
            base_url = f"http://127.0.0.1:{port}"
            url = f"{base_url}/image.png"
            methods = {PROVIDER: _provider(url, base_url), WHOLE: _whole(url)}
            peaks = {name: (move(-2), _peak_mb(move))[1] for name, move in methods.items()}
            took = dict.fromkeys(methods, 0.0)
            for number in range(ROUNDS):
                for name, move in methods.items():
                    started = time.perf_counter()
                    move(number)
                    took[name] += time.perf_counter() - started
            results[len(body) / 1e6] = {name: (ROUNDS / took[name], peaks[name]) for name in methods}
    return results


def measure_in_own_process(seed: int) -> dict[float, dict[str, tuple[float, float]]]:
    """Measure in a new process."""
    script = f"import json; from benchmarks.upload import measure; print(json.dumps(measure({seed})))"
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    return {
        float(size): {name: (float(rate), float(peak)) for name, (rate, peak) in methods.items()}
        for size, methods in measured.items()
    }
