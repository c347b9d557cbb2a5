"""
The account's request history at the vendor.

Invariant: a request counts as the one that was sent only if its model and inputs, the drawn seed among them, are the
same and it was made in the minutes of the submit. A row that can't be read, or is missing, proves nothing: rows appear
with a delay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from airflow_provider_ideogram.api.calls import MAX_LARGE_RESPONSE_BYTES, Call, check_id
from airflow_provider_ideogram.api.errors import raise_for_status
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import normal_state, number_of
from airflow_provider_ideogram.api.request_id import is_request_id
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramServerUnavailable

PER_PAGE = 100
#: Days that the server accepts in one search.
MAX_DAYS = 31
#: Seconds by which the worker's clock and the vendor's may differ.
CLOCK_SKEW = 120.0
#: Seconds after its intent in which a submit is accepted, if at all.
SUBMIT_WINDOW = 300.0
#: Seconds after which a request must be in the history. The vendor's dashboard says up to two hours.
HISTORY_LAG_MAX = 3 * 3600.0


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """
    A request that the account, or a teammate, made.

    :param request_id: The vendor's id.
    :param model: The model's slug.
    :param body: The inputs as sent.
    :param created_at: When it was made, in seconds since the epoch.
    :param state: ``PENDING``, ``COMPLETED`` or ``FAILED``.
    :param image_url: The address of the output file, which the vendor keeps for seven days.
    :param cost_usd: What the vendor charged.
    :param error: Why it failed.
    """

    request_id: str
    model: str
    body: Mapping[str, Any] = field(repr=False)
    created_at: float
    state: str
    image_url: str | None = None
    cost_usd: float | None = None
    error: str | None = None

    def request(self) -> GenerationRequest | None:
        """Return the request, None for inputs that this package can't have sent."""
        try:
            return GenerationRequest.from_body(self.model, self.body)
        except IdeogramInvalidInput:
            return None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """
    A page of the history.

    :param rows: The readable rows.
    :param size: The number of all rows: fewer than :data:`PER_PAGE` on the last page.
    """

    rows: Sequence[HistoryRow]
    size: int

    def ends_search(self, since: float) -> bool:
        """Return whether no further page can hold a request that was made after a time."""
        return self.size < PER_PAGE or any(row.created_at < since for row in self.rows[-1:])


def get_history_page(
    history_url: str, model: str, since: float, page: int = 1, until: float | None = None
) -> Call[HistoryPage]:
    """
    Get the account's requests, newest first, 100 a page.

    :param history_url: The address of the history, which is on another host than the API.
    :param model: The model's slug; the server matches substrings.
    :param since: When the submit was intended, or the first of several, in seconds since the epoch.
    :param page: The page, from 1.
    :param until: When the last of several submits was intended. Of more days than the server accepts, the last count:
        the files of older requests are gone.
    """
    first, last = (datetime.fromtimestamp(at, UTC).date() for at in (since, since if until is None else until))
    margin = timedelta(days=1)  # the server's time zone is unknown
    query = {
        "page": page,
        "per_page": PER_PAGE,
        "from_date": max(first - margin, last + margin - timedelta(days=MAX_DAYS)),
        "to_date": last + margin,
        "model_name": model,
    }
    return Call("GET", f"{history_url}?{urlencode(query)}", parse_history, max_bytes=MAX_LARGE_RESPONSE_BYTES)


def get_history_of_days(history_url: str, first: date, last: date, page: int) -> Call[HistoryPage]:
    """
    Get the requests of some days, of all models and the oldest first: a later request moves no other to another page.

    :param last: The last day, which is included; at most 31 days after the first.
    :param page: The page, from 1.
    """
    order = {"sort_by": "model_created", "sort_order": "asc"}
    query = {"page": page, "per_page": PER_PAGE, "from_date": first, "to_date": last, **order}
    return Call("GET", f"{history_url}?{urlencode(query)}", parse_history, max_bytes=MAX_LARGE_RESPONSE_BYTES)


def get_history_row(history_url: str, request_id: str) -> Call[HistoryRow]:
    """Get one request of any age; 404 for one that is not the account's own, or not in the history yet."""
    return Call("GET", f"{history_url}/{check_id(request_id)}", parse_history_row)


def parse_history(response: ApiResponse) -> HistoryPage:
    """Read a page of the history; rows that can't be read are left out."""
    raise_for_status(response)
    body = response.json()
    rows = body.get("data") if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise IdeogramServerUnavailable(
            f"The API's history response has no rows: {response.message}", "Nothing was charged by this call."
        )
    readable = [row for value in rows if (row := _row(value, response.redactor)) is not None]
    if rows and not readable:  # of another form than known: it must not pass for a history without the request
        raise IdeogramServerUnavailable(
            f"None of the {len(rows)} rows of the API's history response is readable",
            "Nothing was charged by this call.",
        )
    return HistoryPage(readable, len(rows))


def parse_history_row(response: ApiResponse) -> HistoryRow:
    """Read one request of the history."""
    raise_for_status(response)
    body = response.json()
    value = body.get("data") if isinstance(body, dict) and isinstance(body.get("data"), dict) else body
    row = _row(value, response.redactor)
    if row is None:
        raise IdeogramServerUnavailable(
            f"The API's history response has no readable request: {response.message}",
            "Nothing was charged by this call.",
        )
    return row


def find_submitted(
    rows: Iterable[HistoryRow], request: GenerationRequest, intended_at: float, last_intended_at: float | None = None
) -> set[str]:
    """
    Return the ids of the requests with this model and these inputs that were made at the time of the submit.

    :param intended_at: The time just before the submit, or the first of several, in seconds since the epoch.
    :param last_intended_at: The time just before the last of several submits.
    """
    sent = request.body()
    first = intended_at - CLOCK_SKEW
    last = (intended_at if last_intended_at is None else last_intended_at) + SUBMIT_WINDOW + CLOCK_SKEW
    return {
        row.request_id
        for row in rows
        if row.model == request.model
        and first <= row.created_at <= last
        and all(row.body.get(name) == value for name, value in sent.items())
    }


def _row(value: object, redactor: Redactor) -> HistoryRow | None:
    if not isinstance(value, dict) or not is_request_id(value.get("request_id")):
        return None
    body = value.get("request_body")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return None
    created_at = _seconds(value.get("model_created") or value.get("created_at"))
    model, state = value.get("model_name"), normal_state(value.get("model_status"))
    if not isinstance(body, dict) or created_at is None or not isinstance(model, str) or state is None:
        return None
    url, error = value.get("generation_url"), value.get("error")
    return HistoryRow(
        request_id=value["request_id"],
        model=model,
        body=body,
        created_at=created_at,
        state=state,
        image_url=url if isinstance(url, str) and url else None,
        cost_usd=number_of(value.get("credits_deduction")),
        error=sanitize_text(error, redactor) if error else None,
    )


def _seconds(value: object) -> float | None:
    """Return a timestamp in ISO 8601, in UTC if it names no zone, as seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
