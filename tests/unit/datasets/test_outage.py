from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS
from airflow_provider_ideogram.datasets.outage import (
    MAX_BACK_OFF,
    MAX_CONCURRENT,
    MAX_IN_DOUBT,
    SubmitOutage,
    is_outage,
    is_response,
    max_concurrent,
)
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramLedgerError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramSubmitFailed,
    IdeogramUnknownSubmit,
)
from tests.unit.datasets.examples import NOW


def test_probes_are_further_and_further_apart() -> None:
    outage = SubmitOutage()
    waits = []
    for _ in range(8):
        outage.on_failure(NOW, "502")
        waits.append(outage.retry_at - NOW)
    assert 5.0 <= waits[0] <= 6.25
    assert 10.0 <= waits[1] <= 12.5
    assert MAX_BACK_OFF <= waits[-1] <= 1.25 * MAX_BACK_OFF


def test_response_ends_the_outage() -> None:
    outage = SubmitOutage()
    outage.on_failure(NOW, "502")
    assert outage.is_open
    outage.on_response()
    assert outage == SubmitOutage()


def test_outage_is_too_long_since_its_first_failure() -> None:
    outage = SubmitOutage()
    assert not outage.is_too_long(NOW)
    outage.on_failure(NOW, "502")
    outage.on_failure(NOW + PATIENCE_SECONDS, "502")
    assert not outage.is_too_long(NOW + PATIENCE_SECONDS)
    assert outage.is_too_long(NOW + PATIENCE_SECONDS + 1)


@pytest.mark.parametrize("in_doubt", range(MAX_IN_DOUBT))
def test_submits_on_their_way_leave_few_items_in_doubt(in_doubt: int) -> None:
    assert 1 <= max_concurrent(in_doubt) <= MAX_CONCURRENT
    assert in_doubt + max_concurrent(in_doubt) <= MAX_IN_DOUBT


@pytest.mark.parametrize(
    ("error", "was_in_doubt", "expected"),
    [
        (IdeogramServerUnavailable("no connection"), False, True),
        (IdeogramSubmitFailed("502", status_code=502), False, True),
        (IdeogramSubmitFailed("502", status_code=502), True, True),
        (IdeogramUnknownSubmit("no response"), False, True),
        (IdeogramUnknownSubmit("the history does not show it"), True, False),
        (IdeogramLedgerError("S3 is away"), False, False),
        (IdeogramInvalidInput("no", status_code=406), False, False),
    ],
)
def test_outage_is_an_error_that_other_submits_meet(error: IdeogramError, was_in_doubt: bool, expected: bool) -> None:
    assert is_outage(error, was_in_doubt=was_in_doubt) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (IdeogramRateLimited("429", status_code=429), True),
        (IdeogramInvalidInput("no", status_code=406), True),
        (IdeogramInvalidInput("seed: no"), False),
        (IdeogramUnknownSubmit("no response"), False),
    ],
)
def test_refusal_shows_that_the_api_responds(error: IdeogramError, expected: bool) -> None:
    assert is_response(error) is expected
