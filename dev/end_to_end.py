"""
One DAG with every operator on real components of the installed Airflow, against local servers.

What the tasks report is compared with S3's objects and the emulator's charges. Run as `python -m dev.end_to_end`. The
last line is the result; the exit status is 0 if everything agrees.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx

from airflow_provider_ideogram.storage.thumbnail import FOLDER
from dev.airflow_api import DagImportFailed, Json
from dev.airflow_cluster import STANDARD_COMPONENTS, AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes, ProcessFailed, raise_on_stop_signals, tail
from dev.s3_server import start_s3_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAG_ID = "end_to_end"
DAG_FILE = Path(__file__).parent / "dags" / "end_to_end_dag.py"
BUCKET = "end-to-end"
REPORT_KEY = "report.json"
MAPPED_PROMPTS = ("rate limited", "failing once", "without a fault")
WORKER_PROMPT = "waited for on the worker"
SUBMITTED_PROMPT = "waited for by a sensor"
DECORATED_PROMPT = "returned by a function"
ROWS = [f"row {number}" for number in range(3)]
IMAGES = len(MAPPED_PROMPTS) + 3 + len(ROWS)
JOB_SECONDS = 2.0
DAG_PARSED_SECONDS = 120.0
RUN_SECONDS = 600.0


class EndToEndFailed(Exception):
    """The run failed, or its results differ; the message says how."""


def main() -> int:
    """Run the comparison, and return the exit status."""
    raise_on_stop_signals()
    try:
        with TemporaryDirectory(prefix="ideogram-end-to-end-") as folder:
            print(run(Path(folder)))
    except (EndToEndFailed, DagImportFailed, ProcessFailed, TimeoutError, httpx.HTTPError) as failure:
        print(f"FAILED: {failure}")
        return 1
    return 0


def run(folder: Path) -> str:
    """
    Run the DAG and compare its results.

    :return: The result, as a sentence.
    :raises EndToEndFailed: the run failed, or something differs.
    """
    clean = clean_environment()
    with Processes(folder / "servers") as processes:
        emulator = start_emulator(processes, clean, JOB_SECONDS)
        s3 = start_s3_server(processes, clean, BUCKET)
        emulator.fault(on="submit", kind="error", status=429, retry_after="2", prompt=MAPPED_PROMPTS[0])
        emulator.fault(on="job", kind="failed", prompt=MAPPED_PROMPTS[1])
        environment = {
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": emulator.airflow_connection(),
            "AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(),
            # The DAG file imports this module.
            "PYTHONPATH": str(DAG_FILE.parents[2]),
        }
        dags = folder / "dags"
        dags.mkdir()
        shutil.copy(DAG_FILE, dags)
        with airflow_cluster(folder / "airflow", dags, environment) as cluster:
            run_dag(cluster, folder / "airflow" / "logs")
        client = s3.client()
        report = json.loads(read(client, REPORT_KEY))
        compare(report, client, emulator)
    components = ", ".join(component.name for component in STANDARD_COMPONENTS)
    return f"{IMAGES} images, {IMAGES} charges, one failed request without a charge, on {components}"


def run_dag(cluster: AirflowCluster, logs: Path) -> None:
    """
    Run the DAG to its end.

    :param logs: where Airflow keeps its tasks' logs.
    :raises EndToEndFailed: it did not succeed; the message shows the end of each log with an error in it.
    """
    scheduler = cluster.components["scheduler"]
    cluster.processes.wait_until(scheduler, lambda: cluster.api.has_dag(DAG_ID), DAG_PARSED_SECONDS)
    run_id = cluster.api.trigger_run(DAG_ID)
    try:
        state = cluster.api.wait_for_run(DAG_ID, run_id, RUN_SECONDS, cluster.processes.check)
    except TimeoutError as late:
        state = str(late)
    if state != "success":
        bad = [path for path in sorted(logs.rglob("*.log*")) if "Traceback" in path.read_text(errors="replace")]
        raise EndToEndFailed("\n".join([f"the run's end: {state}", *(f"{path}\n{tail(path)}" for path in bad)]))


def compare(report: Json, s3: S3Client, emulator: EmulatorServer) -> None:
    """
    Compare what the tasks returned with S3's objects and with the emulator's charges.

    :raises EndToEndFailed: something differs.
    """
    manifest = [json.loads(line) for line in read(s3, "set/manifest.jsonl").splitlines()]
    images = [*report["images"], *manifest]
    if problems := list(differences(images, report["summary"], s3, emulator)):
        raise EndToEndFailed("\n".join(problems))


def differences(images: list[Json], summary: Json, s3: S3Client, emulator: EmulatorServer) -> Iterator[str]:
    """Yield a sentence for each difference."""
    if len(images) != IMAGES or summary["generated"] != len(ROWS):
        yield f"{len(images)} images, and the dataset's summary is {summary}"
    for image in images:
        content = read(s3, image["key"])
        if hashlib.sha256(content).hexdigest() != image["sha256"]:
            yield f"{image['key']} differs from what its task reported"
        if content != emulator.image(image["request_id"], image["content_type"]):
            yield f"{image['key']} differs from the image that the emulator made"
    charged = emulator.charged_requests()
    if sorted(charged) != sorted(image["request_id"] for image in images):
        yield f"{len(charged)} charges, not one for each image"
    stored = s3.list_objects_v2(Bucket=BUCKET, Prefix="_ideogram/").get("Contents", [])
    if left := [item["Key"] for item in stored if FOLDER not in item["Key"]]:
        yield f"the ledger is not empty: {left}"


def read(s3: S3Client, key: str) -> bytes:
    """Return an object's content."""
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


if __name__ == "__main__":
    sys.exit(main())
