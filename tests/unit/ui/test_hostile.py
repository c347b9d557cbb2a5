"""Invented addresses, XComs and objects: a page or an empty card, never an error of the server."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_ideogram.ui.datasets import Dataset
from airflow_provider_ideogram.ui.gate import SECURITY_HEADERS
from airflow_provider_ideogram.ui.records import Instance
from airflow_provider_ideogram.ui.work import LimitReached, Work
from tests.unit.ui.conftest import RUN, Database, json_lines, reader_of, record, row, store, workspace_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
IMAGES = f"{RUN_PATH}/tasks/generate/images"
SURROGATE = "a cat \ud83d half"


@pytest.fixture
def image(database: Database, s3: S3Client, s3_bucket: str) -> dict[str, Any]:
    made = record(s3_bucket)
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": made})
    store(s3, made)
    return made


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    "path",
    [f"{IMAGES}/{index}/-" for index in (2**31, 10**30, "9" * 5000, -2, "x", "%C2%B2")]
    + [f"{IMAGES}/-1/{'9' * 400}", f"{RUN_PATH}%00", f"{IMAGES}/-1/p{10**8}.{10**14}"],
)
async def test_hostile_address_is_not_found(path: str, gallery: httpx.AsyncClient) -> None:
    for end in ("", "/file"):
        assert (await gallery.get(path + end)).status_code == 404


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 400, "1e3"])
async def test_hostile_page_number_is_refused(page: str, gallery: httpx.AsyncClient) -> None:
    answer = await gallery.get(RUN_PATH, params={"page": page})
    assert answer.status_code == 422
    assert "The address is not valid" in answer.text
    assert (await gallery.get(RUN_PATH, params={"page": 10**9})).status_code == 200


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e300, 10**400, -1, SURROGATE, [1], {}])
async def test_hostile_values_of_xcoms_make_a_card(
    value: Any, gallery: httpx.AsyncClient, database: Database, s3_bucket: str
) -> None:
    fields = [name for name in record(s3_bucket) if name not in ("bucket", "key")]
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": record(s3_bucket, **dict.fromkeys(fields, value))})
    failure = dict.fromkeys(("reason", "error", "advice"), value)
    database.add_task("cats", "failed", state="failed", xcoms={"failure": failure})
    numbers = dict.fromkeys(("total", "done", "generated", "cost_usd", "seconds", "seconds_left", "parts"), value)
    database.add_task("cats", "set", xcoms={"progress": numbers, "failure": failure}, operator="IdeogramDataset")
    for path in (RUN_PATH, f"{IMAGES}/-1/-", f"{IMAGES}/-1/-".replace("generate", "failed"), "/dags/cats"):
        assert (await gallery.get(path)).status_code == 200
    assert (await gallery.get(f"{IMAGES}/-1/-/file")).status_code in (404, 502)


async def test_xcom_that_is_nested_too_deeply_makes_a_card(gallery: httpx.AsyncClient, database: Database) -> None:
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": "[" * 100_000})
    assert (await gallery.get(RUN_PATH)).status_code == 200


async def test_half_a_surrogate_pair_in_a_line_makes_a_card(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    lines = json_lines(row(s3_bucket, 0, prompt=SURROGATE, key=SURROGATE, id=SURROGATE, error=SURROGATE))
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=lines)
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 1}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": result}, operator="IdeogramDataset", rendered=told)
    assert "a cat ? half" in (await gallery.get(RUN_PATH)).text
    assert "a cat ? half" in (await gallery.get(f"{IMAGES}/-1/0")).text


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("path", ["/", RUN_PATH, "/dags/cats", f"{IMAGES}/-1/-", f"{IMAGES}/-1/-/file"])
async def test_head_is_answered_like_get(path: str, gallery: httpx.AsyncClient) -> None:
    got, head = await gallery.get(path), await gallery.head(path)
    assert head.status_code == 200
    for name in ("Content-Type", "Content-Length", "Content-Security-Policy"):
        assert head.headers.get(name) == got.headers.get(name)


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("path", ["/", RUN_PATH, f"{IMAGES}/-1/-/file", "/static/gallery.css"])
async def test_other_methods_name_what_is_allowed(path: str, gallery: httpx.AsyncClient) -> None:
    answer = await gallery.post(path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.usefixtures("image")
async def test_every_answer_has_the_security_headers(
    gallery: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = ["/static/none", "/static/gallery.css"]
    paths = [RUN_PATH, f"{RUN_PATH}?page=0", "/none", f"{RUN_PATH}/", "/dags/a%00", *static]
    answers = [await gallery.get(path) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 422, 404, 307, 404, 404, 200]
    monkeypatch.setattr("airflow_provider_ideogram.ui.app.find_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await gallery.get(RUN_PATH)
    monkeypatch.setattr(gallery._transport, "raise_app_exceptions", False)
    failed = await gallery.get(RUN_PATH)
    assert failed.status_code == 500
    assert "division" not in failed.text
    for answer in [*answers, failed]:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value or (name == "Cache-Control" and "/static/" in str(answer.url))
    assert answers[-1].headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("content", [b"\n" * (4 << 20), b'{"row": 1,}\n' * 100_000, b"x" * (4 << 20)])
def test_memory_of_a_retried_dataset_is_bounded(content: bytes, s3: S3Client, s3_bucket: str) -> None:
    work = workspace_of("cats")
    s3.put_object(Bucket=s3_bucket, Key=f"{work}part-000000.jsonl", Body=content)
    progress = {"total": 9, "done": 9, "parts": f"s3://{s3_bucket}/{work}part-"}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    dataset = Dataset.of(Instance("cats", RUN, "generate", -1, "running", {"progress": progress}, told, tries=2))
    reader = reader_of(s3, Work(seconds=120))  # measuring takes time
    next(dataset.lines(reader), None)  # what boto3 and moto keep of a first read
    tracemalloc.start()
    try:
        assert len(dataset.page(reader, 0, 60)) <= 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # the server in this process has the object


def test_page_reads_no_more_than_its_bytes(s3: S3Client, s3_bucket: str) -> None:
    work = workspace_of("cats")
    s3.put_object(Bucket=s3_bucket, Key=f"{work}part-000000.jsonl", Body=b"x" * (20 << 20))
    progress = {"total": 9, "done": 9, "parts": f"s3://{s3_bucket}/{work}part-"}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    dataset = Dataset.of(Instance("cats", RUN, "generate", -1, "running", {"progress": progress}, told, tries=2))
    with pytest.raises(LimitReached):
        dataset.page(reader_of(s3), 0, 60)
