from __future__ import annotations

import csv
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import httpx
import pytest

from airflow_provider_ideogram.ui import downloads
from airflow_provider_ideogram.ui.items import console_address
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.records import Instance, Item
from airflow_provider_ideogram.ui.work import Work
from tests.unit.ui.conftest import RUN, Database, record, store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ZIP = f"/dags/cats/runs/{RUN}/images.zip"
TABLE = f"/dags/cats/runs/{RUN}/images.csv"


@pytest.fixture
def images(database: Database, s3: S3Client, s3_bucket: str) -> list[dict[str, Any]]:
    """Mapped images, of which two have keys that end alike, one is no image of its request, and one is not stored."""
    found = [record(s3_bucket, number, prompt=f"=Cat({number})") for number in range(4)]
    found[1]["key"] = "more/0.png"
    for image in found[:2]:
        store(s3, image, b"image " + image["key"].encode())
    store(s3, found[2], Metadata={"ideogram-request-id": "of-another"})
    database.add_run("cats")
    for number, image in enumerate(found):
        database.add_task("cats", map_index=number, xcoms={"return_value": image})
    return found


def _selected(*numbers: int) -> dict[str, Any]:
    return {"image": [f"generate/{number}/-" for number in numbers]}


async def _zip(gallery: httpx.AsyncClient, *numbers: int) -> dict[str, bytes]:
    answer = await gallery.get(ZIP, params=_selected(*numbers))
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="manual__2026')
    with ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.usefixtures("images")
async def test_zip_has_the_originals(gallery: httpx.AsyncClient) -> None:
    assert await _zip(gallery, 0, 1, 0) == {"0.png": b"image 0.png", "0-2.png": b"image more/0.png"}


@pytest.mark.usefixtures("images")
async def test_zip_has_only_what_the_gallery_shows(gallery: httpx.AsyncClient) -> None:
    found = await _zip(gallery, 0, 2, 3)
    assert set(found) == {"0.png", "missing.txt"}
    assert found["missing.txt"].count(b"The image was deleted, or replaced by another one.") == 2


async def test_zip_says_which_types_are_left_out(
    gallery: httpx.AsyncClient, images: list[dict[str, Any]], s3: S3Client
) -> None:
    store(s3, images[1], ContentType="image/jp2")
    found = await _zip(gallery, 1)
    assert found == {"missing.txt": b"0.png: Images of type image/jp2 are not shown."}


@pytest.mark.usefixtures("images")
async def test_size_of_a_zip_is_bounded(gallery: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_ZIP_BYTES", 15)
    found = await _zip(gallery, 1, 0)
    # The image that is too large comes first, and does not stop the one that has room.
    assert set(found) == {"0-2.png", "missing.txt"}
    assert found["missing.txt"].startswith(b"0.png: left out, since a ZIP has at most")


@pytest.mark.usefixtures("images")
async def test_table_has_the_data_and_no_formula(gallery: httpx.AsyncClient) -> None:
    answer = await gallery.get(TABLE, params=_selected(1, 0))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [(line["name"], line["map_index"], line["prompt"], line["seed"]) for line in lines] == [
        ("generate[1]", "1", "'=Cat(1)", "1"),
        ("generate[0]", "0", "'=Cat(0)", "0"),
    ]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("path", [ZIP, TABLE])
async def test_selections_that_are_refused(path: str, gallery: httpx.AsyncClient) -> None:
    assert (await gallery.get(path)).status_code == 422
    assert (await gallery.get(path, params={"image": ["generate/0/-"] * 101})).status_code == 422
    assert (await gallery.get(path, params=_selected(9))).status_code == 404
    answer = await gallery.request("POST", path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


class _Client:
    def __init__(self, endpoint: str) -> None:
        self.meta = self
        self.endpoint_url = endpoint


@pytest.mark.parametrize(
    ("endpoint", "link"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "https://s3.console.aws.amazon.com/s3/object/b?prefix=a+cat.png"),
        ("https://minio.example", None),
        ("https://amazonaws.com.example", None),
    ],
)
def test_console_is_that_of_aws(endpoint: str, link: str | None) -> None:
    objects: Any = SimpleNamespace(client=_Client(endpoint))
    reader = Reader(Work(), lambda _: objects)
    instance = Instance("cats", RUN, "generate", -1, "success", {}, {})
    facts = {"bucket": "b", "key": "a cat.png", "request_id": "r"}
    assert console_address(reader, Item(instance, None, "cat", "generated", facts)) == link
    assert console_address(reader, Item(instance, None, "cat", "failed", {})) is None
