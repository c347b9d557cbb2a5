"""
The budget of a run: which items it still covers.

Invariant: the budget counts the true cost of completed requests, the estimate for requests that may be charged, and
nothing for failed ones. Without an estimate, one request at a time shows what an image of its model costs. A cost that
stays unknown ends the submits.
"""

from __future__ import annotations

from collections import defaultdict
from threading import Lock
from typing import TYPE_CHECKING

from airflow_provider_ideogram.api.prices import list_price

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.datasets.rows import Item
    from airflow_provider_ideogram.datasets.state import DatasetState

#: USD by which sums of floats may be wrong.
TOLERANCE = 1e-9


def estimated_cost(options: DatasetOptions, state: DatasetState | None, model: str) -> float | None:
    """
    Return what an image is expected to cost in USD: its true cost if known, else ``price_usd`` or the list price.

    :param state: The state of the run, None before it is planned.
    :return: None if there is no such estimate.
    """
    known = state.observed_costs.get(model, options.price_usd) if state else options.price_usd
    return list_price(model) if known is None else known


class SecondChargeRefused(Exception):
    """The budget does not cover a second request of an item, whose first one is or may be charged."""


class Budget:
    """The part of ``max_cost_usd`` that is left at one moment; admitted items reduce it."""

    def __init__(self, options: DatasetOptions, state: DatasetState) -> None:
        self._options = options
        self._state = state
        self._left = options.max_cost_usd
        self._lock = Lock()
        #: The estimates of second requests, by the item's key.
        self.second_usd: dict[str, float] = defaultdict(float)
        #: Whether a request without an estimate is running.
        self._is_learning = False
        #: The model of the last refused item, if only its unknown price was in the way.
        self.unpriced_model: str | None = None
        if self._left is None:
            return
        self._left -= state.cost_usd + state.abandoned_usd + state.images_without_cost * (options.price_usd or 0.0)
        for request in state.unsettled_requests.values():
            self._reserve(options.price_usd if request.estimate_usd is None else request.estimate_usd)
        for in_flight in state.in_flight:
            if in_flight.item.key not in state.unsettled_requests and not in_flight.job.paid_by_other_task:
                self._reserve(self._estimate(in_flight.item))

    def admits(self, item: Item) -> bool:
        """Return whether the budget covers the item, and reserve its estimated cost."""
        if self._left is None or item.key in self._state.unsettled_requests:  # reserved already
            return True
        estimate = self._estimate(item)
        if estimate is None:
            is_covered = not self._is_learning and self._left > TOLERANCE
        else:
            is_covered = estimate <= self._left + TOLERANCE
        has_unknown_cost = self._state.images_without_cost > 0 and self._options.price_usd is None
        if not is_covered or has_unknown_cost:
            is_unpriced = estimate is None and self._left > TOLERANCE and not has_unknown_cost
            self.unpriced_model = item.request.model if is_unpriced else None
            return False
        self._reserve(estimate)
        return True

    def reserve_second(self, item: Item) -> None:
        """
        Reserve the estimated cost of a second request of an admitted item; worker threads call this.

        :raises SecondChargeRefused: If the budget does not cover it.
        """
        estimate = self._estimate(item) or 0.0
        with self._lock:
            if self._left is not None and estimate > self._left + TOLERANCE:
                raise SecondChargeRefused
            self._reserve(estimate)
            self.second_usd[item.key] += estimate

    def reserve_after_charge(self, item: Item) -> None:
        """Reserve the cost of a new request of an item whose known request is charged, and has no record any more."""
        before = self._state.unsettled_requests.get(item.key)
        if before is not None and before.counted_usd:  # otherwise the new request uses the item's reservation
            self.reserve_second(item)

    def _estimate(self, item: Item) -> float | None:
        return estimated_cost(self._options, self._state, item.request.model)

    def _reserve(self, estimate: float | None) -> None:
        if estimate is None:
            self._is_learning = True
        elif self._left is not None:
            self._left -= estimate
