"""
Which error a response means.

Invariant: the kind of error depends on the status alone, never on the body, and on whether the call charges:
where the server may have accepted a charged call, the error says so. Whatever undoes an encoding, of JSON or HTML,
takes the key out of what it finds.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramUnknownSubmit,
)

#: No server is believed that asks for more than the life of a result.
_MAX_RETRY_AFTER = 3600.0

_REFUSED: dict[int, tuple[type[IdeogramError], str, str]] = {
    400: (IdeogramInvalidInput, "refused the parameters", "Correct them."),
    401: (IdeogramAuthenticationError, "does not accept the API key", "Check the connection's password."),
    402: (IdeogramInsufficientCredits, "wants to be paid first", "Top up the account."),
    403: (
        IdeogramPermissionError,
        "does not permit this to the API key",
        "Check the account's plan and the key.",
    ),
    404: (
        IdeogramNotFound,
        "knows no such model, endpoint or request",
        "Check the model and the connection's host.",
    ),
    405: (IdeogramNotFound, "does not allow the method here", "Check the connection's host."),
    406: (IdeogramInsufficientCredits, "says that the credits don't suffice", "Top up the account."),
}


def raise_for_status(response: ApiResponse, *, charges: bool = False) -> None:
    """
    Raise the error that a status outside of 2xx means.

    :param response: The API's response.
    :param charges: Whether the call was one that costs money when it is accepted.
    """
    status = response.status
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {response.message}"
    if status == 429:
        raise IdeogramRateLimited(
            f"The API's rate limit is reached ({said})",
            "Nothing was charged. An Airflow pool keeps single images below it, requests_per_minute a dataset.",
            retry_after=retry_after(response),
        )
    if status >= 500 or status == 408:
        raise _server_error(said, response, charges=charges)
    if 300 <= status < 400:
        raise IdeogramInvalidInput(
            f"The API redirects ({said}), which is not followed with a key",
            "Nothing was charged. Check the connection's host.",
        )
    kind, what, do = _REFUSED.get(status, (IdeogramInvalidInput, "refused the request", "Check the parameters."))
    raise kind(f"The API {what} ({said})", f"Nothing was charged. {do}")


def _server_error(said: str, response: ApiResponse, *, charges: bool) -> IdeogramError:
    if charges:
        return unknown_submit(f"The API failed ({said})")
    return IdeogramServerUnavailable(
        f"The API failed ({said})", "Nothing was charged by this call.", retry_after=retry_after(response)
    )


def unknown_submit(what_happened: str) -> IdeogramUnknownSubmit:
    """Return the error of a submit that was sent and may or may not have been accepted."""
    return IdeogramUnknownSubmit(
        f"{what_happened} after the submit was sent: it may have been accepted and charged, and is not repeated",
        "Look it up in the account's request history; clear the task to submit, and pay for, a new request.",
    )


def retry_after(response: ApiResponse) -> float | None:
    """Return the seconds that ``Retry-After`` asks for (a number, or a date against the response's own), or None."""
    value = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, response.headers.get("date", ""))
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: str) -> float:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return math.nan
