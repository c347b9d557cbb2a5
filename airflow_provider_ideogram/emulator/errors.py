"""How the vendor says no."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """
    An answer that is an error.

    :param status: The HTTP status.
    :param message: The text under ``error`` in the body.
    :param headers: Headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
