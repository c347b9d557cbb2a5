"""
When jobs end, learned from those that were seen.

Invariant: bounded memory, and no single job, however fast or slow, moves what is expected of its model far.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from airflow_provider_ideogram.api.cadence import LikelyEnd, likely_end, usual_end

#: Jobs that are looked back on: enough to be steady, few enough to follow a vendor that gets slower.
_WINDOW = 100
#: Jobs that have to be seen before they are believed over what the vendor says.
_BELIEVE_AFTER = 10
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
            self._learned[model] = likely_end(seen)
        if len(self._seen) > _MAX_MODELS:
            forgotten, _ = self._seen.popitem(last=False)
            self._learned.pop(forgotten, None)
