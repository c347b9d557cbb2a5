from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.errors import raise_for_status
from airflow_provider_ideogram.api.rate_limit_headers import RESET_HEADER, retry_after
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import IdeogramTemporaryError

DATE = "Mon, 23 Nov 2026 06:00:00 GMT"
NOW = datetime(2026, 11, 23, 6, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "3601"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30", "date": DATE}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 05:00:00 GMT", "date": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 2099 05:00:00 GMT", "date": DATE}, None),
        ({"retry-after": "Mon, 99 Nov 99999 06:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": "yesterday"}, None),
        ({RESET_HEADER: "2026-11-23T06:00:42Z", "date": DATE}, 42.0),
        ({RESET_HEADER: "2026-11-23T06:00:42.500+00:00", "date": DATE}, 42.5),
        ({RESET_HEADER: "2026-11-23T07:00:42+01:00", "date": DATE}, 42.0),
        ({RESET_HEADER: "2026-11-23T06:00:42", "date": DATE}, 42.0),
        ({RESET_HEADER: "2026-11-23 06:00:42", "date": DATE}, 42.0),
        ({RESET_HEADER: f"{NOW + 42:.0f}", "date": DATE}, 42.0),
        ({RESET_HEADER: f"{(NOW + 42) * 1000:.0f}", "date": DATE}, 42.0),
        ({RESET_HEADER: "Mon, 23 Nov 2026 06:00:42 GMT", "date": DATE}, 42.0),
        ({RESET_HEADER: "2026-11-23T05:59:59Z", "date": DATE}, None),
        ({RESET_HEADER: "2026-11-23T07:00:01Z", "date": DATE}, None),
        ({RESET_HEADER: "soon", "date": DATE}, None),
        ({RESET_HEADER: "", "date": DATE}, None),
        ({RESET_HEADER: "2026-11-23T06:00:42Z", "retry-after": "50", "date": DATE}, 50.0),
        ({RESET_HEADER: "2026-11-23T06:00:42Z", "retry-after": "5", "date": DATE}, 42.0),
        ({RESET_HEADER: "2026-11-23T05:00:00Z", "retry-after": "5", "date": DATE}, 5.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(ApiResponse(429, headers)) == seconds
    for status in (429, 503):
        with pytest.raises(IdeogramTemporaryError) as caught:
            raise_for_status(ApiResponse(status, headers))
        assert caught.value.retry_after == seconds


def test_time_of_reception_replaces_a_missing_date() -> None:
    headers = {RESET_HEADER: "2026-11-23T06:00:42Z"}
    assert retry_after(ApiResponse(429, headers, received_at=NOW + 2)) == 40.0
    assert retry_after(ApiResponse(429, headers)) is None


@given(st.text(), st.text(), st.text())
@example("Mon, 23 Nov 2026 06:00:30 +9999", "Mon, 23 Nov 2026 06:00:30 -9999", "0001-01-01T00:00:00+14:00")
@example("", "Mon, 23 Nov 2026 06:00:30 GMT", "9999-12-31T23:59:59-14:00")
def test_any_header_is_absent_or_within_bounds(value: str, date: str, reset: str) -> None:
    seconds = retry_after(ApiResponse(429, {"retry-after": value, "date": date, RESET_HEADER: reset}, received_at=NOW))
    assert seconds is None or 0.0 <= seconds <= 3600.0
