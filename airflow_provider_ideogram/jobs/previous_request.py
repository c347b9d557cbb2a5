"""
What a stored image was made from.

Invariant: the inputs are those that were sent, from the account's history; none are guessed.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_ideogram.exceptions import IdeogramJobUnreachable
from airflow_provider_ideogram.storage.image_record import ImageRecord, fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.target import Target


def request_of_image(hook: IdeogramHook, target: Target, head: Mapping[str, Any]) -> GenerationRequest:
    """
    Return the request of an image, as the user gave it.

    :param head: S3's description of the image at the target.
    :raises IdeogramJobUnreachable: If its inputs are unknown.
    """
    stored = ImageRecord.of_object(target, head, None)
    request = _find_in_history(hook, stored)
    if request is None:
        raise IdeogramJobUnreachable(
            f"The image of request {stored.request_id} is stored at {target.uri}, but the account's request "
            "history does not show its inputs, and the function may return others now",
            "The request was charged, and nothing more is. A retry searches the history again; clear the task to "
            "call the function again and pay for a new image.",
            charged=True,
            request_id=stored.request_id,
        )
    return request.as_asked(fingerprint_of(head))


def _find_in_history(hook: IdeogramHook, stored: ImageRecord) -> GenerationRequest | None:
    if not hook.has_history:
        return None
    request_id, model = stored.request_id or "", stored.model or ""
    submitted_at = datetime.fromisoformat(stored.submitted_at or "").timestamp()
    row = hook.find_in_history(request_id) or hook.find_in_list(request_id, model, submitted_at)
    return row.request() if row else None
