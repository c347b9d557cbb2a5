"""The iterations of a task loop, which share task and map index, and the earlier attempts of a task."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.orm import Session

from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.ui.places import DynamicRegion
from airflow_provider_ideogram.ui.runs import Scope, instances
from tests.support.airflow_version import need_airflow
from tests.unit.ui.conftest import RUN, Database, record, store

need_airflow("3.4", "task loops")

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"


def _add_region(database: Database, node_id: str, parent: UUID | None = None, index: int | None = None) -> UUID:
    with Session(database.engine) as session:
        region = DynamicRegion(
            dag_id="cats", run_id=RUN, node_id=node_id, parent_region_id=parent, parent_region_index=index
        )
        session.add(region)
        session.commit()
        found: UUID = region.id
    return found


@pytest.fixture
def loop(database: Database, s3: S3Client, s3_bucket: str) -> list[dict[str, Any]]:
    """A loop of two iterations, each with a task that makes one image, and one that is mapped over two."""
    images = [record(s3_bucket, number) for number in range(6)]
    for image in images:
        store(s3, image, str(image["seed"]).encode())
    database.add_run("cats")
    region = _add_region(database, "improve")
    for iteration in range(2):
        one, *mapped = images[iteration * 3 : iteration * 3 + 3]
        database.add_task("cats", "one", map_index=iteration, region_id=region, xcoms={"return_value": one})
        inner = _add_region(database, "two", region, iteration)
        for index, image in enumerate(mapped):
            database.add_task("cats", "two", map_index=index, region_id=inner, xcoms={"return_value": image})
    return images


def _links(page: httpx.Response) -> list[str]:
    return re.findall(r'class="card" href="/ideogram([^"?]+)', page.text)


@pytest.mark.usefixtures("loop")
async def test_each_iteration_has_its_own_image(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(RUN_PATH)
    assert "6 images" in page.text
    names = re.findall(r'<span class="name">([^<]+)', page.text)
    assert names == [
        "one, iteration 0",
        "one, iteration 1",
        *(f"two[{index}], iteration {iteration}" for iteration in range(2) for index in range(2)),
    ]
    assert [(await gallery.get(f"{link}/file")).text for link in _links(page)] == ["0", "3", "1", "2", "4", "5"]
    picked = re.findall(r'name="image" value="([^"]+)"', page.text)
    table = (await gallery.get(f"{RUN_PATH}/images.csv", params={"image": picked})).text
    assert [f"Cat number {number}" in table for number in range(6)] == [True] * 6


@pytest.mark.usefixtures("loop")
async def test_address_that_names_no_iteration_shows_none(gallery: httpx.AsyncClient) -> None:
    for path in ("tasks/one/images/-1/-", "tasks/one/images/1/-", "tasks/two/images/0/-"):
        assert (await gallery.get(f"{RUN_PATH}/{path}")).status_code == 404
        assert (await gallery.get(f"{RUN_PATH}/{path}/file")).status_code == 404


@pytest.mark.usefixtures("loop")
async def test_tab_of_a_task_instance_shows_all_its_iterations(gallery: httpx.AsyncClient) -> None:
    one = await gallery.get(f"{RUN_PATH}/tasks/one", params={"map_index": -1})
    assert len(_links(one)) == 2
    two = await gallery.get(f"{RUN_PATH}/tasks/two", params={"map_index": 1})
    assert [(await gallery.get(f"{link}/file")).text for link in _links(two)] == ["2", "5"]


@pytest.mark.usefixtures("loop")
async def test_costs_count_each_iteration(gallery: httpx.AsyncClient) -> None:
    page = (await gallery.get("/")).text
    assert "6 images · 0.30 USD" in page


async def test_earlier_attempt_does_not_count(gallery: httpx.AsyncClient, database: Database, s3_bucket: str) -> None:
    database.add_run("cats")
    old, new = record(s3_bucket, 1, prompt="Of the first attempt"), record(s3_bucket, 2, prompt="Of the second attempt")
    database.add_task("cats", working_set=None, xcoms={"return_value": old})
    database.add_task("cats", tries=2, xcoms={"return_value": new})
    page = (await gallery.get(RUN_PATH)).text
    assert "1 image\n" in page
    assert "Of the second attempt" in page
    assert "Of the first attempt" not in page
    assert "1 image · 0.05 USD" in (await gallery.get("/")).text


def test_mapped_task_outside_of_loops_keeps_its_place(database: Database) -> None:
    database.add_run("cats")
    region = _add_region(database, "many")
    for index in range(2):
        database.add_task("cats", "many", map_index=index, region_id=region)
    with Session(database.engine) as session:
        found = instances(session, Scope("cats", RUN), ["many"])
    assert [(str(one.place), one.label) for one in found] == [("0", "many[0]"), ("1", "many[1]")]
    # As the worker names itself, which knows its region.
    assert owner_id(found[1]) == f"cats/{RUN}/many/1@{region.hex}.1"
