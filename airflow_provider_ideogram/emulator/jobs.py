"""
The jobs and the account's balance.

Invariant: a job's state is a function of the clock; no task or timer runs for a job. A job is charged exactly once,
when it is COMPLETED; a FAILED job costs nothing. :meth:`JobStore.settle` makes the charges that are due, so it must be
called with the current time before balance, charges or states are read.

Jobs in flight reserve nothing: if several complete on a low balance, it becomes negative. Jobs stay in the store when
their record expires, because the stats and the history contain them. Images are not stored.
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

#: The user that the accepted API keys belong to, and another member of the team.
OWN_USER = "emulator-user"
TEAMMATE = "emulator-teammate"

#: A job with invalid parameters is FAILED this long after its submission.
_INVALID_SECONDS = 0.2
#: Sums of USD are rounded to this many digits, so that they are exact.
_MONEY_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a job deviates from the settings.

    :param error: The error of a FAILED job, None for a COMPLETED one.
    :param form: The form of the result, None for the endpoint's default.
    :param queue_seconds: Seconds that the job is QUEUED, None for the setting's.
    :param seconds: Seconds that the job is PROCESSING, None for the setting's.
    :param retries: How often the vendor ran the model again.
    :param is_blank: Whether its images show nothing.
    """

    error: str | None = None
    form: str | None = None
    queue_seconds: float | None = None
    seconds: float | None = None
    retries: int = 0
    is_blank: bool = False

    @classmethod
    def invalid(cls, error: str) -> Outcome:
        """Return the outcome of a job with invalid parameters: it is FAILED within a fraction of a second."""
        return cls(error=error, queue_seconds=0.0, seconds=_INVALID_SECONDS)


