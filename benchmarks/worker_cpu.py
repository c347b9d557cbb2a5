"""
The CPU seconds of a worker for each image, on real Airflow components (SQLite, LocalExecutor).

Compared with a task that only defers, which has as many slices, and with the amazon provider's operator that uploads
the same bytes in one slice; each also with `airflow_provider_ideogram.preload` imported before the workers fork.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psutil

from airflow_provider_ideogram.emulator.drawing import Picture, draw
from benchmarks import report
from benchmarks.dags.benchmark_dag import JOB_SECONDS, MAPPED
from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import start_emulator
from dev.processes import Processes
from dev.s3_server import start_s3_server

DAG_FILE = Path(__file__).parent / "dags" / "benchmark_dag.py"
#: The DAGs, each with its title.
TASKS = {
    "many_deferrals": "defers only",
    "many_uploads": "the amazon provider's LocalFilesystemToS3Operator",
    "many_images": "an image",
    "many_images_without_thumbnails": "an image, thumbnails=False",
}
_RUN_SECONDS = 600.0
_PRELOAD = "import airflow_provider_ideogram.preload\n"


def measure(*, preload: bool) -> dict[str, float]:
    """Return the CPU seconds of a task in the worker, by DAG, in the second run of each."""
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "servers") as processes:
        home, dags, image = (Path(folder) / name for name in ("airflow", "dags", "image.png"))
        dags.mkdir()
        shutil.copy(DAG_FILE, dags)
        image.write_bytes(
            draw(Picture("ideogram-2a-txt-2-img", "a cat", "AUTO", "RESOLUTION_1024_1024", "GENERAL", 1, "png"))
        )
        if preload:
            (home / "config").mkdir(parents=True)
            (home / "config" / "airflow_local_settings.py").write_text(_PRELOAD)
        clean = clean_environment()
        environment = {
            "AIRFLOW_CONN_IDEOGRAM_DEFAULT": start_emulator(processes, clean, JOB_SECONDS).airflow_connection(),
            "AIRFLOW_CONN_AWS_DEFAULT": start_s3_server(processes, clean, "benchmark").airflow_connection(),
            "BENCHMARK_IMAGE": str(image),
        }
        with airflow_cluster(home, dags, environment) as cluster:
            processor = cluster.components["dag-processor"]
            cluster.processes.wait_until(processor, lambda: cluster.api.has_dag("many_images"), 60.0)
            _run_all(cluster)  # warms up
            return _run_all(cluster)


def _run_all(cluster: AirflowCluster) -> dict[str, float]:
    found = {}
    for dag_id in TASKS:
        before = _workers_cpu(cluster)
        run_id = cluster.api.trigger_run(dag_id)
        if (state := cluster.api.wait_for_run(dag_id, run_id, _RUN_SECONDS)) != "success":
            raise RuntimeError(f"{dag_id} has {state}")
        found[dag_id] = (_workers_cpu(cluster) - before) / MAPPED
        print(f"worker CPU: {dag_id}: {found[dag_id]:.2f} s a task", flush=True)
    return found


def _workers_cpu(cluster: AirflowCluster) -> float:
    """Return the CPU seconds of the scheduler's workers, with those of the tasks that have ended."""
    scheduler = psutil.Process(cluster.components["scheduler"].pid)
    times = [one.cpu_times() for one in scheduler.children(recursive=True)]
    return sum(sum(one[:4]) for one in times)


def main() -> None:
    """Measure, and write the page."""
    about = f"{report.machine()} {MAPPED} mapped tasks a run; the second run of each DAG.\n"
    plain, preloaded = measure(preload=False), measure(preload=True)
    rows = [
        [
            title,
            *(f"{cpu[dag_id]:.2f}" for cpu in (plain, preloaded)),
            *(f"{cpu[dag_id] - cpu['many_deferrals']:.2f}" for cpu in (plain, preloaded)),
        ]
        for dag_id, title in TASKS.items()
    ]
    head = ("CPU seconds of a task", "plain", "preloaded", "more than a deferral, plain", "preloaded")
    table = report.table(head, rows)
    report.write("worker-cpu", "CPU of a worker for each image", about, table)
    print(table)


if __name__ == "__main__":
    main()
