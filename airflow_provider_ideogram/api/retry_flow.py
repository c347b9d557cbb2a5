"""Whether a call is sent again."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TypeVar

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.calls import MAX_ATTEMPTS, MAX_WAIT, Call
from airflow_provider_ideogram.api.errors import unknown_submit
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramTemporaryError,
)

T = TypeVar("T")


class RequestNotSent(Exception):
    """The request certainly never reached the server."""


class ResponseNotReceived(Exception):
    """The request may have reached the server, and no whole answer came back."""


def retry_flow(
    call: Call[T], rng: random.Random, max_attempts: int = MAX_ATTEMPTS
) -> Generator[float | None, ApiResponse, T]:
    """
    Decide, step by step, how a call goes on: the one place that knows what may be sent again.

    Yields None where the call is to be sent: the driver sends in the answer, or throws :class:`RequestNotSent` or
    :class:`ResponseNotReceived`. Yields a number where that many seconds are to be waited.

    :return: What the answer means.
    :raises IdeogramError: What went wrong, when trying again is over or not allowed.
    """
    attempt = 0
    while True:
        attempt += 1
        error = yield from _attempt(call)
        if not isinstance(error, IdeogramError):
            return error
        if attempt == max_attempts or not isinstance(error, IdeogramTemporaryError):
            raise error
        if call.charges and isinstance(error, IdeogramRateLimited):
            raise error  # the vendor's limits are a minute's: the caller waits, without a worker where it can
        asked = error.retry_after or 0.0
        if asked > MAX_WAIT:
            raise error
        yield asked + back_off(attempt, rng)  # nobody comes at the server's very second, as all others do


def _attempt(call: Call[T]) -> Generator[None, ApiResponse, T | IdeogramError]:
    """Send the call once and return what its answer means, or the error that is to be judged."""
    try:
        return call.parse((yield None))
    except RequestNotSent as problem:
        return IdeogramServerUnavailable(f"The API can't be reached ({problem})", "Nothing was sent or charged.")
    except ResponseNotReceived as problem:
        if call.charges:
            return unknown_submit(f"The connection failed ({problem})")
        return IdeogramServerUnavailable(f"The API did not answer ({problem})", "Nothing was charged by this call.")
    except IdeogramError as error:
        return error
