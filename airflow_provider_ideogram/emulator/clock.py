"""The emulator's time, which can be moved forward so that nobody waits for an hour to pass."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch; steady, even when the machine's own time is set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """
        Move the time forward.

        :raises ValueError: If ``seconds`` is negative: time does not run back.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds: {seconds!r} is not a number from 0 up")
        self._offset += seconds
