"""Tests of the S3 client of an AWS connection."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_ideogram.storage.s3_client import make_client


def _hook(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> S3Hook:
    connection = {"conn_type": "aws", "login": "the-login", "password": "the-password", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    return S3Hook(aws_conn_id="aws_default")


@pytest.mark.parametrize(
    "extra",
    [
        {"region_name": "eu-central-1"},
        {"region_name": "eu-central-1", "endpoint_url": "http://store.test:9000"},
        {"service_config": {"s3": {"endpoint_url": "http://s3.test:9000"}}, "endpoint_url": "http://other.test"},
        {"region_name": "us-east-2", "config_kwargs": {"read_timeout": 7, "s3": {"addressing_style": "path"}}},
        {"region_name": "us-east-1", "verify": False},
    ],
    ids=["region", "endpoint", "endpoint of S3", "config", "verify"],
)
def test_client_is_the_one_of_the_hook(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    own = make_client(_hook(monkeypatch, **extra))
    hooks: Any = _hook(monkeypatch, **extra).get_conn()
    assert own.meta.endpoint_url == hooks.meta.endpoint_url
    assert own.meta.region_name == hooks.meta.region_name
    for name in ("read_timeout", "connect_timeout", "retries", "s3", "signature_version", "proxies"):
        assert getattr(own.meta.config, name) == getattr(hooks.meta.config, name)
    assert own._request_signer._credentials.access_key == "the-login"
    assert own._endpoint.http_session._verify == hooks._endpoint.http_session._verify


def test_user_agent_names_the_provider_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(_hook(monkeypatch, region_name="eu-central-1", config_kwargs={"user_agent_extra": "of-ours"}))
    assert client.meta.config.user_agent.count("airflow-provider-ideogram/") == 1
    assert "of-ours" in client.meta.config.user_agent


def test_stack_is_not_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock.patch("inspect.stack") as stack:
        make_client(_hook(monkeypatch, region_name="eu-central-1"))
    stack.assert_not_called()
