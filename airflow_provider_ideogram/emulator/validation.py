"""
The API's validation of request bodies.

It shares the lists of valid values with the client, but not the checks, so that a test can detect an invalid request
that the client lets pass. Unknown parameters are ignored, and of a sister model's parameters only the prompt is
checked.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, MAGIC_PROMPT_OPTIONS, RESOLUTIONS, STYLE_TYPES
from airflow_provider_ideogram.emulator.errors import INVALID_CONTENT_TYPE, ApiError

MAX_SEED = 2_147_483_647

_OPTIONS = {
    "magic_prompt_option": MAGIC_PROMPT_OPTIONS,
    "resolution": RESOLUTIONS,
    "style_type": STYLE_TYPES,
}


def read_inputs(body: bytes) -> dict[str, Any]:
    """
    Parse a request body.

    :raises ApiError: 400, if the body is not a JSON object.
    """
    try:
        inputs = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(inputs, dict):
        raise ApiError(400, "the body is not a JSON object")
    return inputs


def check_content_type(content_type: str) -> None:
    """
    Check the media type of a request body.

    :raises ApiError: 406, if it is not JSON.
    """
    if content_type != "application/json":
        raise ApiError(406, INVALID_CONTENT_TYPE)


def check_inputs(model: str, inputs: dict[str, Any]) -> None:
    """
    Check the inputs of a model.

    :raises ApiError: 400 for a missing prompt, 406 for an invalid value.
    """
    prompt = inputs.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ApiError(400, "prompt: must be a text that is not empty")
    if model == DEFAULT_MODEL:
        _check_options(inputs)


def _check_options(inputs: dict[str, Any]) -> None:
    for name, valid in _OPTIONS.items():
        if name in inputs and inputs[name] not in valid:
            raise ApiError(406, f"{name}: {inputs[name]!r} is not one of {', '.join(valid)}")
    seed = inputs.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ApiError(406, f"seed: {seed!r} is not an integer within 0..{MAX_SEED}")
