"""Error responses of the API."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """
    An error response.

    :param status: The HTTP status.
    :param message: The value of ``error`` in the body.
    :param headers: Additional response headers.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
