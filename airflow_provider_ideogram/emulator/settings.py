"""
The emulator's settings.

Invariant: an :class:`EmulatorSettings` is valid. Its constructor raises an error that names the invalid setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

DEFAULT_KEY = "emulator-key"
#: A known key without permission: every call with it is answered with 403.
DEFAULT_FORBIDDEN_KEY = "emulator-key-without-permission"
#: The extension in an image's URL, and the subtype of its Content-Type.
IMAGE_FORMATS = ("png", "jpeg", "webp")

#: Settings of the listening socket, which cannot change while the emulator runs.
_FIXED = ("host", "port")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """
    The emulator's settings. All except ``host`` and ``port`` can be changed while it runs.

    :param host: The IPv4 address or host name to listen on. Every client that can connect can use the admin calls.
    :param port: The port to listen on, 0 for a free one.
    :param keys: The accepted API keys. All belong to one account.
    :param forbidden_keys: API keys that are answered with 403.
    :param queue_seconds: Seconds that a job is QUEUED.
    :param job_seconds: Seconds that a job is PROCESSING.
    :param jitter: The relative variation of ``job_seconds`` in both directions, 0 to 1.
    :param random_seed: The seed of the jitter and of the seeds that the server draws.
    :param lifetime_seconds: Seconds after submission until status, result and image are answered with 404.
    :param credits: The account's balance in USD.
    :param price: The price of a job in USD.
    :param rate_limit: Paid calls in any 60 seconds, 0 for no limit.
    :param retry_after: Whether a 429 of the rate limit has a ``Retry-After`` header.
    :param history_lag_seconds: Seconds after submission until a request appears in the history.
    :param image_format: ``png``, ``jpeg`` or ``webp``.
    :raises ValueError: If a value has the wrong type or is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    forbidden_keys: tuple[str, ...] = (DEFAULT_FORBIDDEN_KEY,)
    queue_seconds: float = 0.2
    job_seconds: float = 12.4  # the vendor's average
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
        """Check all values."""
        for field in fields(self):
            if not is_valid_as(getattr(self, field.name), field.default):
                raise ValueError(f"{field.name}: {getattr(self, field.name)!r} is not valid")
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format: {self.image_format!r} is not one of {', '.join(IMAGE_FORMATS)}")
        for name, maximum in (("jitter", 1), ("port", 65_535)):
            if getattr(self, name) > maximum:
                raise ValueError(f"{name}: {getattr(self, name)} is not within 0..{maximum}")
        if not self.keys:
            raise ValueError("keys: at least one is required")

    def changed(self, changes: dict[str, Any]) -> EmulatorSettings:
        """
        Return a copy with changed values.

        :param changes: New values by name. Lists are converted to tuples.
        :raises ValueError: If a name is unknown or fixed, or a value is not valid.
        """
        known = {field.name for field in fields(self)}.difference(_FIXED)
        if unknown := sorted(set(changes) - known):
            raise ValueError(f"cannot be changed while the emulator runs: {', '.join(unknown)}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()}
        return replace(self, **values)


def is_valid_as(value: Any, default: Any) -> bool:
    """Return whether the value has the default's type. Numbers must be finite and not negative."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value) and value >= 0
    if isinstance(default, int):
        return isinstance(value, int) and value >= 0
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)
