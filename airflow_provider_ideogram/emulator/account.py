"""
The state of the emulated account: API keys, jobs, faults and counters.

Invariant: an :class:`Account` is used only by the thread of the server's event loop, and none of its methods blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_ideogram.emulator.clock import Clock
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.faults import Faults
from airflow_provider_ideogram.emulator.jobs import Job, JobStore
from airflow_provider_ideogram.emulator.rate_limit import RateLimiter
from airflow_provider_ideogram.emulator.settings import EmulatorSettings
from airflow_provider_ideogram.emulator.validation import check_request


@dataclass(frozen=True, slots=True)
class Stats:
    """
    Counts since the start or the last reset.

    :param charges: Jobs that were accepted and charged.
    :param charged_usd: Their cost.
    :param credits: The remaining balance in USD.
    :param calls: Calls by operation, including those answered with an error: ``submit``, ``generate`` (the
        synchronous endpoint), ``status``, ``result``, ``image``, ``credits``, ``history``.
    :param rate_limited: Calls that the rate limit refused with 429.
    :param key_leaks: Image requests that carried an API key.
    :param jobs_in_flight: Jobs that are QUEUED or PROCESSING.
    :param max_jobs_in_flight: The highest number of jobs in flight at one time.
    :param faults: Triggered faults, by ``operation:kind``.
    """

    charges: int
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
        self.clock = Clock()
        self.reset()

    def reset(self) -> None:
        """Delete all jobs, faults and counts. Settings and clock keep their values."""
        self.store = JobStore(self.settings)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.rate_limited = 0
        self.key_leaks = 0
        self._limiter = RateLimiter()

    def configure(self, changes: dict[str, Any]) -> None:
        """
        Change settings. Accepted jobs keep their times; ``credits`` sets the balance.

        :raises ValueError: If a setting does not exist or is fixed, or a value is not valid.
        """
        self.settings = self.settings.changed(changes)
        self.store.balance = changes.get("credits", self.store.balance)

    def authenticate(self, key: str | None) -> None:
        """
        Check an API key.

        :raises ApiError: 401 for a missing or unknown key, 403 for a key without permission.
        """
        if key in self.settings.keys:
            return
        if key in self.settings.forbidden_keys:
            raise ApiError(403, "insufficient permissions")
        raise ApiError(401, "missing or invalid API key")

    def accept(self, model: str, inputs: dict[str, Any], synchronous: bool) -> Job:
        """
        Accept and charge a job.

        :raises ApiError: 404, 429, 400 or 406; nothing is charged then.
        """
        check_request(model, inputs)
        now = self.clock.now()
        wait = self._limiter.seconds_to_wait(self.settings.rate_limit, now)
        if wait:
            self.rate_limited += 1
            headers = {"Retry-After": str(wait)} if self.settings.retry_after else {}
            raise ApiError(429, "rate limit exceeded", headers)
        outcome = self.faults.outcome(inputs["prompt"])
        return self.store.accept(self.settings, now, model, inputs, outcome, synchronous)

    def job(self, request_id: str) -> Job:
        """
        Return a job whose record has not expired.

        :raises ApiError: 404, if the id is unknown or the record has expired.
        """
        return self.store.find(request_id, self.clock.now())

    def history(self) -> list[Job]:
        """Return the jobs that are visible in the history, newest first."""
        return [job for job in reversed(self.store.jobs.values()) if self._in_history(job)]

    def history_job(self, request_id: str) -> Job:
        """
        Return a job from the history, expired or not.

        :raises ApiError: 404, if the history does not contain it.
        """
        job = self.store.jobs.get(request_id)
        if job is None or not self._in_history(job):
            raise ApiError(404, "request not found")
        return job

    def stats(self) -> Stats:
        """Return the current counts."""
        return Stats(
            charges=len(self.store.jobs),
            charged_usd=self.store.charged,
            credits=self.store.balance,
            calls=dict(self.calls),
            rate_limited=self.rate_limited,
            key_leaks=self.key_leaks,
            jobs_in_flight=self.store.in_flight(self.clock.now()),
            max_jobs_in_flight=self.store.max_in_flight,
            faults=dict(self.faults.triggered),
        )

    def _in_history(self, job: Job) -> bool:
        return job.submitted_at + self.settings.history_lag_seconds <= self.clock.now()
