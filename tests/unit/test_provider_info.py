from __future__ import annotations

import importlib
import json
from importlib.metadata import distribution, entry_points
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_ideogram import __version__
from airflow_provider_ideogram.get_provider_info import get_provider_info
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS
from tests.support.airflow_version import need_airflow

DISTRIBUTION = "airflow-provider-ideogram"
INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_metadata_is_valid_and_plain_json(schema: str) -> None:
    if schema.startswith("provider.yaml"):  # only Airflow's own providers must follow it
        need_airflow("3.2", "'lifecycle' in the schema of provider.yaml")
    jsonschema.validate(INFO, json.loads(files("airflow").joinpath(schema).read_text()))
    assert json.loads(json.dumps(INFO)) == INFO


def test_metadata_matches_the_distribution() -> None:
    assert INFO["package-name"] == distribution(DISTRIBUTION).name == DISTRIBUTION
    assert INFO["versions"] == [__version__]
    (entry_point,) = (
        entry_point
        for entry_point in entry_points(group="apache_airflow_provider")
        if entry_point.dist is not None and entry_point.dist.name == DISTRIBUTION
    )
    assert entry_point.load() is get_provider_info


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_modules_can_be_imported(kind: str) -> None:
    known = {integration["integration-name"] for integration in INFO["integrations"]}
    for item in INFO[kind]:
        assert item["integration-name"] in known
        for module in item["python-modules"]:
            assert module.startswith("airflow_provider_ideogram.")
            importlib.import_module(module)


def test_hook_class_has_the_connection_type() -> None:
    module, _, name = CONNECTION_TYPE["hook-class-name"].rpartition(".")
    hook: Any = getattr(importlib.import_module(module), name)
    assert issubclass(hook, BaseHook)
    assert hook.conn_type == CONNECTION_TYPE["connection-type"]
    assert hook.hook_name == CONNECTION_TYPE["hook-name"]


def test_form_has_the_fields_of_the_extra() -> None:
    fields = CONNECTION_TYPE["conn-fields"]
    assert list(fields) == list(EXTRA_FIELDS)
    for name, extra in EXTRA_FIELDS.items():
        assert (fields[name]["label"], fields[name]["description"]) == (extra.label, extra.description)
        assert fields[name]["schema"]["type"] == [extra.json_type, "null"]
        assert fields[name]["schema"].get("default") == extra.default
