from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_ideogram.storage.thumbnail import MAX_BYTES
from airflow_provider_ideogram.ui import pages
from tests.unit.ui.conftest import NOW, RUN, AuthManager, Database, json_lines, record, row, store, workspace_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
IMAGE_PATH = f"{RUN_PATH}/tasks/generate/images/-1/-"
DATASET = "IdeogramGenerateDatasetOperator"
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' & {{ ds }}"
#: Every kind of address that shows something of a DAG.
DAG_PATHS = [
    "/dags/{dag}",
    "/dags/{dag}/tasks/generate",
    "/dags/{dag}/runs/" + RUN,
    "/dags/{dag}/runs/" + RUN + "/tasks/generate",
    "/dags/{dag}/runs/" + RUN + "/compare?image=generate/-1/-",
    "/dags/{dag}/runs/" + RUN + "/images.zip?image=generate/-1/-",
    "/dags/{dag}/runs/" + RUN + "/images.csv?image=generate/-1/-",
    "/dags/{dag}/runs/" + RUN + "/tasks/generate/images/-1/-",
    "/dags/{dag}/runs/" + RUN + "/tasks/generate/images/-1/-/file",
    "/dags/{dag}/runs/" + RUN + "/tasks/generate/images/-1/-/thumbnail",
    "/dags/{dag}/cover",
    "/dags/{dag}/tasks/generate/cover",
]


@pytest.fixture
def dataset(database: Database, s3: S3Client, s3_bucket: str) -> list[dict[str, Any]]:
    """The rows of the dataset of the DAG ``cats``, some more than two pages of them."""
    rows = [row(s3_bucket, number) for number in range(130)]
    rows[4] |= {"status": "content_blocked", "error": "Not this cat", "bucket": None, "uri": None}
    s3.put_object(Bucket=s3_bucket, Key="cats/manifest.jsonl", Body=json_lines(*rows))
    result = {
        "manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl",
        "total": 130,
        "generated": 129,
        "content_blocked": 1,
    }
    database.add_run("cats")
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_task("cats", xcoms={"return_value": result}, operator=DATASET, rendered=told)
    return rows


def _links(page: httpx.Response, end: str = "") -> list[str]:
    return [
        link.removeprefix("/ideogram").partition("?")[0]
        for link in re.findall(rf'class="card" href="([^"]*{end})"', page.text)
    ]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("path", DAG_PATHS)
