"""The bytes of an image and of its thumbnail: which are sent, and what is said instead."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from botocore.exceptions import EndpointConnectionError

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.image_record import thumbnail_pointer
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.ui import handlers
from airflow_provider_ideogram.ui.objects import Reader
from tests.unit.ui.conftest import RUN, Database, record, store, workspace_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
IMAGE_PATH = f"{RUN_PATH}/tasks/generate/images/-1/-"
DATASET = "IdeogramGenerateDatasetOperator"


@pytest.mark.usefixtures("image")
async def test_image_is_sent_as_it_is(gallery: httpx.AsyncClient) -> None:
    answer = await gallery.get(f"{IMAGE_PATH}/file")
    assert (answer.status_code, answer.content) == (200, b"\x89PNG image")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]

    again = await gallery.get(f"{IMAGE_PATH}/file", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "change",
    [
        {"Metadata": {}},
        {"Metadata": {"ideogram-request-id": "another"}},
        {"ContentType": "text/html"},
        {"ContentType": "image/svg+xml"},
    ],
)
async def test_other_objects_can_not_be_read(
    change: dict[str, Any], gallery: httpx.AsyncClient, image: dict[str, Any], s3: S3Client
) -> None:
    store(s3, image, b"secret", **change)
    answer = await gallery.get(f"{IMAGE_PATH}/file")
    assert answer.status_code == 404
    assert b"secret" not in answer.content
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_thumbnail_is_sent_while_its_image_is_there(
    gallery: httpx.AsyncClient, image: dict[str, Any], s3: S3Client
) -> None:
    def thumbnail(request_id: str, content: bytes) -> None:
        small = image | {"key": "_ideogram/.thumbnails/1.webp", "request_id": request_id}
        store(s3, small, content, ContentType="image/webp")

    address = f"{IMAGE_PATH}/thumbnail"
    assert (await gallery.get(address)).content == b"\x89PNG image"
    named = {"ideogram-request-id": image["request_id"]} | thumbnail_pointer("_ideogram/.thumbnails/1.webp")
    store(s3, image, Metadata=named)
    assert (await gallery.get(address)).content == b"\x89PNG image"
    thumbnail("another", b"secret")
    assert (await gallery.get(address)).content == b"\x89PNG image"
    thumbnail(image["request_id"], b"RIFF small")
    answer = await gallery.get(address)
    assert (answer.content, answer.headers["Content-Type"]) == (b"RIFF small", "image/webp")
    assert (await gallery.get(f"{IMAGE_PATH}/file")).content == b"\x89PNG image"
    s3.delete_object(Bucket=image["bucket"], Key=image["key"])
    assert (await gallery.get(address)).status_code == 404


async def test_image_that_is_gone_says_so(gallery: httpx.AsyncClient, image: dict[str, Any], s3: S3Client) -> None:
    s3.delete_object(Bucket=image["bucket"], Key=image["key"])
    answer = await gallery.get(f"{IMAGE_PATH}/file")
    assert (answer.status_code, answer.text) == (404, "The image was deleted, or replaced by another one.")


async def test_type_that_is_not_shown_is_named_beside_its_thumbnail(
    gallery: httpx.AsyncClient, image: dict[str, Any], s3: S3Client
) -> None:
    small = image | {"key": "_ideogram/.thumbnails/1.webp"}
    named = {"ideogram-request-id": image["request_id"]} | thumbnail_pointer(small["key"])
    store(s3, image, b"II*", ContentType="image/tiff", Metadata=named)
    for name in ("file", "thumbnail"):
        answer = await gallery.get(f"{IMAGE_PATH}/{name}")
        assert (answer.status_code, answer.text) == (404, "Images of type image/tiff are not shown.")
    store(s3, small, b"RIFF small", ContentType="image/webp")
    assert (await gallery.get(f"{IMAGE_PATH}/thumbnail")).content == b"RIFF small"
    store(
        s3,
        image | {"request_id": "another"},
        b"II*",
        ContentType="image/tiff",
        Metadata=named | {"ideogram-request-id": "another"},
    )
    assert (await gallery.get(f"{IMAGE_PATH}/thumbnail")).text == "The image was deleted, or replaced by another one."


async def test_type_that_is_no_type_is_not_repeated(
    gallery: httpx.AsyncClient, image: dict[str, Any], s3: S3Client
) -> None:
    store(s3, image, ContentType="<b>anything</b>")
    assert (await gallery.get(f"{IMAGE_PATH}/file")).text == "Images of type unknown are not shown."


async def test_image_that_may_not_be_read_says_so(
    gallery: httpx.AsyncClient, image: dict[str, Any], database: Database
) -> None:
    database.add_task("cats", "other", xcoms={"return_value": image | {"bucket": "not a bucket"}})
    answer = await gallery.get(f"{RUN_PATH}/tasks/other/images/-1/-/file")
    assert (answer.status_code, answer.text) == (
        502,
        "The image can't be shown: the read failed (ParamValidationError).",
    )


async def test_version_that_was_made_is_shown(
    gallery: httpx.AsyncClient, database: Database, s3: S3Client, s3_bucket: str
) -> None:
    s3.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    first = record(s3_bucket)
    store(s3, first, b"\x89PNG first")
    [version] = s3.list_object_versions(Bucket=s3_bucket)["Versions"]
    store(s3, first | {"request_id": "later"}, b"\x89PNG later")
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": first | {"version_id": version["VersionId"]}})

    assert (await gallery.get(f"{IMAGE_PATH}/file")).content == b"\x89PNG first"


@pytest.mark.usefixtures("image")
async def test_storage_that_does_not_answer_is_named(
    gallery: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(seconds: float) -> ObjectStore:
        raise IdeogramStorageError("Could not connect to http://s3.example") from EndpointConnectionError(
            endpoint_url="http://s3.example"
        )

    monkeypatch.setattr(handlers, "Reader", partial(Reader, objects=fail))
    answer = await gallery.get(f"{IMAGE_PATH}/file")
    assert answer.status_code == 502
    assert "s3.example" not in answer.text
    assert "the read failed (EndpointConnectionError)" in answer.text
    assert "s3.example" in caplog.text

    progress = {"total": 9, "done": 3, "parts": f"s3://bucket/{workspace_of('cats', 'set')}part-"}
    told = {"s3_prefix": "s3://bucket/cats"}
    database.add_task("cats", "set", xcoms={"progress": progress}, operator=DATASET, rendered=told)
    page = await gallery.get(RUN_PATH)
    assert page.status_code == 200
    assert "The rows of set can" in page.text
    assert "Cat number 1" in page.text
    answer = await gallery.get(f"{RUN_PATH}/tasks/set/images/-1/p0.0")
    assert answer.status_code == 502
    assert "The manifest can" in answer.text
