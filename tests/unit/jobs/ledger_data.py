"""Intents and a stored record for the tests of the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.jobs.record import Intent

KEY = "_ideogram/images/lighthouse.png.json"
ASKED = GenerationRequest("a lighthouse \U0001f30a", model_params={"color_palette": "warm"})
SENT = replace(ASKED, seed=1234)
INTENT = Intent(
    request=SENT,
    fingerprint=ASKED.fingerprint,
    target="s3://bucket/images/lighthouse.png",
    intent_at=1795392000.123456,
    owner="night/scheduled__2026-11-23/generate/-1",
    max_tries=2,
)
OTHER = replace(INTENT, owner="night/scheduled__2026-11-24/generate/-1", intent_at=INTENT.intent_at + 5)

#: A record as this version writes it. Later versions must read it: records outlive an upgrade of the worker.
RECORD = """
{
  "version": 1,
  "request_id": "11111111-2222-4333-8444-555555555555",
  "request": {
    "prompt": "a lighthouse \U0001f30a",
    "magic_prompt_option": "AUTO",
    "resolution": "RESOLUTION_1024_1024",
    "style_type": "GENERAL",
    "seed": 1234,
    "model": "ideogram-2a-txt-2-img",
    "model_params": {"color_palette": "warm"}
  },
  "fingerprint": "e1d9b1d9c36d3ab68f8d5a0ba5d8f1c8b6bd8e2bd3a6db1a0c7d2b9b1f5e6a7c",
  "target": "s3://bucket/images/lighthouse.png",
  "intent_at": 1795392000.123456,
  "owner": "night/scheduled__2026-11-23/generate/-1",
  "max_tries": 2
}
"""


def changed_record(**changes: Any) -> bytes:
    """Return the record with other values; ``...`` removes one."""
    values = {**json.loads(RECORD), **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...}).encode()
