from __future__ import annotations

import json
from importlib.resources import files
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.module_loading import import_string

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.get_provider_info import get_provider_info
from airflow_provider_ideogram.links import IdeogramImageLink, SegmindRequestLink
from airflow_provider_ideogram.links import ideogram as links
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.task_runner import TaskRunner

OPERATOR: Any = IdeogramGenerateImageOperator(task_id="generate", prompt="A cat", s3_key="s3://my-bucket/cat.png")
KEY: Any = SimpleNamespace(
    dag_id="cats", run_id="scheduled__2026-01-02T00:00:00+00:00", task_id="make it", map_index=-1
)
PAGE = "/dags/cats/runs/scheduled__2026-01-02T00%3A00%3A00%2B00%3A00/tasks/make%20it"
CONSOLE = "https://platform.segmind.com"


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs of the task instance, empty to begin with."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow_provider_ideogram.links.ideogram.XCom.get_value", lambda *, ti_key, key: values.get(key)
    )
    return values


def test_image_link_leads_to_the_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "__version__", "3.1.0")
    link = IdeogramImageLink()
    assert link.get_link(OPERATOR, ti_key=KEY) == f"{PAGE}/plugin/{links.UI_ROUTE}"
    mapped: Any = SimpleNamespace(**{**vars(KEY), "map_index": 3})
    assert link.get_link(OPERATOR, ti_key=mapped) == f"{PAGE}/mapped/3/plugin/{links.UI_ROUTE}"


def test_image_link_has_airflows_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "__version__", "3.1.0")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/airflow/")
    assert IdeogramImageLink().get_link(OPERATOR, ti_key=KEY).startswith("https://example.com/airflow/dags/cats/")


def test_image_link_leads_to_the_s3_console_without_a_gallery(
    xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "__version__", "2.11.0")
    link = IdeogramImageLink()
    serialized: Any = SimpleNamespace()
    assert link.get_link(serialized, ti_key=KEY) == ""
    xcoms["return_value"] = {"request_id": "1", "submitted_at": "now"}
    assert link.get_link(serialized, ti_key=KEY) == ""
    xcoms["return_value"] = {"bucket": "my-bucket", "key": "cats/a&b.png"}
    assert link.get_link(serialized, ti_key=KEY) == (
        "https://s3.console.aws.amazon.com/s3/object/my-bucket?prefix=cats%2Fa%26b.png"
    )
    assert link.get_link(OPERATOR, ti_key=KEY) == "", "on a worker no XCom is read, and this one has no image yet"


def test_request_link_is_there_with_the_request(xcoms: dict[str, Any]) -> None:
    link = SegmindRequestLink()
    serialized: Any = SimpleNamespace()
    assert link.get_link(serialized, ti_key=KEY) == ""
    xcoms["return_value"] = {"request_id": None}
    assert link.get_link(serialized, ti_key=KEY) == ""
    xcoms["return_value"] = {"request_id": "of a reused image"}
    assert link.get_link(serialized, ti_key=KEY) == f"{CONSOLE}#of%20a%20reused%20image"
    xcoms["request_id"] = "request-1"
    assert link.get_link(serialized, ti_key=KEY) == f"{CONSOLE}#request-1"


def test_request_link_reads_no_xcom_on_a_worker(xcoms: dict[str, Any]) -> None:
    xcoms["request_id"] = "of another slice"
    assert SegmindRequestLink().get_link(OPERATOR, ti_key=KEY) == ""
    operator: Any = IdeogramGenerateImageOperator(task_id="generate", prompt="A cat", s3_key="s3://my-bucket/cat.png")
    operator._result = {"request_id": "of a reused image"}
    assert SegmindRequestLink().get_link(operator, ti_key=KEY) == f"{CONSOLE}#of%20a%20reused%20image"
    operator._job = Job("request-1", 0.0, None, "", "")
    assert SegmindRequestLink().get_link(operator, ti_key=KEY) == f"{CONSOLE}#request-1"


def test_dataset_has_no_link_to_a_single_request() -> None:
    assert [link.name for link in IdeogramGenerateDatasetOperator.operator_extra_links] == ["Image"]


def test_links_exist_during_and_after_the_deferral(
    task_runner: TaskRunner, ideogram_emulator: RunningEmulator, ideogram_connection: str, s3_bucket: str
) -> None:
    operator = IdeogramGenerateImageOperator(task_id="generate", prompt="A cat", s3_bucket=s3_bucket, s3_key="cat.png")
    run = task_runner(operator)
    assert run.execute().state == "deferred"
    [charge] = ideogram_emulator.requests()
    assert run.link("Segmind request") == f"{CONSOLE}#{charge.request_id}"
    page = f"/tasks/generate/plugin/{links.UI_ROUTE}" if links.has_gallery() else ""  # there is no object yet
    assert run.link("Image").endswith(page)
    assert bool(run.link("Image")) == links.has_gallery()

    assert run.resume(run.fire()).state == "success"
    assert run.link("Image").endswith(page or f"/s3/object/{s3_bucket}?prefix=cat.png")


def test_metadata_names_the_operators_links() -> None:
    named = {import_string(name) for name in get_provider_info()["extra-links"]}
    assert named == {type(link) for link in IdeogramGenerateImageOperator.operator_extra_links}


def test_metadata_declares_the_gallerys_connection() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    option = get_provider_info()["config"]["ideogram"]["options"]["gallery_aws_conn_id"]
    assert set(option) <= set(schema["definitions"]["option"]["properties"])
    assert option["default"] == "aws_default"
