"""
The jobs and the money.

Invariant: a job's state follows from the clock when it is asked for; nothing runs for a job. A job that is
in the store was charged, exactly once, when it was accepted.

The vendor does not say whether FAILED jobs are paid back. Here the charge stays, which is the worst case for
the client. They stay in the store when they expire, since they are the stats; images are never kept in it.
"""

from __future__ import annotations

import heapq
import random
import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.settings import EmulatorSettings
from airflow_provider_ideogram.emulator.validation import MAX_SEED

State: TypeAlias = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]

#: Digits of USD that are kept: sums of floats would else show their error.
_MONEY_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What becomes of a job, where it is not the ordinary.

    :param error: Why it ends as FAILED, None for COMPLETED.
    :param form: The form of its result, None for the endpoint's ordinary one.
    :param seconds: How long it is PROCESSING, None for the time that is set.
    """

    error: str | None = None
    form: str | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Job:
    """
    An accepted request; its times are seconds since the epoch.

    :param request_id: Its id.
    :param model: The model's slug.
    :param inputs: The inputs as sent.
    :param seed: The seed that was sent, or drawn by the server.
    :param synchronous: Whether it came by the blocking endpoint.
    :param cost: USD charged.
    :param submitted_at: When it was accepted and charged.
    :param started_at: When it begins to be PROCESSING.
    :param done_at: When it is COMPLETED or FAILED.
    :param expires_at: When status, result and image are gone.
    :param outcome: What becomes of it.
    :param image_format: The format of its image.
    :param status_calls: How often its status was asked for.
    :param noticed_at: When a client was first told that it is done.
    """

    request_id: str
    model: str
    inputs: dict[str, Any]
    seed: int
    synchronous: bool
    cost: float
    submitted_at: float
    started_at: float
    done_at: float
    expires_at: float
    outcome: Outcome
    image_format: str
    status_calls: int = 0
    noticed_at: float | None = None

    @property
    def prompt(self) -> str:
        """The prompt as sent."""
        return str(self.inputs["prompt"])

    def state(self, now: float) -> State:
        """Return the state at a time."""
        if now < self.started_at:
            return "QUEUED"
        if now < self.done_at:
            return "PROCESSING"
        return "COMPLETED" if self.outcome.error is None else "FAILED"


class Charge(NamedTuple):
    """A line of the stats: a job that was accepted. Times are seconds since the epoch, None for not yet."""

    request_id: str
    model: str
    inputs: dict[str, Any]
    seed: int
    cost_usd: float
    state: State
    accepted_at: float
    done_at: float
    noticed_at: float | None
    status_calls: int


class JobStore:
    """
    All jobs since the start, and the account's balance.

    :param settings: Gives the first balance and the seed of what is drawn.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self.jobs: dict[str, Job] = {}
        self.balance = settings.credits
        self.charged = 0.0
        self.max_in_flight = 0
        self._rng = random.Random(settings.random_seed)
        self._ends: list[float] = []

    def accept(
        self,
        settings: EmulatorSettings,
        now: float,
        model: str,
        inputs: dict[str, Any],
        outcome: Outcome,
        synchronous: bool,
    ) -> Job:
        """
        Accept and charge a job.

        :raises ApiError: 406, if the credits do not cover it; nothing is charged.
        """
        if self.balance < settings.price:
            raise ApiError(406, "insufficient credits", {"x-remaining-credits": str(self.balance)})
        self.balance = round(self.balance - settings.price, _MONEY_DIGITS)
        self.charged = round(self.charged + settings.price, _MONEY_DIGITS)
        started_at = now + settings.queue_seconds
        job = Job(
            request_id=str(uuid.uuid4()),
            model=model,
            inputs=inputs,
            seed=self._seed(inputs.get("seed")),
            synchronous=synchronous,
            cost=settings.price,
            submitted_at=now,
            started_at=started_at,
            done_at=started_at + self._seconds(settings, outcome),
            expires_at=now + settings.lifetime_seconds,
            outcome=outcome,
            image_format=settings.image_format,
        )
        self.jobs[job.request_id] = job
        heapq.heappush(self._ends, job.done_at)
        self.max_in_flight = max(self.max_in_flight, self.in_flight(now))
        return job

    def find(self, request_id: str, now: float) -> Job:
        """
        Return a job that the vendor still holds.

        :raises ApiError: 404, if it is unknown or expired.
        """
        job = self.jobs.get(request_id)
        if job is None or now >= job.expires_at:
            raise ApiError(404, "request not found or expired")
        return job

    def in_flight(self, now: float) -> int:
        """Return how many jobs are not done."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def charges(self, now: float) -> list[Charge]:
        """Return what was charged, oldest first."""
        return [
            Charge(
                job.request_id,
                job.model,
                job.inputs,
                job.seed,
                job.cost,
                job.state(now),
                job.submitted_at,
                job.done_at,
                job.noticed_at,
                job.status_calls,
            )
            for job in self.jobs.values()
        ]

    def _seed(self, sent: object) -> int:
        return sent if isinstance(sent, int) else self._rng.randint(0, MAX_SEED)

    def _seconds(self, settings: EmulatorSettings, outcome: Outcome) -> float:
        if outcome.seconds is not None:
            return outcome.seconds
        return settings.job_seconds * self._rng.uniform(1 - settings.jitter, 1 + settings.jitter)
