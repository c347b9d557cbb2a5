"""
The state of the emulated account: API keys, jobs, faults and counters.

Invariants: only the thread of the server's event loop uses an :class:`Account`, and its methods do not block. Only
:meth:`Account.now` reads the time; it charges the jobs that have completed by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.emulator.clock import Clock
from airflow_provider_ideogram.emulator.errors import (
    NO_BALANCE_RECORD,
    RATE_LIMIT_EXCEEDED,
    ApiError,
    insufficient_credits,
    unauthorized,
)
from airflow_provider_ideogram.emulator.faults import Faults
from airflow_provider_ideogram.emulator.jobs import AcceptedRequest, Job, JobStore, Outcome
from airflow_provider_ideogram.emulator.rate_limit import RateLimiter, reset_headers
from airflow_provider_ideogram.emulator.settings import EmulatorSettings
from airflow_provider_ideogram.emulator.validation import check_inputs


@dataclass(frozen=True, slots=True)
class Stats:
    """
    Counts since the start or the last reset.

    :param accepted: Accepted jobs: the sum of ``charges``, ``failed`` and ``jobs_in_flight``.
    :param charges: COMPLETED jobs, which are charged.
    :param failed: FAILED jobs, which cost nothing.
    :param charged_usd: The cost of the COMPLETED jobs.
    :param credits: The remaining balance in USD.
    :param calls: Calls by operation, including those answered with an error: ``submit``, ``generate`` (the
        synchronous endpoint), ``status``, ``result``, ``image``, ``credits``, ``history``.
    :param rate_limited: Calls that the rate limit refused with 429.
    :param key_leaks: Image requests that carried an API key.
    :param jobs_in_flight: Jobs that are QUEUED or PROCESSING.
    :param max_jobs_in_flight: The highest number of jobs in flight at one time.
    :param faults: Triggered faults, by ``operation:kind``.
    """

    accepted: int
    charges: int
    failed: int
    charged_usd: float
    credits: float
    calls: Mapping[str, int]
    rate_limited: int
    key_leaks: int
    jobs_in_flight: int
    max_jobs_in_flight: int
    faults: Mapping[str, int]


class Account:
    """
    Settings, clock, jobs, faults and counters of one emulator.

    :param settings: The initial settings.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.clock = Clock(settings.clock_speed)
        self.reset()

    def reset(self) -> None:
        """Delete all jobs, faults and counts. Settings and clock keep their values."""
        self.store = JobStore(self.settings)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.last_error: str | None = None
        self.rate_limited = 0
        self.key_leaks = 0
        self._limiter = RateLimiter()

    def configure(self, changes: dict[str, Any]) -> None:
        """
        Change settings. Accepted jobs keep their price and times; ``credits`` sets the balance.

        :raises ValueError: If a setting does not exist or is fixed, or a value is not valid.
        """
        changed = self.settings.changed(changes)
        self.now()
        self.settings = changed
        self.store.balance = changes.get("credits", self.store.balance)
        self.clock.set_speed(changed.clock_speed)

    def now(self) -> float:
        """Return the current time of the emulator's clock, after charging the jobs that have completed by then."""
        now = self.clock.now()
        self.store.settle(now)
        return now

    @property
    def balance(self) -> float:
        """The account's balance in USD."""
        self.now()
        return self.store.balance

    def authenticate(self, key: str | None) -> None:
        """
        Check an API key.

        :raises ApiError: 401 for a missing or unknown key, 403 for a key without permission.
        """
        if key in self.settings.keys:
            return
        if key in self.settings.forbidden_keys:
            raise ApiError(403, "insufficient permissions")
        raise unauthorized(key)

    def count_poll(self) -> None:
        """
        Count a status or result call against the rate limit, if polls count.

        :raises ApiError: 429.
        """
        if self.settings.rate_limit_polls:
            self._count_against_rate_limit()

    def accept(self, model: str, inputs: dict[str, Any], synchronous: bool) -> Job:
        """
        Accept a job.

        :param synchronous: Whether the synchronous endpoint was called. It validates at once, and answers a lack of
            credits with 406 instead of 402.
        :raises ApiError: 400, 402, 404, 406 or 429.
        """
        price = self.settings.model_prices.get(model)
        if price is None:
            raise ApiError(404, f"model {model!r} not found")
        invalid = self._invalid_outcome(model, inputs, late=self.settings.late_validation and not synchronous)
        self._count_against_rate_limit()
        if (balance := self.balance) < price:
            raise insufficient_credits(406 if synchronous else 402, balance, price)
        outcome = invalid or self.faults.outcome(inputs["prompt"])
        return self.store.accept(self.settings, self.now(), model, inputs, outcome)

    def add_teammate_request(self, inputs: dict[str, Any], model: str = DEFAULT_MODEL) -> Job:
        """
        Add a request of another member of the team, which only the history list contains.

        :raises ValueError: If the inputs are not an object, or the model does not exist.
        """
        if not isinstance(inputs, dict):
            raise ValueError(f"inputs: {inputs!r} is not an object")
        if model not in self.settings.model_prices:
            raise ValueError(f"model: {model!r} does not exist")
        return self.store.add_teammates_job(self.settings, self.now(), model, inputs)

    def job(self, request_id: str) -> Job:
        """
        Return a job whose record has not expired.

        :raises ApiError: 404, if the id is unknown or the record has expired.
        """
        return self.store.find(request_id, self.now())

    def job_with_file(self, request_id: str) -> Job:
        """
        Return a job whose image can be downloaded, also a teammate's.

        :raises ApiError: 404, if the id is unknown, the job is not COMPLETED, or the file has expired.
        """
        now = self.now()
        job = self.store.jobs.get(request_id) or self.store.teammates_jobs.get(request_id)
        if job is None or job.state(now) != "COMPLETED" or now >= job.file_expires_at:
            raise ApiError(404, "file not found")
        return job

    def history(self) -> list[Job]:
        """Return the jobs that the history list contains: the account's and the teammates', newest first."""
        return [job for job in self.jobs() if self.is_in_history(job)]

    def jobs(self) -> list[Job]:
        """Return the account's and the teammates' jobs, newest first."""
        return [*self.store.jobs.values(), *self.store.teammates_jobs.values()][::-1]

    def is_in_history(self, job: Job) -> bool:
        """Return whether the history contains a job, which it does after a lag."""
        return job.submitted_at + self.settings.history_lag_seconds <= self.now()

    def history_job(self, request_id: str) -> Job:
        """
        Return one of the account's own jobs from the history, of any age.

        :raises ApiError: 404, if the history does not contain it.
        """
        job = self.store.jobs.get(request_id)
        if job is None or not self.is_in_history(job):
            raise ApiError(404, "request not found")
        return job

    def credits(self) -> float:
        """
        Return the balance, as the credits call does.

        :raises ApiError: 404, if the account has no balance record.
        """
        if not self.settings.balance_record:
            raise ApiError(404, NO_BALANCE_RECORD)
        return self.balance

    def requests(self) -> list[AcceptedRequest]:
        """Return all accepted requests in the order of submission."""
        return self.store.requests(self.now())

    def charges(self) -> list[AcceptedRequest]:
        """Return the COMPLETED requests, which were charged, in the order of submission."""
        return [request for request in self.requests() if request.state == "COMPLETED"]

    def stats(self) -> Stats:
        """Return the current counts."""
        self.now()
        return Stats(
            accepted=len(self.store.jobs),
            charges=self.store.charges,
            failed=self.store.failed,
            charged_usd=self.store.charged_usd,
            credits=self.store.balance,
            calls=dict(self.calls),
            rate_limited=self.rate_limited,
            key_leaks=self.key_leaks,
            jobs_in_flight=self.store.in_flight,
            max_jobs_in_flight=self.store.max_in_flight,
            faults=dict(self.faults.triggered),
        )

    def _invalid_outcome(self, model: str, inputs: dict[str, Any], late: bool) -> Outcome | None:
        """Return the outcome of a job with invalid inputs, None for valid ones; raise the error unless it is late."""
        try:
            check_inputs(model, inputs)
        except ApiError as error:
            if not late:
                raise
            return Outcome.invalid(str(error))
        return None

    def _count_against_rate_limit(self) -> None:
        now = self.now()
        reset_at = self._limiter.reset_at(self.settings.rate_limit, now)
        if reset_at is not None:
            self.rate_limited += 1
            raise ApiError(429, RATE_LIMIT_EXCEEDED, reset_headers(self.settings.rate_limit_header, reset_at, now))
