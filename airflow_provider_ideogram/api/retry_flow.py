"""
Whether and when a call is sent again.

Invariant: a call that charges is sent again only if it certainly never reached the server. The sync and the async
client both follow this one decision.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TypeVar

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.errors import unknown_submit
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramRateLimited,
    IdeogramServerUnavailable,
    IdeogramTemporaryError,
)

T = TypeVar("T")

#: Times that a call is sent at most.
MAX_ATTEMPTS = 4
#: Seconds of waiting in place that a server may ask for; longer waits are deferred.
MAX_WAIT = 5.0


class RequestNotSent(Exception):
    """The request certainly never reached the server."""


class ResponseNotReceived(Exception):
    """The request may have reached the server, and no complete response was received."""


def retry_flow(
    call: Call[T], rng: random.Random, max_attempts: int = MAX_ATTEMPTS
) -> Generator[float | None, ApiResponse, T]:
    """
    Decide, step by step, how a call proceeds.

    Yields None where the call is to be sent: the client sends in the response, or throws :class:`RequestNotSent`,
    :class:`ResponseNotReceived`, or an error of another class, which says nothing. Yields a number of seconds to wait.

    :return: What the response means.
    :raises IdeogramError: The last error, when no further attempt is allowed.
    """
    attempt = 0
    while True:
        attempt += 1
        result = yield from _attempt(call)
        if not isinstance(result, IdeogramError):
            return result
        if attempt == max_attempts or not isinstance(result, IdeogramTemporaryError):
            raise result
        if call.charges and isinstance(result, IdeogramRateLimited):
            raise result  # the vendor's limits are per minute: the caller defers
        asked = result.retry_after or 0.0
        if asked > MAX_WAIT:
            raise result
        yield asked + back_off(attempt, rng)  # jitter, so that callers do not all return at the server's time


def _attempt(call: Call[T]) -> Generator[None, ApiResponse, T | IdeogramError]:
    """Send the call once; return what its response means, or the error."""
    try:
        return call.parse((yield None))
    except RequestNotSent as problem:
        return IdeogramServerUnavailable(f"The API can't be reached ({problem})", "Nothing was sent or charged.")
    except ResponseNotReceived as problem:
        if call.charges:
            return unknown_submit(f"The connection failed ({problem})")
        return IdeogramServerUnavailable(f"The API did not respond ({problem})", "Nothing was charged by this call.")
    except IdeogramError as error:
        return error
    except Exception as error:
        if not call.charges:
            raise
        return unknown_submit(f"The call failed ({type(error).__name__})")  # its text may hold the key
