"""
What can be set on the emulator.

Invariant: settings that exist are valid; a wrong value is refused when they are made, by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

DEFAULT_KEY = "emulator-key"
#: A key that is known and may do nothing (HTTP 403).
DEFAULT_FORBIDDEN_KEY = "emulator-key-without-permission"
#: Extension in the image's address, and what its Content-Type says after ``image/``.
IMAGE_FORMATS = ("png", "jpeg", "webp")

#: A socket that listens cannot be moved.
_FIXED = ("host", "port")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """
    How the emulator behaves. All but ``host`` and ``port`` can be changed while it runs.

    :param host: The IPv4 address or name to listen on. Whoever reaches it can make the unguarded admin calls.
    :param port: The port to listen on, 0 for a free one.
    :param keys: The API keys that are accepted; they share one account.
    :param forbidden_keys: Keys that are known but lack permission.
    :param queue_seconds: Seconds that a job is QUEUED.
    :param job_seconds: Seconds that a job is PROCESSING after that.
    :param jitter: The share of ``job_seconds`` by which it varies up and down, 0 to 1.
    :param random_seed: Seeds the jitter and the seeds that the server draws.
    :param lifetime_seconds: Seconds after submission until status, result and image are gone.
    :param credits: The account's balance in USD.
    :param price: USD a job.
    :param rate_limit: Paid calls in a rolling minute, 0 for no limit.
    :param retry_after: Whether an answer of 429 says when to come back.
    :param history_lag_seconds: Seconds until a request shows in the history.
    :param image_format: ``png``, ``jpeg`` or ``webp``.
    :raises ValueError: If a value is of the wrong type or out of range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    forbidden_keys: tuple[str, ...] = (DEFAULT_FORBIDDEN_KEY,)
    queue_seconds: float = 0.2
    job_seconds: float = 12.4  # what a generation takes at the vendor
    jitter: float = 0.0
    random_seed: int = 0
    lifetime_seconds: float = 3600.0
    credits: float = 1000.0
    price: float = 0.05
    rate_limit: int = 0
    retry_after: bool = True
    history_lag_seconds: float = 0.0
    image_format: str = "png"

    def __post_init__(self) -> None:
        """Refuse what is not valid."""
        for field in fields(self):
            if not is_like(getattr(self, field.name), field.default):
                raise ValueError(f"{field.name}: {getattr(self, field.name)!r} is not valid")
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format: {self.image_format!r} is none of {', '.join(IMAGE_FORMATS)}")
        for name, maximum in (("jitter", 1), ("port", 65_535)):
            if getattr(self, name) > maximum:
                raise ValueError(f"{name}: {getattr(self, name)} is not within 0..{maximum}")
        if not self.keys:
            raise ValueError("keys: there must be one at least")

    def changed(self, changes: dict[str, Any]) -> EmulatorSettings:
        """
        Return the settings with some values changed.

        :param changes: Names and new values; lists are taken for tuples.
        :raises ValueError: If a name is unknown or fixed, or a value is not valid.
        """
        known = {field.name for field in fields(self)}.difference(_FIXED)
        if unknown := sorted(set(changes) - known):
            raise ValueError(f"cannot be set while the emulator runs: {', '.join(unknown)}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()}
        return replace(self, **values)


def is_like(value: Any, default: Any) -> bool:
    """Return whether the value is of the default's type and, if a number, finite and not negative."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value) and value >= 0
    if isinstance(default, int):
        return isinstance(value, int) and value >= 0
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)
