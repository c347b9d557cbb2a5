"""The emulator's clock. Tests move it forward instead of waiting."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch. Changes of the machine's clock do not affect it."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the current time in seconds since the epoch."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """
        Move the clock forward.

        :raises ValueError: If ``seconds`` is negative or not a number.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds: {seconds!r} is not a number >= 0")
        self._offset += seconds
