"""The account's objects: no change is lost, and what can't be read is an error."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_ideogram.account import store as store_module
from airflow_provider_ideogram.account.store import ADMISSION_PATIENCE, AccountContended, AccountStore
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramStorageError
from airflow_provider_ideogram.storage import compare_and_swap
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.s3 import answered, conditions_refused, response_lost

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "_account/conn/limit.json"


@pytest.fixture
def store(client: S3Client, bucket: str) -> AccountStore:
    """Return the store of a fresh bucket."""
    return AccountStore(ObjectStore(client), bucket)


def count(state: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
    """Add one."""
    number = state["number"] + 1 if state else 1
    return {"number": number}, number


def test_change_is_written_and_read(store: AccountStore) -> None:
    assert store.read(KEY, dict) is None
    assert [store.update(KEY, dict, count) for _ in range(3)] == [1, 2, 3]
    assert store.read(KEY, dict) == {"number": 3}


def test_nothing_is_written_for_no_change(store: AccountStore) -> None:
    assert store.update(KEY, dict, lambda state: (None, "same")) == "same"
    assert store.read(KEY, dict) is None


def test_no_change_is_lost(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAUSES", (0.001, 4.0))
    monkeypatch.setattr(store_module, "_updating", nullcontext())  # the threads stand for processes
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.extend(store.update(KEY, dict, count) for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 21))


def test_contention_without_an_end_is_an_error(store: AccountStore, client: S3Client) -> None:
    with answered(client, "PutObject", 412, "PreconditionFailed"), pytest.raises(AccountContended, match="others"):
        store.update(KEY, dict, count, -1.0)


def test_patience_bounds_the_pauses(store: AccountStore, client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(store_module, "_PAUSES", (0.1, 4.0))
    clock = mock.Mock(monotonic=lambda: sum(pauses), sleep=pauses.append)
    with (
        mock.patch.object(compare_and_swap, "time", clock),
        answered(client, "PutObject", 412, "PreconditionFailed"),
        pytest.raises(AccountContended),
    ):
        store.update(KEY, dict, count, ADMISSION_PATIENCE)
    assert 1.0 < sum(pauses) <= ADMISSION_PATIENCE


def test_lost_response_applies_a_change_twice_at_most(store: AccountStore, client: S3Client) -> None:
    store.update(KEY, dict, count)
    with response_lost(client, "PutObject"):
        assert store.update(KEY, dict, count) == 3


@pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
def test_s3_that_refuses_is_an_error(operation: str, store: AccountStore, client: S3Client) -> None:
    with answered(client, operation, 403), pytest.raises(IdeogramStorageError, match="Nothing was charged"):
        store.update(KEY, dict, count)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff"])
def test_object_of_another_form_is_an_error(body: bytes, store: AccountStore, client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key=KEY, Body=body)
    with pytest.raises(IdeogramStorageError, match="can't be understood"):
        store.update(KEY, dict, count)
    assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == body


def test_store_that_refuses_conditions_is_an_error(store: AccountStore, client: S3Client) -> None:
    with conditions_refused(client), pytest.raises(IdeogramInvalidInput, match="no conditional writes"):
        store.update(KEY, dict, count)


def test_object_has_a_version(store: AccountStore, client: S3Client, bucket: str) -> None:
    store.update(KEY, dict, count)
    assert json.loads(client.get_object(Bucket=bucket, Key=KEY)["Body"].read())["version"] == 1
