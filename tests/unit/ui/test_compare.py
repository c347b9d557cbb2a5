from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_provider_ideogram.ui.compare import place_of
from airflow_provider_ideogram.ui.places import Place
from tests.unit.ui.conftest import RUN, Database, record

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COMPARE = f"/dags/cats/runs/{RUN}/compare"


@pytest.fixture
def run(database: Database, s3: S3Client, s3_bucket: str) -> None:
    """A run with six mapped images, which differ in prompt and seed."""
    database.add_run("cats")
    for index in range(6):
        database.add_task("cats", map_index=index, xcoms={"return_value": record(s3_bucket, index)})


def _rows(page: httpx.Response) -> dict[str, tuple[bool, list[str]]]:
    rows = re.findall(r'<tr( class="differs")?>\s*<th scope="row">([^<]*)</th>(.*?)</tr>', page.text, re.DOTALL)
    return {name: (bool(differs), re.findall(r"<td[^>]*>([^<]*)</td>", cells)) for differs, name, cells in rows}


@pytest.mark.usefixtures("run")
async def test_differences_come_first(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(COMPARE, params={"image": ["generate/1/-", "generate/4/-"]})
    rows = _rows(page)
    assert list(rows)[:2] == ["Prompt", "Seed"]
    assert rows["Prompt"] == (True, ["Cat number 1", "Cat number 4"])
    assert rows["Seed"] == (True, ["1", "4"])
    assert rows["Style"] == (False, ["GENERAL"])
    assert "Completed" not in rows
    assert list(rows)[-2:] == ["Cost", "Time at the vendor"]
    assert re.findall(r'<img [^>]*src="[^"]*/images/(\d)/-/file"', page.text) == ["1", "4"]
    assert 'role="alert"' not in page.text


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("count", [1, 5])
async def test_other_numbers_of_images_are_named(count: int, gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(COMPARE, params={"image": [f"generate/{number}/-" for number in range(count)]})
    assert f"Select two to four images; {count} are selected." in page.text
    assert page.text.count("<img ") == min(count, 4)


@pytest.mark.usefixtures("run")
async def test_way_back_leads_to_the_selection(gallery: httpx.AsyncClient) -> None:
    params = {"image": ["generate/1/-", "generate/2/-"], "q": "cat", "page": "3", "task_id": "generate"}
    page = await gallery.get(COMPARE, params=params)
    assert "/tasks/generate?page=3&amp;q=cat#image-generate[1]-" in page.text
    run = await gallery.get(COMPARE.removesuffix("compare")[:-1], params={"q": "cat"})
    assert re.search(r'<form [^>]*data-compare>\s*<input type="hidden" name="q" value="cat">', run.text)
    assert 'form="compare" name="image" value="generate/5/-"' in run.text


@pytest.mark.usefixtures("run")
async def test_other_images_can_not_be_compared(gallery: httpx.AsyncClient) -> None:
    assert (await gallery.get(COMPARE)).status_code == 422
    for name in ("generate/9/-", "other/1/-", "generate/1/0", "generate", "generate/x/-", "a/b/1/-"):
        assert (await gallery.get(COMPARE, params={"image": ["generate/1/-", name]})).status_code == 404


def test_name_has_the_parts_of_an_address() -> None:
    assert place_of("group.generate/-1/p0.17") == ("group.generate", Place(-1), "p0.17")
    assert place_of("generate/9999999999/-") is None
