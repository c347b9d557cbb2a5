"""
The vendor's side of the account: who may call, what is accepted, and the stats of it all.

Invariant: an :class:`Account` is used by one thread, the server's; nothing in it waits.
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
    What has happened since the start, or the last reset.

    :param charges: Jobs that were accepted and charged.
    :param charged_usd: What they cost.
    :param credits: The balance that is left.
    :param calls: How often each operation was called, whatever it was answered: ``submit``, ``generate`` (the
        synchronous endpoint), ``status``, ``result``, ``image``, ``credits``, ``history``.
    :param rate_limited: Calls that were answered 429 because of the rate limit.
    :param key_leaks: Requests for an image that carried a key.
    :param jobs_in_flight: Jobs that are not done.
    :param max_jobs_in_flight: The most that were not done at the same time.
    :param faults: How often each fault triggered, by ``operation:kind``.
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

    :param settings: How it behaves.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.reset()

    def reset(self) -> None:
        """Forget all jobs, faults and counts; settings and time stay."""
        self.store = JobStore(self.settings)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.rate_limited = 0
        self.key_leaks = 0
        self._limiter = RateLimiter()

    def configure(self, changes: dict[str, Any]) -> None:
        """
        Change settings for what comes; jobs that were accepted keep their times. ``credits`` is the new balance.

        :raises ValueError: If a setting does not exist, is fixed, or its value is not valid.
        """
        self.settings = self.settings.changed(changes)
        self.store.balance = changes.get("credits", self.store.balance)

    def authorise(self, key: str | None) -> None:
        """
        Check an API key.

        :raises ApiError: 401 for a missing or unknown key, 403 for one without permission.
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

    def find(self, request_id: str) -> Job:
        """
        Return a job that is still held.

        :raises ApiError: 404, if it is unknown or expired.
        """
        return self.store.find(request_id, self.clock.now())

    def history(self) -> list[Job]:
        """Return the jobs that the history shows by now, newest first."""
        return [job for job in reversed(self.store.jobs.values()) if self._in_history(job)]

    def find_in_history(self, request_id: str) -> Job:
        """
        Return a job of any age.

        :raises ApiError: 404, if the history does not show it.
        """
        job = self.store.jobs.get(request_id)
        if job is None or not self._in_history(job):
            raise ApiError(404, "request not found")
        return job

    def stats(self) -> Stats:
        """Return the counts."""
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
