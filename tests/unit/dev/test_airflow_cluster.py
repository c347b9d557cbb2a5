from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from dev import airflow_cluster
from dev.airflow_api import AirflowApi
from dev.airflow_cluster import Component, airflow_environment, clean_environment, is_healthy
from dev.processes import ProcessFailed


class _HealthApi:
    """An API with a given health report."""

    def __init__(self, report: dict[str, Any] | None) -> None:
        self.report = report

    def health(self) -> dict[str, Any] | None:
        return self.report


def test_users_settings_do_not_reach_the_components(monkeypatch: pytest.MonkeyPatch) -> None:
    unwanted = ("AIRFLOW_HOME", "AIRFLOW__CORE__EXECUTOR", "AWS_PROFILE", "SEGMIND_API_KEY", "PYTHONDONTWRITEBYTECODE")
    for name in unwanted:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("no_proxy", "internal.example")
    monkeypatch.setenv("EDITOR", "ed")

    environment = clean_environment()

    assert not environment.keys() & set(unwanted)
    assert environment["EDITOR"] == "ed"
    assert environment["no_proxy"] == environment["NO_PROXY"] == "internal.example,127.0.0.1,localhost"


def test_airflow_is_local_and_has_its_own_secrets(tmp_path: Path) -> None:
    first, second = (airflow_environment(tmp_path, tmp_path / "dags", 8080) for _ in range(2))

    assert first["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert first["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8080/execution/"
    assert first["AIRFLOW__API_AUTH__JWT_SECRET"] != second["AIRFLOW__API_AUTH__JWT_SECRET"]


@pytest.mark.parametrize(
    ("report", "entry", "healthy"),
    [
        (None, "scheduler", False),
        ({}, "scheduler", False),
        ({"scheduler": {"status": None}}, "scheduler", False),
        ({"scheduler": {"status": "healthy"}}, "scheduler", True),
        (None, None, True),
    ],
)
def test_component_is_healthy_by_its_entry(report: dict[str, Any] | None, entry: str | None, healthy: bool) -> None:
    assert is_healthy(cast("AirflowApi", _HealthApi(report)), entry) is healthy


def test_component_that_fails_to_start_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = tmp_path / "airflow"
    airflow.write_text('#!/bin/sh\n[ "$1" = db ] && exit 0\necho "$1 found no database"\nexit 7\n')
    airflow.chmod(0o755)
    monkeypatch.setattr(airflow_cluster, "SCRIPTS", tmp_path)
    components = (Component("first scheduler", ("scheduler",), "scheduler"),)

    with (
        pytest.raises(ProcessFailed, match=r"(?s)first scheduler ended with status 7.*scheduler found no database"),
        airflow_cluster.airflow_cluster(tmp_path / "home", tmp_path / "dags", {}, components),
    ):
        pytest.fail("the block must not be entered")
