from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_ideogram.ui import pages, work
from airflow_provider_ideogram.ui.query import ORDERS, Query
from airflow_provider_ideogram.ui.records import Instance, item_of_line
from airflow_provider_ideogram.ui.runs import Scope
from airflow_provider_ideogram.ui.work import Work
from tests.unit.ui.conftest import RUN, Database, json_lines, reader_of, record, row, workspace_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
DATASET = "IdeogramGenerateDatasetOperator"
INSTANCE = Instance("cats", RUN, "a_set", -1, "success", {}, {})


@pytest.fixture
def run(database: Database, s3: S3Client, s3_bucket: str) -> list[dict[str, Any]]:
    """A run with a mapped task of two images, one of which is awaited, and a dataset of 130 rows."""
    database.add_run("cats")
    image = record(s3_bucket, 1, prompt="A black CAT at night", cost_usd=0.09, completed_at="2026-01-03T00:00:00+00:00")
    database.add_task("cats", "single", map_index=0, xcoms={"return_value": image})
    told = {"prompt": "A cat that is not there yet", "seed": 7}
    database.add_task("cats", "single", map_index=1, state="deferred", rendered=told)
    rows = [row(s3_bucket, number, prompt=f"Dog number {number}", cost_usd=0.05) for number in range(130)]
    rows[4] |= {"status": "content_blocked", "error": "Not this dog", "bucket": None, "cost_usd": 0.0}
    rows[5] |= {"style_type": "ANIME", "width": 1024, "height": 768, "completed_at": "2026-01-02T23:00:00+00:00"}
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=json_lines(*rows))
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 130}
    prefix = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_task("cats", "a_set", xcoms={"return_value": result}, operator=DATASET, rendered=prefix)
    return rows


def _names(page: httpx.Response) -> list[str]:
    assert page.status_code == 200
    return re.findall(r'<span class="name">([^<]*)</span>', page.text)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "cat"}, ["single[0]", "single[1]", *(f"cat-{number}" for number in range(58))]),
        ({"q": "black cat"}, ["single[0]"]),
        ({"q": "NUMBER 12"}, ["cat-12", "cat-112", *(f"cat-{number}" for number in range(120, 130))]),
        ({"status": "content_blocked"}, ["cat-4"]),
        ({"status": "awaited"}, ["single[1]"]),
        ({"style": "ANIME"}, ["cat-5"]),
        ({"size": "1024x768"}, ["cat-5"]),
        ({"size": "RESOLUTION_1024_768"}, ["cat-5"]),
        ({"task": "single"}, ["single[0]", "single[1]"]),
        ({"seed": "7"}, ["single[1]", "cat-7"]),
        ({"seed": " 8 ", "status": "generated"}, ["cat-8"]),
        ({"sort": "dearest", "q": "a"}, ["single[0]", "cat-0"]),
        ({"sort": "cheapest", "q": "dog"}, ["cat-4", "cat-0"]),
        ({"sort": "newest", "q": "n"}, ["single[0]", "cat-5"]),
        ({"sort": "prompt", "q": "number"}, ["cat-0", "cat-1", "cat-10", "cat-100"]),
        ({"q": "a horse"}, []),
    ],
)
async def test_query_finds(query: dict[str, str], names: list[str], gallery: httpx.AsyncClient) -> None:
    found = _names(await gallery.get(RUN_PATH, params=query))
    assert found[: len(names)] == names
    assert len(found) == len(names) or "sort" in query


