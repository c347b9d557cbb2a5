from __future__ import annotations

import pytest

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.api.errors import raise_for_status, unknown_submit
from airflow_provider_ideogram.api.response import ApiResponse

#: The error of each status for a call that does not charge.
KINDS: dict[int, type[exceptions.IdeogramError]] = {
    300: exceptions.IdeogramInvalidInput,
    302: exceptions.IdeogramInvalidInput,
    400: exceptions.IdeogramInvalidInput,
    401: exceptions.IdeogramAuthenticationError,
    402: exceptions.IdeogramInsufficientCredits,
    403: exceptions.IdeogramPermissionError,
    404: exceptions.IdeogramNotFound,
    405: exceptions.IdeogramNotFound,
    406: exceptions.IdeogramInvalidInput,
    408: exceptions.IdeogramServerUnavailable,
    409: exceptions.IdeogramInvalidInput,
    410: exceptions.IdeogramModelRetired,
    413: exceptions.IdeogramInvalidInput,
    422: exceptions.IdeogramInvalidInput,
    429: exceptions.IdeogramRateLimited,
    500: exceptions.IdeogramServerUnavailable,
    502: exceptions.IdeogramServerUnavailable,
    503: exceptions.IdeogramServerUnavailable,
    504: exceptions.IdeogramServerUnavailable,
    520: exceptions.IdeogramServerUnavailable,
    524: exceptions.IdeogramServerUnavailable,
    599: exceptions.IdeogramServerUnavailable,
}
BODIES = (
    b'{"error": "that is wrong"}',
    b'{"error": "invalid_api_key", "error_description": "that is wrong", "status_code": 401}',
    b"<html><body>not allowed</body></html>",
    b"",
)


def _raised(status: int, body: bytes = b"", *, charges: bool = False) -> exceptions.IdeogramError:
    with pytest.raises(exceptions.IdeogramError) as caught:
        raise_for_status(ApiResponse(status, {}, body), charges=charges)
    return caught.value


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", KINDS)
def test_status_decides_the_error(status: int, body: bytes) -> None:
    error = _raised(status, body)
    assert type(error) is KINDS[status]
    assert f"HTTP {status}: {ApiResponse(status, {}, body).message}" in error.reason
    assert (error.status_code, error.charged) == (status, False)
    assert error.advice.startswith("Nothing was charged")


@pytest.mark.parametrize("status", KINDS)
def test_charging_call_may_have_been_accepted_after_5xx(status: int) -> None:
    error = _raised(status, charges=True)
    assert error.status_code == status
    if KINDS[status] is not exceptions.IdeogramServerUnavailable:
        assert type(error) is KINDS[status]
        assert error.charged is False
        return
    answered = status in (500, 502, 503)
    assert type(error) is (exceptions.IdeogramSubmitFailed if answered else exceptions.IdeogramUnknownSubmit)
    assert error.charged is None
    assert "may have been accepted" in error.advice


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Invalid content type. Please send application/json", exceptions.IdeogramNotCharged),
        ("Insufficient credits. Balance 0.01, needed 0.05", exceptions.IdeogramInsufficientCredits),
        ("Team monthly spend limit of $50 reached", exceptions.IdeogramSpendLimitReached),
        ("Spending limit reached for this day: cap 10 USD", exceptions.IdeogramSpendLimitReached),
        ("Value 7 is not valid for aspect", exceptions.IdeogramInvalidInput),
        ("no text", exceptions.IdeogramInvalidInput),
    ],
)
def test_text_selects_the_meaning_of_406(text: str, kind: type[exceptions.IdeogramError]) -> None:
    error = _raised(406, f'{{"error": "{text}"}}'.encode(), charges=True)
    assert type(error) is kind
    assert text.rstrip(".") in error.reason
    assert error.charged is False


def test_wrong_content_type_is_a_fault_of_the_provider() -> None:
    assert "fault of the provider" in _raised(406, b'{"error": "Invalid content type"}').advice


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_not_an_error(status: int) -> None:
    raise_for_status(ApiResponse(status), charges=True)


def test_unknown_submit_names_the_cause() -> None:
    error = unknown_submit("The connection failed (ReadTimeout)")
    assert error.reason == "The connection failed (ReadTimeout) after the submit was sent"
    assert error.charged is None
