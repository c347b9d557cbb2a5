"""
The emulator's settings.

Invariant: an :class:`EmulatorSettings` is valid. Its constructor raises an error that names the invalid setting.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL, did_you_mean
from airflow_provider_ideogram.api.prices import LIST_PRICES
from airflow_provider_ideogram.emulator.rate_limit import HEADER_FORMS

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
    :param clock_speed: Seconds that pass on the emulator's clock in one second of real time. 0 stops the clock, so
        that it moves only when it is advanced.
    :param lifetime_seconds: Seconds after submission until status and result are answered with 404.
    :param file_lifetime_seconds: Seconds after completion until the image is answered with 404.
    :param credits: The account's balance in USD.
    :param balance_record: Whether the account has a balance record; without one, the credits call is answered with 404.
    :param price: The price of a request to ``ideogram-2a-txt-2-img`` in USD.
    :param prices: Prices in USD by model slug. They have precedence over ``price`` and the vendor's prices. A slug that
        the emulator does not know becomes a model.
    :param rate_limit: Calls in any 60 seconds, 0 for no limit.
    :param rate_limit_polls: Whether status and result calls count against the rate limit, like paid calls.
    :param rate_limit_header: How a 429 of the rate limit tells when to repeat the call: ``iso``, ``iso_no_zone`` or
        ``epoch`` for the format of ``x-rate-limit-reset-at-utc``, ``retry_after`` for ``Retry-After``, or ``none``.
    :param history_lag_seconds: Seconds after submission until a request appears in the history.
    :param late_validation: Whether a v2 submit accepts invalid parameters, and the job is FAILED within a fraction of a
        second. If not, the submit is answered with 400 or 406, like the synchronous endpoint.
    :param request_id_dashes: Whether request ids are UUIDs with dashes, or 32 hexadecimal digits.
    :param outputs: The images of a request; each has a row of its own in the history.
    :param image_format: ``png``, ``jpeg`` or ``webp``.
    :raises ValueError: If a name is unknown, or a value has the wrong type or is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    forbidden_keys: tuple[str, ...] = (DEFAULT_FORBIDDEN_KEY,)
    queue_seconds: float = 0.2
    job_seconds: float = 12.4  # the vendor's average
    jitter: float = 0.0
    random_seed: int = 0
    clock_speed: float = 1.0
    lifetime_seconds: float = 3600.0
    file_lifetime_seconds: float = 604800.0  # seven days
    credits: float = 1000.0
    balance_record: bool = True
    price: float = LIST_PRICES[DEFAULT_MODEL]
    prices: Mapping[str, float] | None = None
    rate_limit: int = 0
    rate_limit_polls: bool = False
    rate_limit_header: str = "iso"
    history_lag_seconds: float = 0.0
    late_validation: bool = True
    request_id_dashes: bool = True
    outputs: int = 1
    image_format: str = "png"

    def __new__(cls, **settings: Any) -> Self:
        """Raise ValueError with a suggestion for each unknown setting; Python's own error has none."""
        check_names(settings, [field.name for field in fields(cls)], "setting")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Check all values."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not (_are_prices(value) if field.name == "prices" else is_valid_as(value, field.default)):
                raise ValueError(f"{field.name}: {value!r} is not valid")
        for name, valid in (("image_format", IMAGE_FORMATS), ("rate_limit_header", HEADER_FORMS)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(valid)}")
        for name, maximum in (("jitter", 1), ("port", 65_535)):
            if getattr(self, name) > maximum:
                raise ValueError(f"{name}: {getattr(self, name)} is not within 0..{maximum}")
        if not self.keys:
            raise ValueError("keys: at least one is required")
        if not self.outputs:
            raise ValueError("outputs: must be at least 1")

    @property
    def model_prices(self) -> Mapping[str, float]:
        """The known models and their prices in USD per request."""
        return {**LIST_PRICES, DEFAULT_MODEL: self.price, **(self.prices or {})}

    def changed(self, changes: dict[str, Any]) -> EmulatorSettings:
        """
        Return a copy with changed values.

        :param changes: New values by name. Lists are converted to tuples.
        :raises ValueError: If a name is unknown or fixed, or a value is not valid.
        """
        known = {field.name for field in fields(self)}.difference(_FIXED)
        if fixed := sorted(set(changes) & set(_FIXED)):
            raise ValueError(f"cannot be changed while the emulator runs: {', '.join(fixed)}")
        check_names(changes, known, "setting")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()}
        return replace(self, **values)


def check_names(given: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise ValueError with a suggestion for each given name that is not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError("; ".join(f"{name!r} is no {kind}. {did_you_mean(name, sorted(known))}" for name in unknown))


def _are_prices(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return value is None
    return all(is_valid_as(slug, "") and is_valid_as(price, 0.0) for slug, price in value.items())


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
