"""Covers and totals of DAGs and tasks, and where the address of a deleted run leads."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_provider_ideogram.ui import app
from tests.unit.ui.conftest import NOW, RUN, AuthManager, Database, json_lines, record, row, store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DATASET = "IdeogramGenerateDatasetOperator"
GONE = "/dags/cats/runs/deleted"


@pytest.fixture
def images(database: Database, s3: S3Client, s3_bucket: str) -> None:
    """A task with two mapped images, and a dataset whose first row was rejected and whose second is stored."""
    database.add_run("cats")
    for index in range(2):
        database.add_task("cats", "single", map_index=index, xcoms={"return_value": record(s3_bucket, index)})
    store(s3, record(s3_bucket, 0), b"single")
    lines = [row(s3_bucket, 7, status="rejected", error="too dark"), row(s3_bucket, 8), row(s3_bucket, 9)]
    store(s3, lines[1], b"of the dataset")
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=json_lines(*lines))
    counts = {"total": 3, "generated": 1, "reused": 1, "rejected": 1, "cost_usd": 0.15}
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", **counts}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_task("cats", "a_set", xcoms={"return_value": result}, operator=DATASET, rendered=told)


@pytest.mark.usefixtures("images")
async def test_dags_have_a_cover_a_number_of_images_and_a_cost(gallery: httpx.AsyncClient) -> None:
    page = (await gallery.get("/")).text
    assert 'src="/ideogram/dags/cats/cover"' in page
    assert "4 images · 0.25 USD</span>" in page


@pytest.mark.usefixtures("images")
async def test_tasks_have_a_cover_a_number_of_images_and_a_cost(gallery: httpx.AsyncClient) -> None:
    page = (await gallery.get("/dags/cats")).text
    assert page.index("tasks/a_set/cover") < page.index("2 images · 0.15 USD") < page.index("tasks/single/cover")
    assert "2 images · 0.10 USD" in page
    assert "/cover" not in (await gallery.get("/dags/cats/tasks/single")).text


@pytest.mark.usefixtures("images")
async def test_cover_is_an_image_that_no_gate_rejected(gallery: httpx.AsyncClient) -> None:
    answer = await gallery.get("/dags/cats/tasks/single/cover")
    assert (answer.content, answer.headers["Content-Type"]) == (b"single", "image/png")
    assert (await gallery.get("/dags/cats/tasks/a_set/cover")).content == b"of the dataset"
    assert (await gallery.get("/dags/cats/cover")).status_code == 200
    known = {"If-None-Match": answer.headers["ETag"]}
    assert (await gallery.get("/dags/cats/tasks/single/cover", headers=known)).status_code == 304


async def test_dag_without_an_image_has_no_cover(gallery: httpx.AsyncClient, database: Database) -> None:
    database.add_run("cats")
    database.add_task("cats", state="failed", xcoms={"failure": {"reason": "timeout"}})
    for dag in ("cats", "unknown"):
        answer = await gallery.get(f"/dags/{dag}/cover")
        assert (answer.status_code, answer.text) == (404, "There is no image.")


@pytest.mark.usefixtures("images")
async def test_cover_of_another_dag_is_not_sent(gallery: httpx.AsyncClient, auth_manager: AuthManager) -> None:
    auth_manager.denied["guest"] = {"cats"}
    gallery.cookies.set("_token", "guest")
    for path in ("/dags/cats/cover", "/dags/cats/tasks/single/cover"):
        answer = await gallery.get(path)
        assert answer.status_code == 403
        assert b"single" not in answer.content


async def test_dags_are_paged(
    gallery: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch, s3_bucket: str
) -> None:
    monkeypatch.setattr(app, "_DAGS_PER_PAGE", 1)
    for number, dag in enumerate(("cats", "dogs")):
        database.add_run(dag, run_after=NOW + timedelta(days=number))
        database.add_task(dag, xcoms={"return_value": record(s3_bucket, number)})
    pages = [(await gallery.get("/", params={"page": page})).text for page in (1, 2, 3)]
    assert sorted(dag for dag in ("cats", "dogs") for page in pages if f"dags/{dag}/cover" in page) == ["cats", "dogs"]
    assert 'href="/ideogram/?page=2"' in pages[0]
    assert "past the last DAG" in pages[2]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("path", "links"),
    [
        (GONE, ["dags/cats"]),
        (f"{GONE}/tasks/single", ["dags/cats/tasks/single", "dags/cats"]),
        (f"{GONE}/tasks/single/images/0/-", ["dags/cats/tasks/single", "dags/cats"]),
        (f"{GONE}/tasks/unknown", ["dags/cats"]),
        (f"{GONE}/compare?image=single/0/-", ["dags/cats"]),
        ("/dags/dogs/runs/deleted", []),
    ],
)
async def test_deleted_run_leads_to_what_is_there(path: str, links: list[str], gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(path)
    assert page.status_code == 404
    assert "There is no such run" in page.text
    found = page.text.partition('<ul class="list">')[2]
    assert [part.partition('"')[0] for part in found.split('href="/ideogram/')[1:]] == [*links, ""]
    for link in links:
        assert (await gallery.get(f"/{link}")).status_code == 200


@pytest.mark.usefixtures("images")
async def test_image_that_is_not_there_leads_to_its_run(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(f"/dags/cats/runs/{RUN}/tasks/single/images/9/-")
    assert page.status_code == 404
    assert "There is no such image" in page.text
    assert 'href="/ideogram/dags/cats/runs/manual__2026-01-02T00%3A00%3A00%2B00%3A00">' in page.text
    assert "in other runs" not in page.text
