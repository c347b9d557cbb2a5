"""
The jobs and the account's balance.

Invariant: a job's state is a function of the clock; no task or timer runs for a job. Every job in the store was
charged exactly once, when it was accepted. A FAILED job is not refunded. Expired jobs stay in the store, because the
stats count them. Images are not stored.
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

#: Sums of USD are rounded to this many digits, so that they are exact.
_MONEY_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a job deviates from the settings.

    :param error: The error of a FAILED job, None for a COMPLETED one.
    :param form: The form of the result, None for the endpoint's default.
    :param seconds: Seconds that the job is PROCESSING, None for the setting's.
    """

    error: str | None = None
    form: str | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Job:
    """
    An accepted request. Times are seconds since the epoch.

    :param request_id: The request id.
    :param model: The model's slug.
    :param inputs: The inputs as sent.
    :param seed: The seed that was sent, or that the server drew.
    :param synchronous: Whether the synchronous endpoint accepted it.
    :param cost: The charge in USD.
    :param submitted_at: When it was accepted and charged.
    :param started_at: When it becomes PROCESSING.
    :param done_at: When it becomes COMPLETED or FAILED.
    :param expires_at: When status, result and image expire.
    :param outcome: How it ends.
    :param image_format: The format of its image.
    :param status_calls: The number of status calls.
    :param first_seen_done_at: When a response first told a client that it is done.
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
    first_seen_done_at: float | None = None

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
    """A charged job. Times are seconds since the epoch."""

    request_id: str
    model: str
    inputs: dict[str, Any]
    seed: int
    cost_usd: float
    state: State
    accepted_at: float
    done_at: float
    first_seen_done_at: float | None
    status_calls: int


class JobStore:
    """
    All jobs since the start, and the account's balance.

    :param settings: The initial balance, and the seed of random values.
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

        :raises ApiError: 406, if the balance is too low; nothing is charged then.
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
        Return a job whose record has not expired.

        :raises ApiError: 404, if the id is unknown or the record has expired.
        """
        job = self.jobs.get(request_id)
        if job is None or now >= job.expires_at:
            raise ApiError(404, "request not found or expired")
        return job

    def in_flight(self, now: float) -> int:
        """Return the number of jobs that are QUEUED or PROCESSING."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return len(self._ends)

    def charges(self, now: float) -> list[Charge]:
        """Return the charged jobs, oldest first."""
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
                job.first_seen_done_at,
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
