"""
The cost of the ledger: S3 calls and milliseconds per image.

`python -m benchmarks.ledger_cost` runs the operator in this process against the emulator and a local S3 server,
alternately with and without the ledger, and writes `benchmarks/results/ledger.md`. Stores other than AWS are tested for
conditional writes, which takes further calls; both are measured.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from dev.run_info import run_info

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = 50
BUCKET = "ledger-cost"
WITHOUT, AWS, OTHER = "durable=False", "durable=True at AWS", "durable=True at another S3 store"
WAYS = (WITHOUT, AWS, OTHER)
RESULT = Path(__file__).parent / "results" / "ledger.md"


class TaskInstance(SimpleNamespace):
    """The attributes of a task instance that the operator uses."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Accept an XCom."""


def make_image(number: int, way: str) -> tuple[float, Counter[str]]:
    """Run the operator once, as in a process of its own, and return its seconds and S3 calls."""
    from botocore.client import BaseClient

    from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
    from airflow_provider_ideogram.storage import probe

    calls: Counter[str] = Counter()
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def counted(client: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        calls[operation] += 1
        return call(client, operation, arguments)

    operator = IdeogramGenerateImageOperator(
        task_id="generate",
        prompt=f"image {number}, {way}",
        resolution="RESOLUTION_512_1536",
        s3_bucket=BUCKET,
        s3_key=f"{WAYS.index(way)}/{number}.png",
        deferrable=False,
        poll_interval=0.01,
        durable=way != WITHOUT,
    )
    ti = TaskInstance(dag_id="dag", run_id="run", task_id="generate", map_index=-1, try_number=1, max_tries=0)
    context: Any = {"ti": ti}
    with (
        mock.patch.object(BaseClient, "_make_api_call", counted),
        mock.patch.object(probe, "is_aws", return_value=way == AWS),
        mock.patch.dict(probe._conditions_of, clear=True),  # each task's process probes an unknown store
    ):
        started = time.perf_counter()
        operator.execute(context)
        return time.perf_counter() - started, calls


@contextmanager
def servers() -> Iterator[None]:
    """Run the emulator with jobs of no duration and an S3 server, and set the connections to them."""
    import boto3
    from moto.server import ThreadedMotoServer

    from airflow_provider_ideogram.api import poll_schedule
    from airflow_provider_ideogram.emulator.running import run_emulator
    from airflow_provider_ideogram.emulator.settings import EmulatorSettings

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    aws = {"conn_type": "aws", "login": "x", "password": "x", "extra": extra}
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket=BUCKET)
    try:
        with (
            run_emulator(EmulatorSettings(queue_seconds=0, job_seconds=0)) as emulator,
            mock.patch.object(poll_schedule, "MIN_FIRST_POLL", 0.0),
        ):
            os.environ["AIRFLOW_CONN_IDEOGRAM_DEFAULT"] = emulator.connection
            os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(aws)
            yield
    finally:
        server.stop()


def measure() -> str:
    """Return the table as Markdown."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    calls: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
    with servers():
        for way in WAYS:
            make_image(-1, way)  # warms up
        for number in range(IMAGES):
            for way in WAYS:
                took, made = make_image(number, way)
                seconds[way].append(took)
                calls[way] += made
    lines = [
        f"# The cost of the ledger: {IMAGES} images with and without it, alternately",
        "",
        f"{run_info()}; the operator in one process, a local S3 server (moto), an emulator with jobs of no duration. "
        "Each image probes a store other than AWS, as the process of each task does.",
        "",
        "| | S3 calls per image | operations | median ms per image | calls of the ledger | ms of the ledger |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for way in WAYS:
        which = ", ".join(f"{count / IMAGES:g} {operation}" for operation, count in sorted(calls[way].items()))
        total, median = calls[way].total() / IMAGES, 1000 * statistics.median(seconds[way])
        more = total - calls[WITHOUT].total() / IMAGES
        slower = median - 1000 * statistics.median(seconds[WITHOUT])
        lines.append(f"| {way} | {total:g} | {which} | {median:.0f} | {more:g} | {slower:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print and write the table."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        logging.disable(logging.WARNING)
        table = measure()
    print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)


if __name__ == "__main__":
    main()
