"""The emulator's clock. Tests advance it, or let it run faster than real time, instead of waiting."""

from __future__ import annotations

import time


class Clock:
    """
    Seconds since the epoch. Changes of the machine's clock do not affect it.

    :param speed: Seconds that pass in one second of real time; 0 stops the clock.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._time = time.time()
        self._read_at = time.monotonic()

    def now(self) -> float:
        """Return the current time in seconds since the epoch."""
        return self._time + (time.monotonic() - self._read_at) * self._speed

    def set_speed(self, speed: float) -> None:
        """Change the speed from now on."""
        self._time, self._read_at = self.now(), time.monotonic()
        self._speed = speed

    def advance(self, seconds: float) -> None:
        """
        Move the clock forward.

        :raises ValueError: If ``seconds`` is negative or not a number.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds: {seconds!r} is not a number >= 0")
        self._time += seconds
