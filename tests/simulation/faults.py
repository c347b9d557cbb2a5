"""
The faults of a simulation.

Invariant: a seed draws which kinds of faults can happen in it, and how often, so that rare combinations occur in some
simulations and most simulations are not drowned in faults. Once the world is healed, nothing fails.
"""

from __future__ import annotations

from collections import Counter
from random import Random

#: The servers of a world; ``read`` serves status and result, ``image`` the files.
SERVICES = ("s3", "submit", "read", "history", "image")

_OFTEN, _SELDOM = (0.02, 0.1, 0.3), (0.005, 0.02, 0.08)
#: The kinds of faults, and the rates from which a seed draws. Each kind is off in a part of the simulations.
RATES: dict[str, tuple[float, ...]] = {
    # Of a call, by the server: it is not carried out, or its response is lost.
    # All but a submit are sent again.
    **{f"{service} fails": _SELDOM if service == "submit" else _OFTEN for service in SERVICES},
    **{f"{service} response lost": _SELDOM if service == "submit" else _OFTEN for service in SERVICES},
    **{f"{service} outage": (0.3, 1.0) for service in SERVICES},
    "slow call": (0.01, 0.05),
    # Of the worker, at a call.
    "killed before a call": (0.005, 0.01, 0.03),
    "killed after a call": (0.005, 0.01, 0.03),
    # Of S3.
    "s3 conflict 409": (0.02, 0.1),
    "s3 refused 403": (0.002, 0.01),
    # Of the vendor.
    "submit 429": _OFTEN,
    "submit refused": (0.02, 0.1),
    "read 404": _SELDOM,
    "read refused": (0.002, 0.01),
    "image truncated": _OFTEN,
    "job failed": _OFTEN,
    "job blocked": (0.02, 0.1),
    "job slow": _OFTEN,
    "history late": (0.1, 0.5, 1.0),
    # Of Airflow, a person, or the DAG.
    "failed while running": _OFTEN,
    "cleared while running": (0.02, 0.1),
    "cleared while deferred": (0.02, 0.1),
    "trigger twice": (0.1, 0.3),
    "trigger restarted": (0.1, 0.3),
    "trigger too late": (0.01, 0.05),
    "waits hours for a worker": (0.02, 0.1),
    "waits days for a worker": (0.02, 0.1),
    "inputs changed": (0.1, 0.5),
}
#: How many simulations have a kind of fault switched on.
_ON = 0.4
#: Seconds from the beginning within which outages begin, and how long they take.
_OUTAGES_BEGIN, _OUTAGE_SECONDS = 600.0, (5.0, 40.0, 200.0)
#: Seconds until the history shows a request: what clients saw, and the vendor's dashboard's two hours.
_LAGS = (2.0, 60.0, 600.0, 7000.0)


class Faults:
    """
    The faults of one simulation.

    :param rng: Draws them.
    :param begin: When the simulation begins.
    :param excluded: Kinds that can't happen.
    """

    def __init__(self, rng: Random, begin: float, excluded: frozenset[str] = frozenset()) -> None:
        self._rng = rng
        self.is_on = True
        self.happened: Counter[str] = Counter()
        drawn = {kind: rng.choice(rates) if rng.random() < _ON else 0.0 for kind, rates in RATES.items()}
        self.rates = {kind: 0.0 if kind in excluded else rate for kind, rate in drawn.items()}
        self._outages = {service: self._draw_outages(service, begin) for service in SERVICES}
        self._longest_lag = rng.choice(_LAGS)

    def happens(self, kind: str) -> bool:
        """Draw whether a fault happens now, and count it."""
        rate = self.rates.get(kind)
        if not rate or not self.is_on or self._rng.random() >= rate:
            return False
        self.happened[kind] += 1
        return True

    def is_out(self, service: str, now: float) -> bool:
        """Return whether a server has an outage now."""
        if not self.is_on or not any(begin <= now < end for begin, end in self._outages.get(service, ())):
            return False
        self.happened[f"{service} outage"] += 1
        return True

    def history_lag(self) -> float:
        """Draw the seconds until the history shows a request."""
        return self._rng.uniform(0.0, self._longest_lag) if self.happens("history late") else 0.0

    def _draw_outages(self, service: str, begin: float) -> list[tuple[float, float]]:
        rng, outages = self._rng, []
        if rng.random() < self.rates[f"{service} outage"]:
            for _ in range(rng.randint(1, 3)):
                at = begin + rng.uniform(0.0, _OUTAGES_BEGIN)
                outages.append((at, at + rng.uniform(0.5, 1.0) * rng.choice(_OUTAGE_SECONDS)))
        return outages
