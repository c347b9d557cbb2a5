from __future__ import annotations

import json
from typing import Any

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest

# A job as 0.1.0 writes it into a trigger's row: a task that was deferred before an upgrade resumes after it.
JSON_OF_0_1_0: dict[str, Any] = {
    "request_id": "0f3c-1",
    "submitted_at": 1795392000.25,
    "request": {
        "prompt": "a cat",
        "magic_prompt_option": "OFF",
        "resolution": "RESOLUTION_1024_768",
        "style_type": "ANIME",
        "seed": 42,
        "model": "ideogram-2a-txt-2-img",
        "model_params": {"guidance": 3},
    },
    "fingerprint": "00ff",
    "target": "s3://bucket/a/cat.png",
    "record_key": "_ideogram/k",
    "record_etag": '"e"',
    "paid_by_other_task": True,
    "attempt_group": "0a0b",
}


def test_json_of_the_first_version_is_read_and_written() -> None:
    job = Job.from_json(json.loads(json.dumps(JSON_OF_0_1_0)))
    request = GenerationRequest("a cat", "OFF", "1024x768", "ANIME", 42, model_params={"guidance": 3})
    where = ("s3://bucket/a/cat.png", "_ideogram/k", '"e"')
    assert job == Job("0f3c-1", 1795392000.25, request, "00ff", *where, paid_by_other_task=True, attempt_group="0a0b")
    assert job.to_json() == JSON_OF_0_1_0
