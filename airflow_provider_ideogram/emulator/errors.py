"""Error responses of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID_CONTENT_TYPE = "Invalid content type"
RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
NO_BALANCE_RECORD = "No credits found for the user"


class ApiError(Exception):
    """
    An error response.

    :param status: The HTTP status.
    :param error: The value of ``error`` in the body.
    :param headers: Additional response headers.
    :param details: Additional fields of the body.
    """

    def __init__(
        self,
        status: int,
        error: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers or {}
        self.body = {"error": error, **(details or {})}


def unauthorized(key: str | None) -> ApiError:
    """Return the 401 for a missing or an invalid API key."""
    if key:
        code, description = "invalid_api_key", "The API key is invalid or expired"
    else:
        code, description = "missing_api_key", "Missing Authorization or x-api-key in header"
    return ApiError(401, code, details={"error_description": description, "status_code": 401})


def insufficient_credits(status: int, balance: float, price: float) -> ApiError:
    """Return the 402 or 406 for a balance that is lower than the model's price."""
    return ApiError(status, f"Insufficient credits: the balance is {balance} USD, the request needs {price} USD")
