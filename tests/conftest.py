"""Fixtures of all tests: Airflow's home, its task runner without a database, a local S3 server, Hypothesis."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from dev.s3_server import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from tests.support.task_runner import TaskRunner

# Property tests draw the same examples on every machine, and have no deadlines.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# Older versions of Airflow and of its dependencies use deprecated calls of each other.
IGNORED = (DeprecationWarning, FutureWarning)
OLD_AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2]) < (3, 3)
if OLD_AIRFLOW:  # pytest loads the conftest of a folder that it is given with its filters of this moment
    for category in IGNORED:
        warnings.simplefilter("ignore", category)


def pytest_configure(config: pytest.Config) -> None:
    """Set a temporary home of Airflow before it is imported, which reads the setting once."""
    if "AIRFLOW_HOME" not in os.environ:
        home = tempfile.mkdtemp(prefix="airflow-home-")
        config.add_cleanup(lambda: shutil.rmtree(home))
        os.environ["AIRFLOW_HOME"] = home
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    if OLD_AIRFLOW:
        for category in IGNORED:
            config.addinivalue_line("filterwarnings", f"ignore::{category.__name__}")
            config.addinivalue_line("filterwarnings", f"error::{category.__name__}:airflow_provider_ideogram")
        # SQLAlchemy 2.1 says this of the models of Airflow 3.2, and names the code that reads one first.
        config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def task_runner() -> Iterator[TaskRunner]:
    """Return the function that makes task instances for Airflow's own task runner."""
    from tests.support.airflow_version import AIRFLOW

    if AIRFLOW >= (3, 0):
        from tests.support.task_sdk import task_runner
    else:
        from tests.support.task_models import task_runner
    with task_runner() as make:
        yield make


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of a local S3 server, already probed: moto, unless S3_STORE_ENDPOINT names another one."""
    from moto.server import ThreadedMotoServer

    from tests.support.s3 import probe_store

    if endpoint := os.environ.get("S3_STORE_ENDPOINT"):
        probe_store(endpoint)
        yield endpoint
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        probe_store(endpoint := f"http://{host}:{port}")
        yield endpoint
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Client]:
    """Return a client of the local S3 server, and set the connection ``aws_default`` to it."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", S3Server(s3_server).airflow_connection())
    with closing(S3Server(s3_server).client()) as client:
        yield client


@pytest.fixture(scope="module")
def s3_client(s3_server: str) -> Iterator[S3Client]:
    """Return a client of the local S3 server for all tests of a module: a new one takes a third of a second."""
    with closing(S3Server(s3_server).client()) as client:
        yield client


@pytest.fixture
def s3_bucket(s3: S3Client) -> str:
    """Return the name of a new bucket."""
    name = f"bucket-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    return name
