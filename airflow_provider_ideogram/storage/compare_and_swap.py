"""
Changes of an object in S3 that several processes change.

Invariant: a change is written only over the version that it was computed from, and is computed again otherwise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_ideogram.storage.objects import PreconditionFailed

Old = TypeVar("Old")
New = TypeVar("New")
T = TypeVar("T")


class Contended(Exception):
    """Other processes changed the object all the time."""


def compare_and_swap(
    read: Callable[[], tuple[Old | None, str | None]],
    change: Callable[[Old | None], tuple[New | None, T]],
    write: Callable[[New, str | None], None],
    patience: float,
    pauses: tuple[float, float],
) -> T:
    """
    Change an object, and return the result of the change that took effect.

    :param read: Returns the object and its version, None and None if it is missing.
    :param change: Returns the new object, None to write nothing, and the result. It is called again with what another
        process wrote; if S3's response is lost, its effect may be there twice.
    :param write: Writes the object over a version, None for a missing object; raises PreconditionFailed if the object
        has another one.
    :param patience: Seconds for which it is attempted again.
    :param pauses: The range of the first pause in seconds, which doubles, and its limit.
    :raises Contended: If others change the object all this time.
    """
    (back_off, longest), give_up_at = pauses, time.monotonic() + patience
    while True:
        old, version = read()
        new, result = change(old)
        if new is None:
            return result
        try:
            write(new, version)
        except PreconditionFailed as error:
            pause = random.uniform(0.0, back_off)
            if time.monotonic() + pause > give_up_at:
                raise Contended from error
            time.sleep(pause)
            back_off = min(2 * back_off, longest)
        else:
            return result
