"""
When jobs end, learned from those that were seen.

Invariant: bounded memory, and no single job, however fast or slow, moves what is expected of its model far.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from airflow_provider_ideogram.api.cadence import MIN_INTERVAL, LikelyEnd, usual_end

#: Jobs that are looked back on: enough to be steady, few enough to follow a vendor that gets slower.
_WINDOW = 50
#: Jobs that have to be seen before they are believed over what the vendor says.
_BELIEVE_AFTER = 10
#: Jobs that may be done before they are looked at, as a share; as many again are late. Tried out on jobs of different
#: kinds (benchmarks/noticing.py): less costs polls where durations spread widely, more is noticed later.
_OUTSIDE = 0.1
#: Models that are remembered, those seen last; the vendor has about a dozen.
_MAX_MODELS = 32


class JobDurations:
    """The time from submission to completion, by model, in seconds."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._learned: dict[str, LikelyEnd] = {}

    def likely_end(self, model: str) -> LikelyEnd:
        """Return when a job of the model ends as a rule."""
        return self._learned.get(model) or usual_end()

    def observe(self, model: str, seconds: float) -> None:
        """Take in how long a job took."""
        seen = self._seen.setdefault(model, deque(maxlen=_WINDOW))
        self._seen.move_to_end(model)
        seen.append(seconds)
        if len(seen) >= _BELIEVE_AFTER:
            self._learned[model] = _middle(seen)
        if len(self._seen) > _MAX_MODELS:
            forgotten, _ = self._seen.popitem(last=False)
            self._learned.pop(forgotten, None)


def _middle(seen: deque[float]) -> LikelyEnd:
    """Return the span that all durations but the shortest and the longest fall into."""
    ordered = sorted(seen)
    outside = max(int(_OUTSIDE * len(ordered)), 1)
    # The first poll comes somewhere in an interval: around the time, not after it.
    return LikelyEnd(ordered[outside] - MIN_INTERVAL / 2, ordered[-1 - outside])