@pytest.mark.usefixtures("run")
async def test_query_is_in_every_address_of_its_page(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(RUN_PATH, params={"q": "dog", "sort": "cheapest", "page": 2})
    assert "130 of 132 images" in page.text
    assert _names(page)[0] == "cat-60"
    assert 'value="dog"' in page.text
    next_page = re.search(r'rel="next" href="([^"]*)"', page.text)
    assert next_page
    assert "q=dog&amp;sort=cheapest" in next_page[1]
    [address] = re.findall(r'class="card" href="([^"]*)" id="image-a_set-[^"]*">', page.text)[:1]
    assert address.endswith("?at=60&amp;q=dog&amp;sort=cheapest")
    image = await gallery.get(address.removeprefix("/ideogram").replace("&amp;", "&"))
    near = re.findall(r'data-(?:previous|next) [^>]*href="[^"]*[?]([^"]*)"', image.text)
    assert near == ["at=59&amp;q=dog&amp;sort=cheapest", "at=61&amp;q=dog&amp;sort=cheapest"]
    assert "page=2&amp;q=dog&amp;sort=cheapest#image-a_set-" in image.text


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("query", [{"sort": "x"}, {"q": "x" * 501}])
async def test_invalid_query_is_refused(query: dict[str, str], gallery: httpx.AsyncClient) -> None:
    assert (await gallery.get(RUN_PATH, params=query)).status_code == 422


async def test_search_of_a_retried_dataset_finds_last_lines(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    workspace = workspace_of("cats")
    earlier, later = row(s3_bucket, 1, status="failed", error="x"), row(s3_bucket, 1)
    for number, lines in enumerate([(earlier, row(s3_bucket, 2)), (later,)]):
        s3.put_object(Bucket=s3_bucket, Key=f"{workspace}part-{number:05}.jsonl", Body=json_lines(*lines))
    database.add_run("cats", state="running")
    progress = {"total": 9, "done": 2, "parts": f"s3://{s3_bucket}/{workspace}part-"}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_task("cats", xcoms={"progress": progress}, operator=DATASET, rendered=told, tries=2, state="running")
    assert _names(await gallery.get(RUN_PATH, params={"q": "number 1"})) == ["cat-1"]
    assert _names(await gallery.get(RUN_PATH, params={"status": "failed"})) == []


@pytest.mark.usefixtures("run")
async def test_what_is_left_out_of_a_search_is_said(
    gallery: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_SEARCHED", 1)
    page = await gallery.get(RUN_PATH, params={"q": "cat"})
    assert "the first 1 are searched" in page.text
    assert "single[1]" not in page.text


def test_search_ends_at_the_limit_of_bytes(run: list[dict[str, Any]], s3: S3Client) -> None:
    limited = Work(max_bytes=len(json_lines(*run)) - 1)
    found = pages.read_page(reader_of(s3, limited), Scope("cats", RUN), query=Query(q="dog"))
    assert any("Not all rows of a_set are searched: there is too much to read" in one for one in found.problems)


@pytest.mark.parametrize("order", ORDERS)
def test_order_takes_any_value(order: str) -> None:
    odd = [None, True, 1, "x", 1e300, "", "\ud800"]
    items = [item_of_line(INSTANCE, str(number), b"{}") for number in range(len(odd))]
    items = [
        replace(item, facts={"cost_usd": value, "completed_at": value, "prompt": value})
        for item, value in zip(items, odd, strict=True)
    ]
    page, found = Query(sort=order).page(items, 0, 100)
    assert found == len(odd)
    assert sorted(item.row or "" for item in page) == [str(one) for one in range(len(odd))]


@pytest.mark.parametrize(("order", "rows"), [("cheapest", "bcea"), ("dearest", "aceb"), ("", "abcd")])
def test_pages_of_an_order_follow_each_other(order: str, rows: str) -> None:
    costs = {"a": 3, "b": 1, "c": 2, "d": None, "e": 2, "f": None}
    items = [replace(item_of_line(INSTANCE, row, b"{}"), facts={"cost_usd": cost}) for row, cost in costs.items()]
    pages_of_two = [Query(sort=order).page(items, offset, 2) for offset in (0, 2)]
    assert "".join(item.row or "" for page, _ in pages_of_two for item in page) == rows
    assert {found for _, found in pages_of_two} == {6}


def test_search_waits_for_others_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_SEARCH_WAIT_SECONDS", 0.01)
    with ExitStack() as searches:
        for _ in range(work.SEARCHES):
            searches.enter_context(Work().search())
        with pytest.raises(work.Busy), Work().search():
            pass
    with Work().search():
        pass


async def test_search_of_5000_rows_is_quick(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    rows = [
        row(s3_bucket, number, prompt=f"Dog {number}, " + "a prompt of usual length " * 5) for number in range(5000)
    ]
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=json_lines(*rows))
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 5000}
    database.add_run("cats")
    prefix = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_task("cats", "a_set", xcoms={"return_value": result}, operator=DATASET, rendered=prefix)
    began = time.thread_time()  # of this thread alone: the machine may be busy with other things
    found = pages.read_page(reader_of(s3), Scope("cats", RUN), query=Query(q="dog", sort="prompt"))
    assert time.thread_time() - began < 0.5
    assert (found.found, found.problems) == (5000, [])
    assert "5,000 of 5,000 images" in (await gallery.get(RUN_PATH, params={"q": "dog"})).text
