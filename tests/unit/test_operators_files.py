"""The files that operators copy from docs/: dashboard, alert rules, Helm values, Dockerfile."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_provider_ideogram import exceptions, metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "monitoring" / "grafana-dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())
VALUES: dict[str, Any] = yaml.safe_load((DOCS / "deployment" / "values.yaml").read_text())

#: The part of Grafana's dashboard model that an import needs.
_DASHBOARD_SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "datasource", "gridPos", "fieldConfig", "targets"],
                "properties": {
                    "type": {"enum": ["stat", "timeseries"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["x", "y", "w", "h"],
                        "properties": {
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                        },
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "object", "required": ["refId", "expr", "datasource"]},
                    },
                },
            },
        },
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {
                "list": {
                    "type": "array",
                    "contains": {"properties": {"type": {"const": "datasource"}}},
                    "items": {"properties": {"current": {"required": ["text", "value"]}}},
                },
            },
        },
    },
}
#: Keys of the official chart's values, of those at its top that concern all of Airflow's processes.
_CHART_KEYS = {
    "defaultAirflowRepository",
    "defaultAirflowTag",
    "airflowVersion",
    "secret",
    "env",
    "config",
    "triggerer",
    "workers",
    "statsd",
}


def _metric_names() -> set[str]:
    """Return the metrics' names in Prometheus: of each metric that metrics.py sends, and of each failure's reason."""
    tree = ast.parse(Path(metrics.__file__).read_text())
    texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    sent = {text for text in texts if re.fullmatch(r"ideogram\.[a-z_]+", text)}
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type)]
    reasons = {kind.code for kind in kinds if issubclass(kind, exceptions.IdeogramError)}
    names = sent | {f"ideogram.failed.{reason}" for reason in reasons}
    return {f"airflow_{name.replace('.', '_')}" for name in names}


def _used(expression: str) -> set[str]:
    """Return the metrics that a query names, without what Prometheus' exporters add."""
    names = set()
    for found in re.findall(r"airflow_ideogram_(?:\w|\([\w|]+\))+", expression.replace("(_total)?", "")):
        base, _, choice = found.partition("(")
        alternatives = choice.rstrip(")").split("|") if choice else [""]
        names |= {re.sub(r"(_milliseconds)?(_sum|_count)$", "", base + one) for one in alternatives}
    return names


def _queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("query", _queries())
def test_queries_name_metrics_that_are_sent(query: str) -> None:
    assert _used(query)
    assert _used(query) <= _metric_names()
    assert [query.count(opening) for opening in "([{"] == [query.count(closing) for closing in ")]}"]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set().union(*(_used(query) for query in _queries()))
    by_name = {name for name in _metric_names() if name.startswith("airflow_ideogram_failed")}
    assert _metric_names() - shown <= by_name


def test_dashboard_has_the_form_that_grafana_imports() -> None:
    jsonschema.validate(DASHBOARD, _DASHBOARD_SCHEMA)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_names_on_the_page_are_those_of_the_metrics() -> None:
    page = (DOCS / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(ideogram\.\w+)` \| `(\w+)`.*\| `(\w+)`", page, re.MULTILINE)
    assert {by_statsd for _, by_statsd, _ in rows} == {
        name for name in _metric_names() if not name.startswith("airflow_ideogram_failed_")
    }
    for metric, by_statsd, by_otel in rows:
        assert by_statsd == f"airflow_{metric.replace('.', '_')}"
        assert re.fullmatch(rf"{by_statsd}(_total|_milliseconds)?", by_otel)


def test_alerts_are_rules_that_say_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "action"}
    page = (DOCS / "monitoring.md").read_text()
    assert re.findall(r"^\| `(Ideogram\w+)`", page, re.MULTILINE) == [rule["alert"] for rule in rules]


def test_helm_values_have_keys_of_the_official_chart() -> None:
    assert set(VALUES) <= _CHART_KEYS
    assert set(VALUES["triggerer"]) == {"replicas", "resources"}
    assert set(VALUES["workers"]) == {"celery"}
    assert VALUES["defaultAirflowTag"] == VALUES["airflowVersion"]
    for secret in VALUES["secret"]:
        assert set(secret) == {"envName", "secretName", "secretKey"}
    for variable in VALUES["env"]:
        assert json.loads(variable["value"])["conn_type"] == "aws"


def test_image_and_chart_have_the_same_airflow() -> None:
    dockerfile = (DOCS / "deployment" / "Dockerfile").read_text()
    assert f"FROM apache/airflow:{VALUES['airflowVersion']}\n" in dockerfile
    assert '"apache-airflow==${AIRFLOW_VERSION}"' in dockerfile
