from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.unit.ui.conftest import RUN, Database, json_lines, record, row

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
IMAGES = f"{RUN_PATH}/tasks/single/images"


@pytest.fixture
def run(database: Database, s3: S3Client, s3_bucket: str) -> None:
    """A run with two mapped images, of the task ``single``, and a dataset of 3 rows."""
    database.add_run("cats")
    for index in range(2):
        database.add_task("cats", "single", map_index=index, xcoms={"return_value": record(s3_bucket, index)})
    lines = json_lines(*(row(s3_bucket, number) for number in range(3)))
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=lines)
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 3}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    operator = "IdeogramGenerateDatasetOperator"
    database.add_task("cats", "a_set", xcoms={"return_value": result}, operator=operator, rendered=told)


def _turns(page: httpx.Response) -> list[str]:
    """Return the neighbours' addresses, below that of the run."""
    links = re.findall(r'data-(?:previous|next) [^>]*href="([^"]*)"', page.text)
    return [link.partition("/tasks/")[2] for link in links]


@pytest.mark.usefixtures("run")
async def test_neighbours_are_those_of_the_run(gallery: httpx.AsyncClient) -> None:
    first = await gallery.get(f"{IMAGES}/0/-", params={"at": 0})
    assert _turns(first) == ["single/images/1/-?at=1"]
    last_single = await gallery.get(f"{IMAGES}/1/-", params={"at": 1})
    assert _turns(last_single) == ["single/images/0/-?at=0", "a_set/images/-1/0?at=2"]


@pytest.mark.usefixtures("run")
async def test_neighbours_are_those_of_the_task(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(f"{IMAGES}/1/-", params={"at": 1, "of": "task"})
    assert _turns(page) == ["single/images/0/-?of=task&amp;at=0"]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("at", [None, 1, 4, 5, 10**11])
async def test_wrong_position_has_no_neighbours(at: int | None, gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(f"{IMAGES}/0/-", params={} if at is None else {"at": at})
    assert page.status_code == 200
    assert _turns(page) == []


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("at", ["-1", "x", "9" * 400])
async def test_hostile_position_is_refused(at: str, gallery: httpx.AsyncClient) -> None:
    assert (await gallery.get(f"{IMAGES}/0/-", params={"at": at})).status_code == 422
