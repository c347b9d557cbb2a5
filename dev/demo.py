"""
The demonstration: the nightly example on a real Airflow, from nothing to images in S3.

Without a key it plays against local servers and costs nothing. With `SEGMIND_API_KEY` in the environment it makes the
same images at the vendor, for money; with `S3_BUCKET` as well it stores them there, with the environment's AWS
settings. The key is handed on in environments only, and nothing printed holds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx

from dev.airflow_api import AirflowApi, DagImportFailed, Json
from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.demo_report import Console, Progress, image_table, label
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes, ProcessFailed, raise_on_stop_signals
from dev.s3_server import start_s3_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "demo-output"
DAG_ID = "ideogram_nightly_set"
IMAGE_TASK = "generate"
SHEET_TASK = "make_contact_sheet"
# What a run of the example makes, and what the vendor takes for one.
IMAGES = 6
PRICE_USD = 0.05
# As long as a generation takes at the vendor.
JOB_SECONDS = 12.4
LOCAL_BUCKET = "ideogram-demo"
# For second thoughts before money is spent; there may be no terminal to ask at.
REGRET_SECONDS = 5
DAG_PARSED_SECONDS = 60.0
RUN_SECONDS = 900.0
LOG_LINES = 40


class DemoFailed(Exception):
    """The run did not end as it should; the message says in what."""


@dataclass(frozen=True)
class Backends:
    """
    What makes the images and what stores them.

    :param environment: Airflow's connections to both, and its variable with the bucket's name.
    :param s3: a client of the store.
    :param emulator: None if the vendor makes the images.
    """

    environment: dict[str, str]
    s3: S3Client
    emulator: EmulatorServer | None


def main() -> int:
    """Run the demonstration and return the exit status."""
    raise_on_stop_signals()
    key = os.environ.get("SEGMIND_API_KEY", "")
    console = Console(key)
    try:
        if key:
            announce_cost(console)
        shutil.rmtree(OUTPUT, ignore_errors=True)
        with Processes(OUTPUT / "logs") as processes:
            run_night(start_backends(processes, key, console), console)
    except KeyboardInterrupt as interrupt:
        console.step(f"Stopped ({interrupt}); every process that was started has been ended")
        return 130
    except (DemoFailed, DagImportFailed, ProcessFailed, TimeoutError, httpx.HTTPError) as failure:
        console.step(f"FAILED: {failure}")
        return 1
    console.step(f"Done: the images and contact-sheet.jpg are in {OUTPUT}")
    return 0


def announce_cost(console: Console) -> None:
    """Say what will be spent, and leave time to stop it."""
    console.say(
        f"SEGMIND_API_KEY is set: this uses the real API and SPENDS REAL MONEY,\n"
        f"{IMAGES} images x {PRICE_USD:.2f} USD = {IMAGES * PRICE_USD:.2f} USD. "
        f"Ctrl-C within {REGRET_SECONDS} seconds stops it; without the variable it is free."
    )
    time.sleep(REGRET_SECONDS)


def start_backends(processes: Processes, key: str, console: Console) -> Backends:
    """
    Start the local servers that the environment does not replace by real ones.

    :param key: the vendor's API key, empty for the emulator.
    """
    clean = clean_environment()
    environment = {}
    emulator = None
    if key:
        environment["AIRFLOW_CONN_IDEOGRAM_DEFAULT"] = json.dumps({"conn_type": "ideogram", "password": key})
        console.step("Images are made by https://api.segmind.com")
    else:
        emulator = start_emulator(processes, clean, JOB_SECONDS)
        environment["AIRFLOW_CONN_IDEOGRAM_DEFAULT"] = emulator.airflow_connection()
        console.step(f"Images are made by the emulator at {emulator.url}, for free")
    bucket = os.environ.get("S3_BUCKET") if key else None
    if bucket:
        environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps({"conn_type": "aws"})
        s3 = boto3.client("s3")
        console.step(f"They are stored in the real bucket {bucket}")
    else:
        bucket = LOCAL_BUCKET
        server = start_s3_server(processes, clean, bucket)
        environment["AIRFLOW_CONN_AWS_DEFAULT"] = server.airflow_connection()
        s3 = server.client()
        console.step(f"They are stored in a local S3 server at {server.endpoint}, until the demonstration ends")
    environment["AIRFLOW_VAR_IDEOGRAM_BUCKET"] = bucket
    return Backends(environment, s3, emulator)


def run_night(backends: Backends, console: Console) -> None:
    """
    Run the example on an Airflow of its own, show it, and check and keep what it made.

    :raises DemoFailed: the run failed, or its images are not what they should be.
    """
    dags = OUTPUT / "airflow" / "dags"
    dags.mkdir(parents=True)
    shutil.copy(ROOT / "example_dags" / f"{DAG_ID}.py", dags)
    # The example has a schedule, and Airflow would start last night's run beside the one that is triggered here.
    settings = backends.environment | {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}
    console.step("Starting Airflow: API server, scheduler, DAG processor, triggerer")
    with airflow_cluster(OUTPUT / "airflow", dags, settings) as cluster:
        processor = cluster.components["dag-processor"]
        cluster.processes.wait_until(processor, lambda: cluster.api.has_dag(DAG_ID), DAG_PARSED_SECONDS)
        console.step(f"Airflow is up at {cluster.api.url}, the run begins")
        task_instances = follow_run(cluster, console)
        images = [cluster.api.xcom(one) for one in task_instances if one["task_id"] == IMAGE_TASK]
        [sheet] = [cluster.api.xcom(one) for one in task_instances if one["task_id"] == SHEET_TASK]
        keep_and_check(images, sheet, backends, console)
        console.step("Ending all processes")


def keep_and_check(images: Sequence[Json], sheet: str, backends: Backends, console: Console) -> None:
    """
    Print what was made, copy it into the output folder and compare it with what it should be.

    :param images: the image tasks' XComs.
    :param sheet: the contact sheet's address.
    :raises DemoFailed: something differs.
    """
    console.say(f"\n{image_table(images)}\ncontact sheet: {sheet}\n")
    bucket, sheet_key = sheet.removeprefix("s3://").split("/", 1)
    for image in images:
        save(backends.s3, image["bucket"], image["key"])
    save(backends.s3, bucket, sheet_key)
    verify(images, backends.emulator)
    console.say("Every stored image has the size and the hash that its task reported.")
    if backends.emulator:
        charged = len(backends.emulator.charged_requests())
        console.say(f"The emulator's books: charged: {charged}, images: {len(images)}; all bytes equal what it made.")


def follow_run(cluster: AirflowCluster, console: Console) -> list[Json]:
    """
    Start a run, print its progress, and return its task instances after its success.

    :raises DemoFailed: it failed; the message names the failed tasks and shows the end of the first one's log.
    """
    progress = Progress(console)
    run_id = cluster.api.trigger_run(DAG_ID)

    def watch() -> None:
        cluster.processes.check()
        progress.show(cluster.api.task_instances(DAG_ID, run_id))

    state = cluster.api.wait_for_run(DAG_ID, run_id, RUN_SECONDS, watch)
    task_instances = cluster.api.task_instances(DAG_ID, run_id)
    if state != "success":
        failed = [one for one in task_instances if one["state"] == "failed"]
        logs = [log_tail(cluster.api, one) for one in failed[:1]]  # the others mostly failed for the same reason
        raise DemoFailed("\n".join([f"the run has {state}: {', '.join(map(label, failed))}", *logs]))
    return task_instances


def log_tail(api: AirflowApi, task_instance: Json) -> str:
    """Return the last lines of a task instance's log."""
    return "\n".join(f"    {line}" for line in api.log(task_instance).splitlines()[-LOG_LINES:])


def save(s3: S3Client, bucket: str, key: str) -> None:
    """Copy an object into the output folder, under the last part of its key."""
    (OUTPUT / Path(key).name).write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def verify(images: Sequence[Json], emulator: EmulatorServer | None) -> None:
    """
    Compare the saved images with what their tasks reported and what the emulator made and charged.

    :raises DemoFailed: something differs.
    """
    for image in images:
        content = (OUTPUT / Path(image["key"]).name).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (image["size_bytes"], image["sha256"]):
            raise DemoFailed(f"{image['uri']} is not what its task reported")
        if emulator and content != emulator.image(image["request_id"], image["content_type"]):
            raise DemoFailed(f"{image['uri']} is not what the emulator made")
    if emulator and sorted(emulator.charged_requests()) != sorted(image["request_id"] for image in images):
        charged = len(emulator.charged_requests())
        raise DemoFailed(f"charged: {charged}, images: {len(images)}; that is not one charge for each image")


if __name__ == "__main__":
    sys.exit(main())
