from __future__ import annotations

import inspect
import json
import logging
from typing import Any

import pytest
from airflow.providers.common.compat.module_loading import import_string

from airflow_provider_ideogram.triggers import IdeogramTrigger

_VALUES: dict[str, Any] = {
    "requests": {"r-1": 1795392000.25, "r-2": 1795392001.0},
    "deadline": 1795392600.25,
    "ideogram_conn_id": "my_conn",
    "poll_interval": 2.5,
    "model": "ideogram-3-txt-2-img",
    "min_settled": 1,
    "not_before": 1_800_000_000.0,
    "payload": {"request": {"seed": 7}, "target": "s3://bucket/cat.png"},
}
ARGUMENTS = {name: _VALUES[name] for name in inspect.signature(IdeogramTrigger).parameters}


def test_serialization_keeps_every_argument() -> None:
    path, arguments = IdeogramTrigger(**ARGUMENTS).serialize()
    assert arguments == ARGUMENTS
    copy = import_string(path)(**json.loads(json.dumps(arguments)))
    assert type(copy) is IdeogramTrigger
    assert copy.serialize() == (path, ARGUMENTS)


def test_serialization_keeps_the_defaults() -> None:
    path, arguments = IdeogramTrigger(requests={}, deadline=0.0).serialize()
    assert IdeogramTrigger(**arguments).serialize() == (path, arguments)
    assert arguments["ideogram_conn_id"] == "ideogram_default"


def test_payload_is_copied() -> None:
    payload = {"a": 1}
    trigger = IdeogramTrigger(requests={}, deadline=0.0, payload=payload)
    payload["a"] = 2
    assert trigger.serialize()[1]["payload"] == {"a": 1}


async def test_kill_logs_that_the_requests_continue(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IdeogramTrigger, "log", logging.getLogger("trigger"))  # Airflow's logger differs by version
    await IdeogramTrigger(**ARGUMENTS).on_kill()
    assert "Request r-1 continues at the vendor" in caplog.text
    assert "Request r-2 continues at the vendor" in caplog.text
