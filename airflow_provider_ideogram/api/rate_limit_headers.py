"""
When a limited server accepts the next call.

The vendor sends ``x-rate-limit-reset-at-utc`` without a documented format; ``Retry-After`` is what gateways send.

Invariant: a value that can't be read, lies in the past or more than an hour ahead counts as absent.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from airflow_provider_ideogram.api.response import ApiResponse

RESET_HEADER = "x-rate-limit-reset-at-utc"
_MAX_SECONDS = 3600.0
#: Larger numbers are milliseconds since the epoch.
_MAX_EPOCH_SECONDS = 1e11


def retry_after(response: ApiResponse) -> float | None:
    """
    Return the seconds until the server accepts the next call, by the later of both headers; None without any.

    Absolute times are compared with the response's own ``Date``, so that the worker's clock does not matter, and with
    the time of reception where that is missing.
    """
    now = _http_date(response.headers.get("date", ""))
    if now is None:
        now = response.received_at
    found = [
        _relative(response.headers.get("retry-after", ""), now),
        _until(response.headers.get(RESET_HEADER, ""), now),
    ]
    seconds = [value for value in found if value is not None and 0 <= value <= _MAX_SECONDS]
    return max(seconds, default=None)


def _relative(value: str, now: float | None) -> float | None:
    """Read ``Retry-After``: a number of seconds, or a date."""
    number = _number(value)
    if number is not None:
        return number
    date = _http_date(value)
    return None if date is None or now is None else date - now


def _until(value: str, now: float | None) -> float | None:
    """Read a time: ISO 8601 with or without a zone, or seconds or milliseconds since the epoch."""
    if now is None:
        return None
    number = _number(value)
    if number is not None:
        return (number / 1000 if number > _MAX_EPOCH_SECONDS else number) - now
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        date = _http_date(value)
        return None if date is None else date - now
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _http_date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
