from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from airflow import plugins_manager
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

from airflow_provider_ideogram.links import ideogram as links
from airflow_provider_ideogram.ui import URL_PREFIX, plugin


@pytest.fixture
def old_airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(links, "__version__", "3.0.6")
        importlib.reload(plugin)
        yield
    importlib.reload(plugin)


def test_airflow_finds_the_plugin() -> None:
    (entry_point,) = entry_points(group="airflow.plugins", name="ideogram")
    assert entry_point.load() is plugin.IdeogramPlugin
    assert "ideogram" in [found["name"] for found in plugins_manager.get_plugin_info(["source"])]


def test_views_are_what_airflow_takes() -> None:
    views = [ExternalViewResponse.model_validate(view) for view in plugin.IdeogramPlugin.external_views]
    assert [view.destination for view in views] == ["nav", "dag", "dag_run", "task", "task_instance", "nav"]
    assert len({view.url_route for view in views}) == len(views)
    assert [view.url_route for view in views if view.destination == "task_instance"] == [links.UI_ROUTE]
    assert all(not view.href.startswith("/") for view in views)


def test_application_is_mounted_below_the_prefix() -> None:
    [entry] = plugin.IdeogramPlugin().fastapi_apps
    assert callable(entry["app"])
    assert entry["url_prefix"] == URL_PREFIX
    assert entry["app"] is plugin.IdeogramPlugin().fastapi_apps[0]["app"]


@pytest.mark.parametrize(
    ("version", "shown"), [("2.11.0", False), ("3.0.6", False), ("3.1.0rc1", True), ("3.3.2", True)]
)
def test_gallery_is_there_from_airflow_3_1_on(version: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "__version__", version)
    assert links.has_gallery() is shown


def test_gallery_that_cannot_be_imported_has_no_tabs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "airflow_provider_ideogram.ui.app", None)
    instance = plugin.IdeogramPlugin()
    assert instance.fastapi_apps == []
    assert instance.external_views == []
    assert "can't be imported" in caplog.text
    assert plugin.IdeogramPlugin.external_views != []


@pytest.mark.usefixtures("old_airflow")
def test_plugin_is_nothing_on_older_versions() -> None:
    assert plugin.IdeogramPlugin.external_views == []
    assert plugin.IdeogramPlugin().fastapi_apps == []


@pytest.mark.slow
def test_loading_the_plugin_does_not_load_the_application() -> None:
    script = "import airflow_provider_ideogram.ui.plugin, sys; assert not {'starlette', 'boto3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