@dataclass(slots=True)
class Job:
    """
    An accepted request. Times are seconds since the epoch.

    :param request_id: The request id.
    :param user: The user that submitted it.
    :param model: The model's slug.
    :param inputs: The inputs as sent.
    :param seed: The seed that was sent, or that the server drew.
    :param price: What it costs in USD if it is COMPLETED.
    :param submitted_at: When it was accepted.
    :param started_at: When it becomes PROCESSING.
    :param done_at: When it becomes COMPLETED or FAILED.
    :param record_expires_at: When status and result expire.
    :param file_expires_at: When the image expires.
    :param outcome: How it ends.
    :param outputs: The number of images.
    :param image_format: The format of its images.
    :param status_calls: The number of status calls.
    :param first_seen_done_at: When a response first told a client that it is done.
    :param remaining_credits: The balance after its charge, None if it was not charged.
    """

    request_id: str
    user: str
    model: str
    inputs: dict[str, Any]
    seed: int
    price: float
    submitted_at: float
    started_at: float
    done_at: float
    record_expires_at: float
    file_expires_at: float
    outcome: Outcome
    outputs: int
    image_format: str
    status_calls: int = 0
    first_seen_done_at: float | None = None
    remaining_credits: float | None = None

    @property
    def prompt(self) -> str:
        """The prompt as sent, "" if it is not text."""
        prompt = self.inputs.get("prompt")
        return prompt if isinstance(prompt, str) else ""

    def state(self, now: float) -> State:
        """Return the state at a time."""
        if now < self.started_at:
            return "QUEUED"
        if now < self.done_at:
            return "PROCESSING"
        return "COMPLETED" if self.outcome.error is None else "FAILED"

    def cost(self, now: float) -> float:
        """Return what the job has cost by a time, in USD."""
        return self.price if self.state(now) == "COMPLETED" else 0.0

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a job that is done: times in seconds, and cost and balance in USD if it was charged."""
        metrics = {
            "inference_time": round(self.done_at - self.started_at, 3),
            "queue_time": round(self.started_at - self.submitted_at, 3),
            "total_time": round(self.done_at - self.submitted_at, 3),
        }
        if self.outcome.retries:
            metrics["retry_count"] = self.outcome.retries
        if self.remaining_credits is not None:
            metrics |= {"cost": self.price, "remaining_credits": self.remaining_credits}
        return metrics


class AcceptedRequest(NamedTuple):
    """
    A job as the tests see it. Times are seconds since the epoch.

    ``cost_usd`` is what was charged: 0 unless the state is COMPLETED.
    """

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
        self.teammates_jobs: dict[str, Job] = {}
        self.balance = settings.credits
        self.charges = 0
        self.charged_usd = 0.0
        self.failed = 0
        self.max_in_flight = 0
        self._rng = random.Random(settings.random_seed)
        self._in_flight: list[tuple[float, int, Job]] = []

    @property
    def in_flight(self) -> int:
        """The number of jobs that are QUEUED or PROCESSING."""
        return len(self._in_flight)

    def settle(self, now: float) -> None:
        """Charge the jobs that have become COMPLETED, in the order of completion, and count those that are FAILED."""
        while self._in_flight and self._in_flight[0][0] <= now:
            _, _, job = heapq.heappop(self._in_flight)
            if job.outcome.error is not None:
                self.failed += 1
                continue
            self.charges += 1
            self.charged_usd = round(self.charged_usd + job.price, _MONEY_DIGITS)
            self.balance = job.remaining_credits = round(self.balance - job.price, _MONEY_DIGITS)

    def accept(
        self, settings: EmulatorSettings, now: float, model: str, inputs: dict[str, Any], outcome: Outcome
    ) -> Job:
        """Add a job of the account. It is charged when it is COMPLETED."""
        self.settle(now)
        job = self._job(settings, now, model, inputs, outcome, OWN_USER)
        heapq.heappush(self._in_flight, (job.done_at, len(self.jobs), job))
        self.jobs[job.request_id] = job
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return job

    def add_teammates_job(self, settings: EmulatorSettings, now: float, model: str, inputs: dict[str, Any]) -> Job:
        """Add a job of another member of the team. It changes neither the balance nor the stats."""
        job = self._job(settings, now, model, inputs, Outcome(), TEAMMATE)
        self.teammates_jobs[job.request_id] = job
        return job

    def find(self, request_id: str, now: float) -> Job:
        """
        Return a job of the account whose record has not expired.

        :raises ApiError: 404, if the id is unknown or the record has expired.
        """
        job = self.jobs.get(request_id)
        if job is None or now >= job.record_expires_at:
            raise ApiError(404, "request not found or expired")
        return job

    def requests(self, now: float) -> list[AcceptedRequest]:
        """Return the account's jobs in the order of submission."""
        return [
            AcceptedRequest(
                job.request_id,
                job.model,
                job.inputs,
                job.seed,
                job.cost(now),
                job.state(now),
                job.submitted_at,
                job.done_at,
                job.first_seen_done_at,
                job.status_calls,
            )
            for job in self.jobs.values()
        ]

    def _job(
        self, settings: EmulatorSettings, now: float, model: str, inputs: dict[str, Any], outcome: Outcome, user: str
    ) -> Job:
        request_id = uuid.uuid4()
        started_at = now + (settings.queue_seconds if outcome.queue_seconds is None else outcome.queue_seconds)
        done_at = started_at + self._seconds(settings, outcome)
        return Job(
            request_id=str(request_id) if settings.request_id_dashes else request_id.hex,
            user=user,
            model=model,
            inputs=inputs,
            seed=self._seed(inputs.get("seed")),
            price=settings.model_prices[model],
            submitted_at=now,
            started_at=started_at,
            done_at=done_at,
            record_expires_at=now + settings.lifetime_seconds,
            file_expires_at=done_at + settings.file_lifetime_seconds,
            outcome=outcome,
            outputs=settings.outputs,
            image_format=settings.image_format,
        )

    def _seed(self, sent: object) -> int:
        return sent if isinstance(sent, int) else self._rng.randint(0, MAX_SEED)

    def _seconds(self, settings: EmulatorSettings, outcome: Outcome) -> float:
        if outcome.seconds is not None:
            return outcome.seconds
        return settings.job_seconds * self._rng.uniform(1 - settings.jitter, 1 + settings.jitter)
