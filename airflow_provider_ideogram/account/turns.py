"""
Turns: which of the tasks that wait for the rate limit are called next.

Invariant: the size of the state does not depend on the number of waiting tasks: the tasks of a DAG run hold consecutive
tickets, of which the state has two counters. Calls follow from the state and the time alone, so that a reader computes
the same calls as the next writer. No call is binding: a called task takes its slot when it arrives.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from airflow_provider_ideogram.account.values import count, real

#: Seconds between two calculations of the calls.
_TICK = 1.0
#: A longer pause is calculated in this many larger steps.
_MAX_TICKS = 600
#: DAG runs with a state of their own; further ones share one.
MAX_FLOWS = 64
_SHARED_FLOW = "*"
#: Seconds from a call to the task's arrival at first, and its limits. The means of each run, whose tasks do different
#: work before they arrive, and of all runs are learned, with these weights of the last arrival.
_FIRST_LATENCY, _MIN_LATENCY, _MAX_LATENCY = 5.0, 1.0, 40.0
_RUN_WEIGHT, _LATENCY_WEIGHT = 0.25, 0.1
#: A task that has not arrived this many mean latencies after its call, and these seconds, counts as gone if tasks that
#: were called later have arrived; otherwise the workers may be busy, and it counts as gone after a minute.
_LEASE_LATENCIES, _MIN_LEASE, _MAX_LEASE = 2.0, 15.0, 60.0
#: Tasks are called to arrive this many seconds before their slots are free: some arrive later than others, and a slot
#: that passes unused is lost. It is less than the seconds that a task waits for its slot on the worker.
_LEAD_SECONDS = 3.0
#: A called task is expected for this many mean latencies; later its slot may be another one's.
_EXPECTED_LATENCIES = 1.5
#: Weight of the last called task in the share of a run's called tasks that arrive, and the smallest share assumed.
_SHARE_WEIGHT, _MIN_SHARE = 0.1, 0.15
#: The least that a call counts in the fair order: a run whose tasks disappeared takes at most twice its calls.
_MIN_CHARGE = 0.5


@dataclass(frozen=True, slots=True)
class Ticket:
    """
    The place of a waiting task.

    :param flow: The key of the task's DAG run.
    :param since: When the run's part of the state was made: a later one does not know the ticket.
    :param number: The place among the run's tickets, from 1.
    """

    flow: str
    since: float
    number: int


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A ticket, and the object that calls it.

    :param bucket: The bucket of the object.
    :param key: Its key.
    """

    bucket: str
    key: str
    ticket: Ticket

    def to_json(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.bucket, self.key, *astuple(self.ticket)]

    @classmethod
    def from_json(cls, value: Sequence[Any] | None) -> Turn | None:
        """Restore it from :meth:`to_json`; None stays None."""
        return cls(value[0], value[1], Ticket(*value[2:])) if value else None


def flow_of(dag_id: str, run_id: str) -> str:
    """Return the key of a DAG run in the state."""
    return hashlib.sha256(f"{dag_id}/{run_id}".encode()).hexdigest()[:10]


@dataclass(slots=True)
class _Call:
    """
    Tasks of a run that were called at the same time.

    :param last: The number of the last ticket among them.
    :param left: How many have not arrived.
    """

    at: float
    last: int
    left: int


@dataclass(slots=True)
class _Flow:
    """
    The waiting tasks of a DAG run.

    :param issued: The number of the last ticket.
    :param called: The number of the last ticket that was called.
    :param tag: The submits of the run in the fair order; the run with the lowest tag is called next.
    :param size: The submits that a task of the run asks for at once.
    :param share: The share of called tasks that arrive.
    :param latency: The mean of the seconds from a call to the task's arrival.
    :param calls: The calls of tasks that have not arrived.
    """

    since: float
    tag: float
    issued: int = 0
    called: int = 0
    size: int = 1
    share: float = 1.0
    latency: float = _FIRST_LATENCY
    calls: list[_Call] = field(default_factory=list)

    @property
    def lease(self) -> float:
        """The seconds after a call in which the task arrives, if others that were called later have."""
        return min(max(_MIN_LEASE, _LEASE_LATENCIES * self.latency), _MAX_LEASE)

    def arrived(self, seconds: float) -> None:
        """Learn from an arrival some seconds after the call."""
        self.latency = _mean(self.latency, seconds, _RUN_WEIGHT)
        self.share += _SHARE_WEIGHT * (1.0 - self.share)

    def expected(self, now: float) -> float:
        """Return the submits of called tasks that will arrive."""
        since = now - _EXPECTED_LATENCIES * self.latency
        return sum(call.left for call in self.calls if call.at > since) * self.size * self.share

    def to_json(self) -> list[Any]:
        """Return the state as plain JSON."""
        counts = (self.issued, self.called, self.size)
        learned = (round(self.share, 3), round(self.latency, 2))
        return [round(self.since, 2), round(self.tag, 3), *counts, *learned, [astuple(call) for call in self.calls]]

    @classmethod
    def from_json(cls, state: list[Any]) -> _Flow:
        """Restore the state from :meth:`to_json`."""
        since, tag, issued, called, size, share, latency, calls = state
        if not (count(called) <= count(issued) and count(size) and _MIN_SHARE <= real(share) <= 1.0):
            raise ValueError("the turns of a run are not valid")
        each = [_Call(real(at), count(last), count(left)) for at, last, left in calls]
        return cls(real(since), real(tag), issued, called, size, share, real(latency), each)


