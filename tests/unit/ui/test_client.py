from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.ui import client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(autouse=True)
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_made", None)


def test_client_is_kept_until_the_connection_changes(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.object_store(1)
    assert client.object_store(1) is first
    monkeypatch.setenv("AIRFLOW__IDEOGRAM__GALLERY_AWS_CONN_ID", "another")
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", '{"conn_type": "aws", "extra": {"region_name": "eu-west-1"}}')
    assert client.object_store(1).client.meta.region_name == "eu-west-1"


def test_client_does_not_wait_long_for_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = '{"region_name": "eu-west-1", "config_kwargs": {"read_timeout": 60, "s3": {"addressing_style": "path"}}}'
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", f'{{"conn_type": "aws", "extra": {extra}}}')
    config = client.object_store(1).client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (2, 3)
    assert config.retries["total_max_attempts"] == 2
    assert config.s3["addressing_style"] == "path"


@pytest.mark.parametrize("conn_id", ["not_there", ""])
def test_connection_that_is_not_defined_is_an_error(conn_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__IDEOGRAM__GALLERY_AWS_CONN_ID", conn_id)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-server")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-server")
    with pytest.raises(IdeogramStorageError, match="is not defined"):
        client.object_store(1)


def test_connection_is_read_again_after_an_error(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(client, "_connect", lambda conn_id: 1 / 0)
        with pytest.raises(IdeogramStorageError, match="gives no S3 client: division by zero"):
            client.object_store(1)
    assert isinstance(client.object_store(1), ObjectStore)


def test_one_thread_makes_the_client_and_holds_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()
    calls: list[str] = []

    def connect(conn_id: str) -> ObjectStore:
        calls.append(conn_id)
        begun.set()
        assert end.wait(30)
        return ObjectStore(mock.Mock())

    monkeypatch.setattr(client, "_connect", connect)
    thread = threading.Thread(target=client.object_store, args=(30,))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(IdeogramStorageError, match="gives no S3 client"):
        client.object_store(0.01)
    end.set()
    thread.join()
    client.object_store(1)
    assert calls == ["aws_default"]