async def test_every_address_is_authorised_as_the_user(
    path: str, gallery: httpx.AsyncClient, auth_manager: AuthManager, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    database.add_run("dogs")
    database.add_task("dogs", xcoms={"return_value": record(s3_bucket, 2, prompt="A dog")})
    store(s3, record(s3_bucket, 2))

    allowed = await gallery.get(path.format(dag="cats"))
    assert allowed.status_code == 200
    assert {asked[1:] for asked in auth_manager.asked} == {
        ("TASK_INSTANCE", "cats", "alice"),
        ("XCOM", "cats", "alice"),
    }

    gallery.cookies.set("_token", "guest")
    assert (await gallery.get(path.format(dag="cats"))).status_code == 200
    denied = await gallery.get(path.format(dag="dogs"))
    assert denied.status_code == 403
    assert "A dog" not in denied.text

    gallery.cookies.clear()
    assert (await gallery.get(path.format(dag="cats"))).status_code == 401


async def test_dag_in_the_query_does_not_count(gallery: httpx.AsyncClient) -> None:
    gallery.cookies.set("_token", "guest")
    assert (await gallery.get("/dags/dogs", params={"dag_id": "cats"})).status_code == 403


@pytest.mark.usefixtures("image")
async def test_dags_are_listed_that_the_user_may_read(gallery: httpx.AsyncClient, database: Database) -> None:
    database.add_run("dogs")
    database.add_task("dogs")
    assert {name for name in ("cats", "dogs") if name in (await gallery.get("/")).text} == {"cats", "dogs"}
    gallery.cookies.set("_token", "guest")
    page = await gallery.get("/")
    assert "cats" in page.text
    assert "dogs" not in page.text


@pytest.mark.parametrize("entity", ["TASK_INSTANCE", "XCOM"])
@pytest.mark.usefixtures("image")
async def test_dag_without_the_right_to_its_xcoms_is_not_listed(
    entity: str, gallery: httpx.AsyncClient, auth_manager: AuthManager
) -> None:
    auth_manager.hidden[entity] = {"guest"}
    gallery.cookies.set("_token", "guest")
    assert (await gallery.get("/dags/cats")).status_code == 403
    page = await gallery.get("/")
    assert "0.05 USD" not in page.text
    assert "No DAG that you may see" in page.text


async def test_nothing_was_made_yet(gallery: httpx.AsyncClient) -> None:
    assert "has made images yet" in (await gallery.get("/")).text
    assert "There are no runs here" in (await gallery.get("/dags/cats")).text


@pytest.mark.parametrize(
    "path",
    [
        "/dags/cats/runs/none",
        f"{RUN_PATH}/tasks/other/images/-1/-",
        f"{RUN_PATH}/tasks/generate/images/0/-",
        f"{RUN_PATH}/tasks/generate/images/-1/0",
        f"{RUN_PATH}/tasks/generate/images/-1/-/file/more",
        "/static/none.css",
        "/openapi.json",
        "/docs",
    ],
)
@pytest.mark.usefixtures("image")
async def test_what_is_not_there_is_not_found(path: str, gallery: httpx.AsyncClient) -> None:
    answer = await gallery.get(path)
    assert answer.status_code == 404
    assert "This page does not exist" in answer.text or path.startswith("/static")


@pytest.mark.parametrize("path", [RUN_PATH, IMAGE_PATH, "/dags/cats"])
async def test_prompts_stay_text(path: str, gallery: httpx.AsyncClient, database: Database, s3_bucket: str) -> None:
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": record(s3_bucket, prompt=HTML, style_type=HTML, seed=HTML)})
    page = await gallery.get(path)
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


async def test_single_and_mapped_tasks_with_their_states(
    gallery: httpx.AsyncClient, database: Database, image: dict[str, Any]
) -> None:
    failure = {"reason": "content_blocked", "error": "Not this cat"}
    told = {"prompt": "A cat that is asked for", "ideogram_conn_id": "x"}
    database.add_task("cats", "many", map_index=0, state="failed", xcoms={"failure": failure}, rendered=told)
    database.add_task("cats", "many", map_index=1, state="deferred", xcoms={"request_id": "request-9"})
    database.add_task("cats", "many", map_index=2, state=None)
    database.add_task("cats", "subclass", operator="OurOwnOperator")
    page = await gallery.get(RUN_PATH)
    assert "5 images" in page.text
    for text in ("Cat number 1", "content blocked", "Not this cat", "A cat that is asked for", "request request-9"):
        assert text in page.text
    assert "1 no status" in page.text

    one = await gallery.get(f"{RUN_PATH}/tasks/many", params={"map_index": 1})
    assert _links(one) == [f"{RUN_PATH.replace(':', '%3A').replace('+', '%2B')}/tasks/many/images/1/-"]
    every = await gallery.get(f"{RUN_PATH}/tasks/many", params={"map_index": "{MAP_INDEX}"})
    assert len(_links(every)) == 3
    detail = await gallery.get(_links(one)[0])
    assert "There is no image yet" in detail.text
    assert (await gallery.get(f"{_links(one)[0]}/file")).status_code == 404


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("map_index", ["--5", "-", "", "²", "9" * 5000, "{MAP_INDEX}"])
async def test_what_is_no_map_index_means_all_instances(map_index: str, gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(f"{RUN_PATH}/tasks/generate", params={"map_index": map_index})
    assert page.status_code == 200
    assert len(_links(page)) == 1


async def test_tasks_of_others_are_none_of_ours(gallery: httpx.AsyncClient, database: Database) -> None:
    database.add_run("cats", state="running")
    database.add_task("cats", "other", operator="PythonOperator", linked=False, xcoms={"request_id": "request-1"})
    page = await gallery.get(RUN_PATH)
    assert "No task of this provider has run here" in page.text
    assert "data-live" in page.text


@pytest.mark.usefixtures("image")
async def test_image_with_all_its_data(gallery: httpx.AsyncClient) -> None:
    page = await gallery.get(IMAGE_PATH)
    for text in ("Cat number 1", "12.4 s", "0.05 USD", "2026-01-02 03:04:05 UTC", "request-1", "IdeogramGenerate"):
        assert text in page.text
    assert 'alt="Cat number 1"' in page.text


def test_page_of_thumbnails_has_less_than_2_mb() -> None:
    assert MAX_BYTES * pages.PAGE_SIZE < 2_000_000


async def test_dataset_is_paged(gallery: httpx.AsyncClient, dataset: list[dict[str, Any]], s3: S3Client) -> None:
    first, last = await gallery.get(RUN_PATH), await gallery.get(RUN_PATH, params={"page": 3})
    assert len(_links(first)) == pages.PAGE_SIZE
    assert "Not this cat" in first.text
    assert "Page 1 of 3" in first.text
    assert len(_links(last)) == 10
    assert "cat-129" in last.text
    assert "past the last" not in last.text

    store(s3, dataset[129], b"\x89PNG last")
    answer = await gallery.get(f"{_links(last)[-1]}/file")
    assert answer.content == b"\x89PNG last"
    assert "Cat number 129" in (await gallery.get(_links(last)[-1])).text
    assert (await gallery.get(f"{_links(last)[-1]}1/file")).status_code == 404

    assert len(_links(await gallery.get(RUN_PATH, params={"page": 4}))) == 0
    assert (await gallery.get(RUN_PATH, params={"page": 0})).status_code == 422


async def test_row_with_large_parameters_is_a_row_like_others(
    gallery: httpx.AsyncClient, dataset: list[dict[str, Any]], s3: S3Client
) -> None:
    dataset[2]["model_params"] = {"image": "x" * 300_000}
    bucket = dataset[2]["bucket"]
    s3.put_object(Bucket=bucket, Key="cats/manifest.jsonl", Body=json_lines(*dataset))
    store(s3, dataset[2])
    page = await gallery.get(RUN_PATH)
    assert "can&#39;t be read" not in page.text
    assert "cat-59" in page.text
    assert "cat-60" not in page.text
    assert (await gallery.get(f"{_links(page)[2]}/file")).content == b"\x89PNG image"


async def test_manifest_of_an_invented_address_is_not_read(
    gallery: httpx.AsyncClient, dataset: list[dict[str, Any]], database: Database, s3_bucket: str
) -> None:
    result = {"manifest_uri": f"s3://{s3_bucket}/cats/manifest.jsonl", "total": 130}
    told = {"s3_prefix": f"s3://{s3_bucket}/mine/"}
    database.add_task("mine", xcoms={"return_value": result}, operator=DATASET, rendered=told)
    database.add_task("mine", "old", xcoms={"return_value": result}, operator=DATASET)
    database.add_run("mine")
    for path in (RUN_PATH.replace("cats", "mine"), "/dags/mine"):
        page = await gallery.get(path)
        assert _links(page) == []
        assert dataset[0]["prompt"] not in page.text
        assert "generate are not shown: its XCom names objects that are not the task" in page.text
        assert "old are not shown: Airflow keeps a task" in page.text
    for task in ("generate", "old"):
        detail = await gallery.get(f"{RUN_PATH.replace('cats', 'mine')}/tasks/{task}/images/-1/0")
        assert detail.status_code == 404


async def test_retry_shows_the_last_line_of_each_row(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    parts = f"{workspace_of('cats')}part-"
    failed = {"status": "failed", "bucket": None, "uri": None}
    for part, lines in enumerate([
        [row(s3_bucket, number, error=f"first {number}", **failed) for number in range(40)]
        + [row(s3_bucket, number) for number in range(40, 90)],
        [row(s3_bucket, number, prompt=f"Made anew {number}") for number in range(38)],
        [row(s3_bucket, 38, error="second 38", **failed)],
    ]):  # fmt: skip
        s3.put_object(Bucket=s3_bucket, Key=f"{parts}{part}", Body=json_lines(*lines))
    progress = {"total": 90, "done": 90, "generated": 88, "failed": 2, "parts": f"s3://{s3_bucket}/{parts}"}
    told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
    database.add_run("cats")
    database.add_task("cats", state="deferred", xcoms={"progress": progress}, operator=DATASET, tries=2, rendered=told)

    pages = [await gallery.get(RUN_PATH, params={"page": page}) for page in (1, 2)]

    assert [len(_links(page)) for page in pages] == [60, 30]
    text = "".join(page.text for page in pages)
    assert ("first 37" in text, "first 38" in text, "first 39" in text, "second 38" in text) == (0, 0, 1, 1)
    assert text.index("Made anew 0") < text.index("Made anew 37") < text.index("Cat number 40")
    assert "Made anew 7" in (await gallery.get(_links(pages[0])[7])).text


@pytest.mark.usefixtures("image")
async def test_page_goes_from_tasks_over_to_datasets(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    for number in range(70):
        database.add_task("cats", "many", map_index=number, xcoms={"return_value": record(s3_bucket, number)})
    for name in ("set_a", "set_b"):
        lines = [row(s3_bucket, number, id=f"{name}-{number}") for number in range(30)]
        parts = f"{workspace_of('cats', name)}part-"
        s3.put_object(Bucket=s3_bucket, Key=f"{parts}0", Body=json_lines(*lines))
        progress = {"total": 50, "done": 30, "in_flight": 5, "parts": f"s3://{s3_bucket}/{parts}"}
        told = {"s3_prefix": f"s3://{s3_bucket}/cats"}
        database.add_task("cats", name, state="deferred", xcoms={"progress": progress}, operator="MyOp", rendered=told)
    first = await gallery.get(RUN_PATH)
    assert "131 images" in first.text
    assert "30</strong> of 50" in first.text
    assert "set_a-0" not in first.text
    second = (await gallery.get(RUN_PATH, params={"page": 2})).text
    assert all(text in second for text in ("many[69]", "set_a-29", "set_b-18"))
    assert "set_b-19" not in second
    assert "set_b-29" in (await gallery.get(RUN_PATH, params={"page": 3})).text


async def test_recent_runs_with_their_first_images(
    gallery: httpx.AsyncClient, database: Database, s3_bucket: str
) -> None:
    for number in range(12):
        run_id = f"run-{number:02}"
        database.add_run("cats", run_id, run_after=NOW + timedelta(days=number))
        for index in range(8):
            image = record(s3_bucket, index, prompt=f"Cat {index} of {run_id}")
            database.add_task("cats", run_id=run_id, map_index=index, xcoms={"return_value": image})
    page = (await gallery.get("/dags/cats")).text
    assert page.index("run-11") < page.index("run-02")
    assert "run-01" not in page
    assert "Cat 5 of run-11" in page
    assert "Cat 6 of run-11" not in page
    assert "8 images" in page
    older = (await gallery.get("/dags/cats", params={"page": 2})).text
    assert "run-01" in older
    assert "run-02" not in older
    assert "/runs/run-11/tasks/generate" in (await gallery.get("/dags/cats/tasks/generate")).text
    assert "run-11/tasks/other" in (await gallery.get("/dags/cats/tasks/other")).text


async def test_xcom_stored_as_text_is_read_and_objects_in_it_are_not(
    gallery: httpx.AsyncClient, database: Database, s3_bucket: str
) -> None:
    database.add_run("cats")
    database.add_task("cats", "as_text", xcoms={"return_value": json_lines(record(s3_bucket, 5)).decode()})
    database.add_task("cats", "elsewhere", xcoms={"return_value": "s3://xcoms/1"})
    page = (await gallery.get(RUN_PATH)).text
    assert "Cat number 5" in page
    assert "custom XCom backend" in page


async def test_addresses_keep_the_path_of_a_proxy(
    gallery: httpx.AsyncClient, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = gallery._transport
    assert isinstance(transport, httpx.ASGITransport)
    monkeypatch.setattr(transport, "root_path", "/airflow")
    page = await gallery.get("http://airflow.example/airflow/ideogram/")
    assert 'href="/airflow/ideogram/dags/cats"' in page.text
    assert 'href="/airflow/ideogram/static/gallery.css"' in page.text