@dataclass(slots=True)
class Turns:
    """
    The waiting tasks of an account, by start-time fair queuing between DAG runs.

    :param at: When the calls were calculated, in seconds since the epoch.
    :param virtual: The tag of the run that was called last: the tag of a new run.
    :param latency: The mean of the seconds from a call to the task's arrival, of all runs.
    :param arrived_at: When a called task arrived last.
    """

    at: float = 0.0
    virtual: float = 0.0
    latency: float = _FIRST_LATENCY
    arrived_at: float = 0.0
    flows: dict[str, _Flow] = field(default_factory=dict)

    @property
    def expected(self) -> float:
        """The submits of called tasks that will arrive."""
        return sum(flow.expected(self.at) for flow in self.flows.values())

    @property
    def waiting(self) -> int:
        """The submits that the waiting tasks ask for."""
        return sum((flow.issued - flow.called) * flow.size for flow in self.flows.values())

    @property
    def has_next(self) -> bool:
        """Whether a waiting task is called as soon as the limit allows its submits."""
        return any(flow.called < flow.issued for flow in self.flows.values())

    def issue(self, flow: str, now: float, size: int) -> Ticket:
        """
        Return a ticket behind the run's other tickets.

        :param size: The submits that the task asks for at once.
        """
        if flow not in self.flows and len(self.flows) >= MAX_FLOWS:
            flow = _SHARED_FLOW
        state = self.flows.setdefault(flow, _Flow(round(now, 2), self.virtual, latency=self.latency))
        if state.called == state.issued:
            state.tag = max(state.tag, self.virtual)
        state.issued += 1
        state.size = size
        return Ticket(flow, state.since, state.issued)

    def is_called(self, ticket: Ticket) -> bool:
        """Return whether the task may come; also where the state no longer knows the ticket."""
        flow = self._flow(ticket)
        return flow is None or ticket.number <= flow.called

    def arrive(self, ticket: Ticket, now: float) -> None:
        """Record that a called task is there."""
        flow = self._flow(ticket)
        if flow is None:
            return
        call = next((call for call in flow.calls if call.last >= ticket.number), None)
        seconds = now - call.at if call else flow.lease
        self.latency = _mean(self.latency, seconds, _LATENCY_WEIGHT)
        self.arrived_at = max(self.arrived_at, now)
        flow.arrived(seconds)
        if call:
            call.left -= 1
            if not call.left:
                flow.calls.remove(call)

    def advance(self, now: float, slots: Callable[[float], Sequence[float]], most: int) -> None:
        """
        Calculate the calls until now.

        :param slots: Returns when the limit allows the next submits from a time on.
        :param most: The most submits that the limit ever allows at once.
        """
        if not self.flows:
            self.at = max(self.at, now)
            return
        tick = max(_TICK, (now - self.at) / _MAX_TICKS)
        while self.at + tick <= now:
            self.at += tick
            self._expire()
            self._call(slots(self.at), most)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        flows = {key: flow.to_json() for key, flow in self.flows.items()}
        return {
            "at": round(self.at, 2),
            "virtual": round(self.virtual, 3),
            "latency": round(self.latency, 2),
            "arrived_at": round(self.arrived_at, 2),
            "flows": flows,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Turns:
        """Restore the state from :meth:`to_json`."""
        flows = {key: _Flow.from_json(flow) for key, flow in value["flows"].items()}
        at, virtual, latency, arrived_at = (real(value[name]) for name in ("at", "virtual", "latency", "arrived_at"))
        return cls(at, virtual, latency, arrived_at, flows)

    def _flow(self, ticket: Ticket) -> _Flow | None:
        flow = self.flows.get(ticket.flow)
        return flow if flow and flow.since == ticket.since else None

    def _expire(self) -> None:
        """Remove called tasks that did not arrive, and runs without waiting tasks."""
        for key, flow in list(self.flows.items()):
            while flow.calls and self._is_gone(flow):
                gone = flow.calls.pop(0).left
                flow.share = max(_MIN_SHARE, flow.share * (1.0 - _SHARE_WEIGHT) ** gone)
            if not flow.calls and flow.called == flow.issued and flow.tag <= self.virtual:
                del self.flows[key]

    def _is_gone(self, flow: _Flow) -> bool:
        called_at = flow.calls[0].at
        return called_at + (flow.lease if self.arrived_at > called_at else _MAX_LEASE) <= self.at

    def _call(self, slots: Sequence[float], most: int) -> None:
        """Call tasks for the slots that no called task will take."""
        taken = self.expected
        while candidates := [flow for flow in self.flows.values() if flow.called < flow.issued]:
            flow = min(candidates, key=lambda each: each.tag)
            free = bisect_right(slots, self.at + flow.latency + _LEAD_SECONDS)
            if free - taken < min(flow.size, most):
                return
            flow.called += 1
            taken += flow.size * flow.share
            self.virtual = max(self.virtual, flow.tag)
            flow.tag += flow.size * max(flow.share, _MIN_CHARGE)
            if not flow.calls or flow.calls[-1].at != self.at:
                flow.calls.append(_Call(self.at, flow.called, 0))
            flow.calls[-1].last = flow.called
            flow.calls[-1].left += 1


def _mean(mean: float, seconds: float, weight: float) -> float:
    """Return the mean latency after another arrival."""
    return min(max(mean + weight * (seconds - mean), _MIN_LATENCY), _MAX_LATENCY)
