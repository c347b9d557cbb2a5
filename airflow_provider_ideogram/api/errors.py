"""
Which error an HTTP response means.

Invariant: the class of the error follows from the status, from whether the call charges, and for 406 alone from the
text, since only that tells its four meanings apart. Where the server may have accepted a charging call, the error says
so.
"""

from __future__ import annotations

import re

from airflow_provider_ideogram.api.rate_limit_headers import retry_after
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramInvalidInput,
    IdeogramModelRetired,
    IdeogramNotCharged,
    IdeogramNotFound,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramSpendLimitReached,
    IdeogramSubmitFailed,
    IdeogramUnknownSubmit,
)

#: By the vendor's guidance a submit *answered* with one of these may be sent again, after the history was asked.
_ANSWERED_FAILURES = (500, 502, 503)

_TOP_UP = "Add credits at Segmind."
_REFUSED: dict[int, tuple[type[IdeogramError], str, str]] = {
    400: (IdeogramInvalidInput, "refused the request", "Correct the parameters."),
    401: (IdeogramAuthenticationError, "rejected the key", "Check the connection's API key."),
    402: (IdeogramInsufficientCredits, "reports insufficient credits", _TOP_UP),
    403: (
        IdeogramPermissionError,
        "does not permit this model to the account or team of the API key",
        "Check the account's plan and the team's model restrictions.",
    ),
    404: (IdeogramNotFound, "has no such model, endpoint or request", "Check the model and the connection's base URL."),
    405: (IdeogramNotFound, "does not allow this method", "Check the connection's base URL."),
    410: (IdeogramModelRetired, "has retired the model", "Choose another model."),
}
#: 406 has four meanings; the vendor's texts tell them apart. A text that matches none is taken for a parameter error.
_NOT_ACCEPTABLE: tuple[tuple[str, type[IdeogramError], str, str], ...] = (
    (
        r"content[- ]type",
        IdeogramNotCharged,
        "refused the Content-Type",
        "This is a fault of the provider: please report it.",
    ),
    (
        r"spend(ing)?[ -]limit|spend cap|budget",
        IdeogramSpendLimitReached,
        "reports that a spend limit of the team is reached",
        "Raise the team's spend limit at Segmind, or wait until its period ends.",
    ),
    (r"credit|balance", IdeogramInsufficientCredits, "reports insufficient credits", _TOP_UP),
)


def raise_for_status(response: ApiResponse, *, charges: bool = False) -> None:
    """
    Raise the error that a status outside of 2xx means.

    :param charges: Whether the call is one that costs money when it is accepted.
    """
    status = response.status
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {response.message}"
    if status == 429:
        raise IdeogramRateLimited(
            f"The API's rate limit is reached ({said})",
            "Nothing was charged. Limit single images by an Airflow pool, and a dataset by requests_per_minute.",
            retry_after=retry_after(response),
            status_code=status,
        )
    if status == 407:
        raise IdeogramServerUnavailable(
            f"The environment's proxy refuses the request ({said})",
            "Nothing was sent to the API or charged. Check the user and the password in HTTPS_PROXY, HTTP_PROXY or "
            "ALL_PROXY.",
            status_code=status,
        )
    if status >= 500 or status == 408:
        raise _server_error(said, response, charges=charges)
    if 300 <= status < 400:
        raise IdeogramInvalidInput(
            f"The API redirects ({said}), which is not followed with a key",
            "Nothing was charged. Check the connection's base URL.",
            status_code=status,
        )
    kind, what, advice = _refusal(response)
    if kind is IdeogramAuthenticationError and response.conn_id:
        what = f"rejected the key of connection {response.conn_id!r}"
    raise kind(f"The API {what} ({said})", f"Nothing was charged. {advice}", status_code=status)


def _refusal(response: ApiResponse) -> tuple[type[IdeogramError], str, str]:
    if response.status == 406:
        for pattern, kind, what, advice in _NOT_ACCEPTABLE:
            if re.search(pattern, response.message, re.IGNORECASE):
                return kind, what, advice
        return IdeogramInvalidInput, "refused a parameter", "Correct the parameter."
    return _REFUSED.get(response.status, (IdeogramInvalidInput, "refused the request", "Check the parameters."))


def _server_error(said: str, response: ApiResponse, *, charges: bool) -> IdeogramError:
    status = response.status
    if not charges:
        return IdeogramServerUnavailable(
            f"The API failed ({said})",
            "Nothing was charged by this call.",
            retry_after=retry_after(response),
            status_code=status,
        )
    if status in _ANSWERED_FAILURES:
        return IdeogramSubmitFailed(f"The API answered the submit with {said}", _LOOK_IT_UP, status_code=status)
    return unknown_submit(f"The API failed ({said})", status)


_LOOK_IT_UP = (
    "It may have been accepted, and is charged if it completes. The operators search the account's request history "
    "before they submit a new request; other callers must do the same."
)


def unknown_submit(what_happened: str, status: int | None = None) -> IdeogramUnknownSubmit:
    """Return the error of a submit that was sent, without a response that says whether it was accepted."""
    return IdeogramUnknownSubmit(f"{what_happened} after the submit was sent", _LOOK_IT_UP, status_code=status)
