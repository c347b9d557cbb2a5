"""
The account's request history: what became of a submit that nobody answered.

Invariant: a request is taken for the one that was sent only if its inputs, the drawn seed among them, are the
same and it was made in the minutes of the submit; what cannot be read proves nothing, in either direction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from airflow_provider_ideogram.api.calls import MAX_IMAGE_RESPONSE_BYTES, Call
from airflow_provider_ideogram.api.errors import raise_for_status
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramServerUnavailable

PER_PAGE = 100
#: The worker's clock and the vendor's may differ this many seconds.
CLOCK_SKEW = 120.0
#: A submit is accepted within this many seconds after it was intended, or never.
SUBMIT_WINDOW = 300.0


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """
    A request that the account made.

    :param request_id: The vendor's id.
    :param body: The inputs as they were sent.
    :param created_at: When it was made, in seconds since the epoch.
    """

    request_id: str
    body: Mapping[str, Any]
    created_at: float

    def request(self, model: str) -> GenerationRequest | None:
        """Return what was asked of the model, None for inputs that are none of this package's making."""
        try:
            return GenerationRequest.from_body(model, self.body)
        except IdeogramInvalidInput:
            return None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """
    A page of the history.

    :param rows: The rows that can be read.
    :param size: How many there are, the others included: fewer than :data:`PER_PAGE` on the last page.
    """

    rows: Sequence[HistoryRow]
    size: int

    def ends_search(self, since: float) -> bool:
        """Return whether no further page can hold a request that was made after a time."""
        return self.size < PER_PAGE or any(row.created_at < since for row in self.rows[-1:])


def request_history(history_url: str, model: str, since: float, page: int = 1) -> Call[HistoryPage]:
    """
    Ask for the account's requests, newest first, 100 a page.

    :param history_url: Its address, on another host than the API's.
    :param model: The model's slug.
    :param since: When the submit was intended, in seconds since the epoch.
    :param page: The page, from 1.
    """
    day = datetime.fromtimestamp(since, UTC).date()
    query = {
        "page": page,
        "per_page": PER_PAGE,
        "from_date": day - timedelta(days=1),  # whatever the server's time zone
        "to_date": day + timedelta(days=1),
        "model_name": model,
    }
    return Call("GET", f"{history_url}?{urlencode(query)}", parse_history, max_bytes=MAX_IMAGE_RESPONSE_BYTES)


def parse_history(response: ApiResponse) -> HistoryPage:
    """Read a page of the history; rows that can't be read are left out."""
    raise_for_status(response)
    body = response.json()
    rows = body.get("data") if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise IdeogramServerUnavailable(f"The API's history answer has no rows: {response.message}.")
    return HistoryPage([row for row in map(_row, rows) if row is not None], len(rows))


def find_submitted(rows: Iterable[HistoryRow], request: GenerationRequest, intended_at: float) -> set[str]:
    """Return the ids of the requests that have these inputs and were made when the submit was."""
    sent = request.body()
    first, last = intended_at - CLOCK_SKEW, intended_at + SUBMIT_WINDOW + CLOCK_SKEW
    return {
        row.request_id
        for row in rows
        if first <= row.created_at <= last and all(row.body.get(name) == value for name, value in sent.items())
    }


def _row(value: object) -> HistoryRow | None:
    if not isinstance(value, dict) or not is_request_id(value.get("request_id")):
        return None
    body = value.get("request_body")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return None
    created_at = _seconds(value.get("model_created") or value.get("created_at"))
    if not isinstance(body, dict) or created_at is None:
        return None
    return HistoryRow(value["request_id"], body, created_at)


def _seconds(value: object) -> float | None:
    """Return a timestamp in ISO 8601, in UTC where it names no zone, as seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
