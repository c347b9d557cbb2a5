"""
The Helm values of docs/, rendered with Airflow's official chart, without a cluster.

Helm and the chart are no Python packages: the test runs where ``helm`` is installed and ``AIRFLOW_CHART`` names the
chart's folder.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = os.environ.get("AIRFLOW_CHART", "")
FILE = Path(__file__).resolve().parents[2] / "docs" / "deployment" / "values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(FILE.read_text())
IMAGE = f"{VALUES['defaultAirflowRepository']}:{VALUES['defaultAirflowTag']}"

pytestmark = pytest.mark.skipif(
    not (CHART and shutil.which("helm")), reason="needs helm, and Airflow's chart in the folder AIRFLOW_CHART"
)


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """The objects that Helm makes of the values."""
    command = ["helm", "template", "airflow", CHART, "--values", str(FILE)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [one for one in yaml.safe_load_all(output) if one]


def _one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, f"airflow-{name}")]
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Deployment", "api-server"),
        ("Deployment", "dag-processor"),
        ("Deployment", "scheduler"),
        ("StatefulSet", "triggerer"),
        ("StatefulSet", "worker"),
    ],
)
def test_each_process_has_image_and_connections(rendered: list[dict[str, Any]], kind: str, name: str) -> None:
    [container] = [
        one for one in _one(rendered, kind, name)["spec"]["template"]["spec"]["containers"] if one["name"] == name
    ]
    assert container["image"] == IMAGE
    environment = {variable["name"]: variable for variable in container["env"]}
    key = environment["AIRFLOW_CONN_IDEOGRAM_DEFAULT"]["valueFrom"]["secretKeyRef"]
    assert key == {"name": "ideogram", "key": "connection"}
    assert environment["AIRFLOW_CONN_AWS_DEFAULT"]["value"] == VALUES["env"][0]["value"]


def test_triggerers_workers_and_settings_are_those_of_the_values(rendered: list[dict[str, Any]]) -> None:
    triggerer, worker = (_one(rendered, "StatefulSet", name)["spec"] for name in ("triggerer", "worker"))
    assert triggerer["replicas"] == 2
    assert triggerer["template"]["spec"]["containers"][0]["resources"] == VALUES["triggerer"]["resources"]
    assert worker["template"]["spec"]["containers"][0]["resources"] == VALUES["workers"]["celery"]["resources"]
    settings = configparser.RawConfigParser()
    settings.read_string(_one(rendered, "ConfigMap", "config")["data"]["airflow.cfg"])
    assert settings["core"]["test_connection"] == "Enabled"
    assert settings["ideogram"]["gallery_aws_conn_id"] == "aws_default"
    assert (settings["metrics"]["statsd_on"], settings["metrics"]["statsd_prefix"]) == ("True", "airflow")
    assert {port["port"] for port in _one(rendered, "Service", "statsd")["spec"]["ports"]} == {9125, 9102}
