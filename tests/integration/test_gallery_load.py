"""A burst of requests for the gallery in a real API server: Airflow's own endpoints answer all the while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from airflow_provider_ideogram.ui.work import SEARCHES
from dev.airflow_cluster import API_SERVER, airflow_cluster
from tests.support.ranged_s3 import RangedS3, ranged_s3
from tests.unit.ui.conftest import RUN, Database, record

ROWS = 300_000
BURST = 200
THREADS = 8
ADMITTED = 72
#: Airflow's health, and an endpoint of the API that the tasks' heartbeats go to.
AIRFLOWS_OWN = ("/api/v2/monitor/health", "/execution/health")
RUN_PATH = f"/ideogram/dags/cats/runs/{RUN}"
IMAGE = f"{RUN_PATH}/tasks/single/images/-1/-/file"
#: What S3 has is not the image.
ANSWERS = (200, 404, 502)
#: The options of a client.
Server = dict[str, Any]
PAGE = f"{RUN_PATH}/tasks/dataset?page=5000"


@pytest.fixture(scope="module")
def s3_of_manifest() -> Iterator[RangedS3]:
    with ranged_s3(ROWS) as server:
        yield server


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory, s3_of_manifest: RangedS3) -> Iterator[Server]:
    """The options of clients of an API server that has warmed up."""
    home: Path = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    aws = {
        "conn_type": "aws",
        "login": "x",
        "password": "x",
        "extra": {
            "endpoint_url": s3_of_manifest.url,
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }
    with ExitStack() as stack:
        settings = {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws)}
        cluster = stack.enter_context(airflow_cluster(home, home / "dags", settings, [API_SERVER]))
        engine = create_engine(f"sqlite:///{home}/airflow.db")
        stack.callback(engine.dispose)
        database = Database(engine)
        database.add_run("cats")
        database.add_task("cats", "single", xcoms={"return_value": record("bucket")})
        result = {"manifest_uri": "s3://bucket/cats/manifest.jsonl", "total": ROWS}
        told = {"s3_prefix": "s3://bucket/cats"}
        operator = "IdeogramGenerateDatasetOperator"
        database.add_task("cats", "dataset", operator=operator, xcoms={"return_value": result}, rendered=told)
        server: Server = {
            "base_url": cluster.api.url,
            "headers": cluster.api.authorization,
            "timeout": 60,
            "trust_env": False,
        }
        s3_of_manifest.released.set()
        with httpx.Client(**server) as browser:
            for path in (*AIRFLOWS_OWN, IMAGE, PAGE):  # the first request of each loads what it needs
                assert browser.get(path).status_code in ANSWERS
        yield server
        cluster.processes.kill()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # the server runs in threads
            await asyncio.sleep(0.01)


async def _burst_while_airflow_answers(
    server: Server, path: str, s3: RangedS3, readers: int = THREADS
) -> list[httpx.Response]:
    """Request a path many times, hold S3 back, and see that Airflow answers while those requests wait."""
    s3.released.clear()
    before = s3.requests
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(**server, limits=limits) as browsers,
        httpx.AsyncClient(**server) as airflow,
        asyncio.TaskGroup() as group,
    ):
        burst = [group.create_task(browsers.get(path)) for _ in range(BURST)]
        await _until(lambda: s3.requests - before >= readers)
        await _until(lambda: sum(request.done() for request in burst) >= BURST - ADMITTED)
        for _ in range(3):
            for own in AIRFLOWS_OWN:
                assert (await airflow.get(own)).status_code == 200
                assert not all(request.done() for request in burst)
        s3.released.set()
        while not all(request.done() for request in burst):
            assert (await airflow.get(AIRFLOWS_OWN[0])).status_code == 200
    return [request.result() for request in burst]


async def test_airflow_answers_while_s3_hangs(api_server: Server, s3_of_manifest: RangedS3) -> None:
    answers = await _burst_while_airflow_answers(api_server, IMAGE, s3_of_manifest)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) >= BURST - ADMITTED
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert {answer.status_code for answer in answers} <= {*ANSWERS[1:], 503}


async def test_airflow_answers_while_a_manifest_is_searched(api_server: Server, s3_of_manifest: RangedS3) -> None:
    search = f"{RUN_PATH}/tasks/dataset?q=cat&sort=prompt"
    answers = await _burst_while_airflow_answers(api_server, search, s3_of_manifest, SEARCHES)
    assert {answer.status_code for answer in answers} == {200, 503}
    page = next(answer.text for answer in answers if answer.status_code == 200)
    assert "Not all rows of dataset are searched" in page


async def test_airflow_answers_while_a_manifest_is_read(api_server: Server, s3_of_manifest: RangedS3) -> None:
    answers = await _burst_while_airflow_answers(api_server, PAGE, s3_of_manifest)
    assert {answer.status_code for answer in answers} <= {200, 503}

    before = s3_of_manifest.bytes_sent
    async with httpx.AsyncClient(**api_server) as browser:
        page = (await browser.get(PAGE)).text
    assert "cat-299940" in page
    assert "cat-299999" in page
    assert s3_of_manifest.bytes_sent - before < 2 << 20  # of 240 MB
