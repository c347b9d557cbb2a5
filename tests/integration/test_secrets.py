"""The API key stays in the connection, and is sent to the API only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.emulator.running import connection_to
from tests.support.airflow_version import AIRFLOW

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.world import ImageTask

API_KEY = "SG_key-that-must-not-leak"
if AIRFLOW >= (3, 1):
    MASKERS = ["airflow._shared.secrets_masker", "airflow.sdk._shared.secrets_masker"]
else:
    MASKERS = ["airflow.sdk.execution_time.secrets_masker" if AIRFLOW >= (3, 0) else "airflow.utils.log.secrets_masker"]


@pytest.fixture(autouse=True)
def _secret_key(ideogram_emulator: RunningEmulator, ideogram_connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ideogram_emulator.configure(keys=[API_KEY])
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(ideogram_emulator.url, API_KEY))
    # Airflow masks the secrets that it knows. The tests check that no secret reaches its masker.
    for masker in MASKERS:
        monkeypatch.setattr(f"{masker}.SecretsMasker.add_mask", lambda *_: None)


def stored_objects(s3: S3Client, bucket: str) -> str:
    """Return all objects of the bucket with their metadata, including the ledger's records."""
    found: list[str] = []
    for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        stored: dict[str, Any] = {**s3.get_object(Bucket=bucket, Key=item["Key"])}
        body = stored.pop("Body").read()
        found.append(f"{item['Key']} {json.dumps(stored, default=str)} {body!r}")
    return "\n".join(found)


# Each case names a word that shows that its path through the code was taken.
@pytest.mark.parametrize(
    ("fault", "arguments", "word"),
    [
        (None, {}, "COMPLETED"),
        (None, {"deferrable": False}, "image/png"),
        (None, {"wait_for_completion": False}, "submitted_at"),
        ({"on": "job", "kind": "failed"}, {}, "ran out of memory"),
        ({"on": "job", "kind": "blocked"}, {"on_content_blocked": "skip"}, "safety filter"),
        ({"on": "submit", "kind": "reset", "when": "after"}, {}, "history shows that the submit was accepted"),
        ({"on": "submit", "kind": "error", "status": 401, "text": f"unknown key {API_KEY}"}, {}, "unknown key ***"),
        ({"on": "submit", "kind": "error", "status": 429, "retry_after": "30", "text": API_KEY}, {}, "rate limit"),
        ({"on": "status", "kind": "error", "status": 503, "text": f"the key {API_KEY}"}, {}, "the key ***"),
        ({"on": "result", "kind": "error", "status": 400, "text": f"the key {API_KEY}"}, {}, "the key ***"),
        ({"on": "image", "kind": "error", "status": 403, "times": None}, {}, "HTTP 403"),
        ({"on": "image", "kind": "redirect", "location": "https://elsewhere.example/i.png"}, {}, "elsewhere.example"),
    ],
    ids=lambda value: f"{value['on']}-{value['kind']}" if isinstance(value, dict) and "on" in value else None,
)
def test_key_is_in_nothing_that_airflow_or_s3_stores(
    fault: dict[str, Any] | None,
    arguments: dict[str, Any],
    word: str,
    image_task: ImageTask,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    if fault is not None:
        ideogram_emulator.fault(**fault)
    run = image_task(**arguments)

    result = run.execute()
    objects = stored_objects(s3, s3_bucket)
    if result.state == "deferred" and "retry_after" not in (fault or {}):
        result = run.resume(run.fire())
    objects += stored_objects(s3, s3_bucket)

    kept = f"{run.everything()}\n{result.error!r}\n{objects}"
    assert word in kept
    for form in (API_KEY, json.dumps(API_KEY)[1:-1], API_KEY.encode().hex()):
        assert form not in kept
    assert ideogram_emulator.stats().key_leaks == 0


def test_search_finds_a_key_that_leaks(image_task: ImageTask) -> None:
    run = image_task(prompt=f"a sign that says {API_KEY}")

    run.execute()

    for kept in (str(run.deferral), str(run.rendered_fields), run.everything()):
        assert API_KEY in kept


def test_logs_of_libraries_are_searched_at_their_lowest_level(image_task: ImageTask) -> None:
    run = image_task()

    run.to_end()

    for logger in ("DEBUG httpcore", "INFO httpx", "DEBUG botocore", "DEBUG urllib3"):
        assert logger in run.log_text
