"""A campaign on a real Airflow: its files, its charges, and the tasks that are refused before they pay."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest
from PIL import Image
from playwright.sync_api import expect

from airflow_provider_ideogram.storage.provenance import SOURCE_TYPE
from tests.browser.gallery_data import BUCKET, CAMPAIGN, RUN_SECONDS

if TYPE_CHECKING:
    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

MUG, LAMP = "A photo of an enamel mug, with a tag of 14.50 EUR", "A photo of a brass lamp, with a tag of 89.00 EUR"
FORMATS = ("512x1536", "1024x1024")


def ids(*styles: str) -> list[str]:
    """Return the ids of the images: the lamp has a style of its own."""
    cells = [f"mug-{size}-{style}" for size in FORMATS for style in styles] + [f"lamp-{size}" for size in FORMATS]
    return [f"{cell}-{variant}" for cell in cells for variant in (1, 2)]


def read(gallery: GalleryWorld, key: str) -> bytes:
    return gallery.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def lines(gallery: GalleryWorld, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read(gallery, f"campaign/{name}").splitlines()]


def tasks(gallery: GalleryWorld, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    found = gallery.cluster.api.task_instances(CAMPAIGN, run_id)
    return {(one["task_id"], one["map_index"]): one for one in found}


def wait_for(gallery: GalleryWorld, run_id: str, *names: str) -> None:
    """Wait until tasks of a run have ended, all without names."""

    def have_ended() -> bool:
        states = {one["state"] for (name, _), one in tasks(gallery, run_id).items() if not names or name in names}
        return states <= {"success", "failed", "upstream_failed"}

    gallery.cluster.processes.wait_until(gallery.cluster.components["scheduler"], have_ended, RUN_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def _first_run(gallery: GalleryWorld) -> None:
    wait_for(gallery, gallery.runs[CAMPAIGN])


def decoded(content: bytes) -> tuple[str, bytes]:
    with Image.open(io.BytesIO(content)) as image:
        return image.mode, image.tobytes()


def test_each_image_is_made_marked_and_paid_once(gallery: GalleryWorld) -> None:
    manifest = lines(gallery, "manifest.jsonl")
    assert [line["id"] for line in manifest] == ids("REALISTIC", "DESIGN")
    assert [line["prompt"] for line in manifest] == [MUG] * 8 + [LAMP] * 4
    assert {line["style_type"] for line in manifest[8:]} == {"ANIME"}
    for line in manifest:
        assert (line["status"], line["gates"]) == ("generated", ["blank", "tests.support.gates.has_its_size"])
        content = read(gallery, line["key"])
        made = gallery.emulator.image(line["request_id"], line["content_type"])
        assert content != made
        assert decoded(content) == decoded(made)
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (line["width"], line["height"])
            assert SOURCE_TYPE.encode() in image.info["xmp"]
    [rejected] = [attempt for line in manifest for attempt in line["rejected_attempts"]]
    assert (rejected["gate"], rejected["attempt"], rejected["cost_usd"]) == ("blank", 1, 0.05)
    assert decoded(read(gallery, rejected["uri"].removeprefix(f"s3://{BUCKET}/")))
    seeds = [line["seed"] for line in manifest]
    assert seeds[:2] * 4 == seeds[:8]  # the cells of a row share the seeds of its variants
    assert seeds[1] == seeds[0] + 1
    redone = next(index for index, line in enumerate(manifest) if line["rejected_attempts"])
    assert [rejected["seed"] if index == redone else seeds[index] for index in range(8, 12)] == [41, 42] * 2
    paid = [line["request_id"] for line in manifest] + [rejected["request_id"]]
    assert sorted(gallery.emulator.charged_requests("A photo of")) == sorted(paid)


def test_single_image_is_marked(gallery: GalleryWorld) -> None:
    with Image.open(io.BytesIO(read(gallery, "secret.png"))) as image:
        assert SOURCE_TYPE.encode() in image.info["xmp"]


def test_files_beside_the_manifest_open(gallery: GalleryWorld) -> None:
    manifest = lines(gallery, "manifest.jsonl")
    table = pyarrow.parquet.read_table(io.BytesIO(read(gallery, "campaign/manifest.parquet")))
    assert table.column("id").to_pylist() == [line["id"] for line in manifest]
    assert table.column("seed").to_pylist() == [line["seed"] for line in manifest]
    assert all(isinstance(at, datetime) for at in table.column("completed_at").to_pylist())
    folder = lines(gallery, "metadata.jsonl")
    assert [(line["file_name"], line["sha256"]) for line in folder] == [
        (f"{line['id']}.png", line["sha256"]) for line in manifest
    ]


def test_refused_tasks_pay_nothing_and_say_why(gallery: GalleryWorld) -> None:
    found, api = tasks(gallery, "first"), gallery.cluster.api
    result = api.xcom(found["generate", -1])
    assert (result["total"], result["generated"], result["rejected"]) == (12, 12, 0)
    assert result["cost_usd"] == pytest.approx(13 * 0.05)
    for index in (0, 1):
        task = found["at_one_prefix", index]
        assert task["state"] == "failed"
        log = api.log(task)
        assert f"of the same DAG run has the prefix s3://{BUCKET}/campaign/, too" in log
        assert "{{ ti.map_index }}" in log
    assert found["misspelt", -1]["state"] == "failed"
    assert "item 0: has no column 'produkt'" in api.log(found["misspelt", -1])
    assert (found["empty", -1]["state"], api.xcom(found["empty", -1])["total"]) == ("success", 0)
    assert read(gallery, "empty/manifest.jsonl") == b""
    assert gallery.emulator.charged_requests("refused") == []
    assert " error " not in api.log(found["generate", -1])


def test_gallery_shows_variants_side_by_side(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page(CAMPAIGN))
    expect(page.locator(".card img")).to_have_count(12)
    alternatives = page.locator(".card img").evaluate_all("images => images.map((image) => image.alt)")
    assert alternatives == [MUG] * 8 + [LAMP] * 4


def test_further_style_is_all_that_a_further_run_pays(gallery: GalleryWorld) -> None:
    before = lines(gallery, "manifest.jsonl")
    paid = gallery.emulator.charged_requests("A photo of")
    run_id = gallery.cluster.api.trigger_run(CAMPAIGN, {"style": "RENDER_3D"}, run_id="second")
    wait_for(gallery, run_id, "generate")

    manifest = lines(gallery, "manifest.jsonl")
    assert [line["id"] for line in manifest] == ids("REALISTIC", "RENDER_3D")
    new = [line["request_id"] for line in manifest if line["status"] == "generated"]
    assert len(new) == 4
    assert sorted(gallery.emulator.charged_requests("A photo of")) == sorted([*paid, *new])
    kept = {line["id"]: line["sha256"] for line in before}
    assert {line["id"]: line["sha256"] for line in manifest if line["status"] == "reused"} == {
        name: kept[name] for name in ids("REALISTIC")
    }
