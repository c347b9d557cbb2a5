"""
A slice of a dataset's run: a worker's short burst of work between two waits.

Invariant: the images of finished jobs are stored and their lines written before the ledger forgets the jobs; new
jobs are in the ledger before they are in the state, and the state is written when all of the slice is. So whatever
instant a slice dies at, the state tells what was before it, the next attempt finds every job, and what is done a
second time is done the same.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.api.back_off import PATIENCE_SECONDS, RATE_WINDOW
from airflow_provider_ideogram.api.poll_schedule import EXPECTED_SECONDS
from airflow_provider_ideogram.api.polling import Outcome, RequestPoll, deadline_of
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.manifest import failed_line, stored_line
from airflow_provider_ideogram.datasets.rows import MAX_LISTED, Item
from airflow_provider_ideogram.datasets.state import DatasetState, DelayedItem, InFlightItem
from airflow_provider_ideogram.datasets.workspace import STATE, chunk_name
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramDatasetStopped,
    IdeogramError,
    IdeogramInsufficientCredits,
    IdeogramJobError,
    IdeogramLedgerError,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramStorageError,
    IdeogramTemporaryError,
    IdeogramUnknownSubmit,
)
from airflow_provider_ideogram.jobs.completion import fetch_and_store, poll_once
from airflow_provider_ideogram.jobs.reconciliation import RetryLater
from airflow_provider_ideogram.jobs.recovery import recover
from airflow_provider_ideogram.jobs.submission import Submitter
from airflow_provider_ideogram.storage.image_record import ImageRecord, made_by, made_from
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore

#: What came of an item's submit: a job, another try, or its line.
_Decision: TypeAlias = "InFlightItem | DelayedItem | dict[str, Any]"
T = TypeVar("T")

log = logging.getLogger(__name__)

#: Requests, downloads and uploads at once: what keeps a core busy, and eight images in memory at most.
CONCURRENCY = 8
#: Seconds of submits that make a slice worth its start, where the rate limit is what holds it up.
SLICE_SECONDS = 12.0
#: Seconds from one slice to the next at least: a task that resumes very soon after it deferred can be marked failed
#: by Airflow's scheduler while it goes on (apache/airflow#72716), and a dataset resumes often.
MIN_WAIT_SECONDS = 5.0
#: Seconds that a slice waits for the rate limit's next moments, which is less than another slice's start takes.
PACE_SECONDS = 4.0
#: Seconds until an item that met a passing error is tried again.
AGAIN_SECONDS = 30.0
#: So many items, all with the same failure and none with an image between them, are no accident of single items.
SYSTEMATIC_FAILURES = 20
#: So many images of finished jobs that can't be fetched, and none stored meanwhile, are no accident of single images.
HELD_IMAGES = 5
#: What is wrong with all items if it is wrong with one.
_SYSTEMATIC = (
    IdeogramAuthenticationError,
    IdeogramPermissionError,
    IdeogramInsufficientCredits,
)
#: Times, sizes, addresses and ids, as errors have them.
_WITH_DIGITS = re.compile(r"\S*\d\S*")


@dataclass(slots=True)
class _Burst:
    """
    The submits of a slice, as its threads see them.

    :param sent_at: When each was answered, but for those that were turned away.
    :param delays: The wait that the server asked for, for each that it turned away.
    :param broken: Whether something is wrong with all items.
    :param no_storage: What S3 said to those that it stood in the way of.
    """

    sent_at: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    broken: bool = False
    no_storage: list[IdeogramError] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing more is submitted."""
        return self.broken or bool(self.delays)


class ItemResult(NamedTuple):
    """
    What became of a job.

    :param line: Its line.
    :param is_terminal_failure: Whether nothing can come of it any more.
    """

    line: dict[str, Any]
    is_terminal_failure: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """
    What to wait for until the next slice.

    :param requests: The time of submission by request id.
    :param not_before: When the next slice may begin, in seconds since the epoch.
    :param deadline: When it has something to do at the latest.
    :param min_settled: How many settled requests are worth a slice, None for all.
    """

    requests: Mapping[str, float]
    not_before: float
    deadline: float
    min_settled: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRun:
    """
    The run, as one slice sees it.

    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param workspace: The run's own objects.
    :param state: Where it stands; changed by the slice.
    :param output_prefix: The prefix of the images.
    :param owner: Who asks, to the ledger.
    :param max_tries: The task's, which changes when a person clears it.
    :param if_exists: What an image at an item's key means.
    :param resubmit: Whether a submit whose fate stays unknown may be paid again.
    :param timeout: Seconds from an item's submission until it is given up.
    :param max_in_flight: Jobs at the vendor at once.
    :param max_cost_usd: What the task may spend, None for no limit.
    :param price_usd: What an image costs, None where nobody knows.
    """

    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    workspace: Workspace
    state: DatasetState
    output_prefix: Target
    owner: str
    max_tries: int
    if_exists: str
    resubmit: bool
    timeout: float
    max_in_flight: int
    max_cost_usd: float | None
    price_usd: float | None
    #: Jobs that were done, or could not be asked for, and are looked at again after a while.
    _recheck_ids: set[str] = field(default_factory=set)
    #: Why the images of those of them that are done could not be brought to S3.
    _store_errors: list[IdeogramTemporaryError] = field(default_factory=list)
    #: Jobs whose images were.
    _stored_ids: set[str] = field(default_factory=set)

    def slice(self, reports: Mapping[str, Mapping[str, Any]]) -> Wait | None:
        """
        Store what is done, submit what fits, and return what to wait for; None when every item is decided.

        :param reports: What the trigger found out, by request id.
        :raises IdeogramError: If what is wrong is wrong with all items; what was done until then is written.
        """
        self.state.slices += 1
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="ideogram") as pool:
            problems = self._settle(pool, reports)
            if not problems and self.state.consecutive_same_failures < SYSTEMATIC_FAILURES:
                problems = self._submit(pool)
            if not problems:
                problems = self._copy(pool)
        self.workspace.write(STATE, self.state.to_json())
        if problems:
            raise problems[0]
        self._raise_if_systematic()
        return self._wait()

    def _settle(self, pool: ThreadPoolExecutor, reports: Mapping[str, Mapping[str, Any]]) -> list[IdeogramError]:
        flights = self.state.in_flight

        def settle(flight: InFlightItem) -> ItemResult | None:
            return self._end_of(flight, reports.get(flight.job.request_id))

        ends, problems = _gather(pool, settle, flights)
        settled = [(flight, end) for flight, end in zip(flights, ends, strict=True) if end is not None]
        self._write_part([end.line for _, end in settled])
        self.state.in_flight = [flight for flight, end in zip(flights, ends, strict=True) if end is None]
        self.state.abandoned_request_ids += [
            flight.job.request_id for flight, end in settled if not end.is_terminal_failure
        ]
        list(pool.map(self._close, [flight for flight, end in settled if end.is_terminal_failure]))
        return problems

    def _end_of(self, flight: InFlightItem, report: Mapping[str, Any] | None) -> ItemResult | None:
        """Return what became of a job, its image being stored; None for one that goes on."""
        job, now = flight.job, time.time()
        poll = RequestPoll(job.request_id, job.submitted_at)
        if report is not None:
            poll.take_report(report)
        time_left = now < deadline_of(job.submitted_at, self.timeout)
        overdue = now - job.submitted_at > EXPECTED_SECONDS
        if poll.outcome is Outcome.UNREACHABLE or (poll.outcome is Outcome.PENDING and overdue):
            # Done since the trigger fired, as a rule.
            poll_once(self.hook, poll)
        if poll.outcome is Outcome.RECORD_GONE:
            recover(self.hook, poll, job.request)
        if poll.outcome is Outcome.COMPLETED:
            return self._stored(flight, poll)
        if poll.outcome is Outcome.REFUSED:
            raise poll.failure()
        if time_left and poll.outcome in (Outcome.PENDING, Outcome.UNREACHABLE):
            if poll.outcome is Outcome.UNREACHABLE:
                self._recheck_ids.add(job.request_id)
            return None
        return self._ended(flight, poll)

    def _stored(self, flight: InFlightItem, poll: RequestPoll) -> ItemResult | None:
        try:
            record = fetch_and_store(self.hook, self.store, flight.job, poll)
            self._stored_ids.add(flight.job.request_id)
            return ItemResult(stored_line(flight.item, record))
        except IdeogramTemporaryError as problem:
            log.warning(
                "Request %s is done, but not here yet: %s. It is tried again", flight.job.request_id, problem.reason
            )
            self._recheck_ids.add(flight.job.request_id)
            self._store_errors.append(problem)
            return None
        except IdeogramJobError as problem:
            return self._found(flight) or _failed(
                flight, ImageStatus.FAILED, problem, is_terminal_failure=poll.is_terminal_failure
            )

    def _ended(self, flight: InFlightItem, poll: RequestPoll) -> ItemResult:
        """Return what became of a job that has no image, or that nobody waits for any longer."""
        if poll.outcome is Outcome.CONTENT_BLOCKED:
            return _failed(flight, ImageStatus.CONTENT_BLOCKED, poll.failure(), is_terminal_failure=True)
        found = None if poll.outcome is Outcome.FAILED else self._found(flight)
        return found or _failed(
            flight, ImageStatus.FAILED, poll.failure(), is_terminal_failure=poll.is_terminal_failure
        )

    def _found(self, flight: InFlightItem) -> ItemResult | None:
        """Return the image of a job that the vendor has forgotten, if a slice that died had stored it."""
        target, job = Target(self.output_prefix.bucket, flight.item.key), flight.job
        head = self.store.find(target)
        if head is None or made_by(head) != job.request_id:
            return None
        record = ImageRecord.of_object(target, head, flight.item.request, own=not job.paid_by_other_task)
        return ItemResult(stored_line(flight.item, record))

    def _close(self, flight: InFlightItem) -> None:
        if flight.job.record_key and flight.job.record_etag:
            self.ledger.delete(flight.job.record_key, flight.job.record_etag)

    def _submit(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        """Submit what the rate limit allows; where nobody knows it, more and more until somebody objects."""
        rate_limiter, problems = self.state.rate_limiter, self._submit_burst(pool)
        while not problems and rate_limiter.rate is None and rate_limiter.ramping_up:
            problems = self._submit_burst(pool)
        return problems

    def _submit_burst(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        now = time.time()
        self.state.rate_limiter.ramping_up = False
        times = self._times(now)
        items = self._next_items(len(times), now)
        if not items:
            return []
        burst = _Burst()

        def submit(planned: tuple[float, DelayedItem]) -> _Decision:
            return self._submit_one(*planned, burst)

        results, problems = _gather(pool, submit, list(zip(times, items, strict=False)))
        self._take(items, results)
        self.state.rate_limiter.on_sent(burst.sent_at)
        if burst.delays:
            self.state.rate_limiter.on_limited(time.time(), max(burst.delays))
        everywhere = burst.no_storage[:1] if len(burst.no_storage) == len(items) else []
        return problems or everywhere

    def _submit_one(self, at: float, later: DelayedItem, burst: _Burst) -> _Decision:
        """Return the item's job, its line if it is decided already, or the item if it is put off."""
        time.sleep(max(0.0, min(at - time.time(), PACE_SECONDS)))
        if burst.over:
            return later
        try:
            result = self._get_or_submit(later.item)
        except RetryLater as again:
            if isinstance(again.error, IdeogramRateLimited):
                burst.delays.append(again.delay)
            return _put_off(later, again.delay, again.error)
        except IdeogramError as error:
            return self._turned_down(later, error, burst)
        if isinstance(result, InFlightItem):
            burst.sent_at.append(time.time())
        return result

    def _turned_down(self, later: DelayedItem, error: IdeogramError, burst: _Burst) -> _Decision:
        """Return what an error means for an item; raise it if it means the same for all items."""
        if isinstance(error, _SYSTEMATIC):
            burst.broken = True
            raise error
        if isinstance(error, IdeogramUnknownSubmit):
            burst.sent_at.append(time.time())
        unreadable = isinstance(error, IdeogramLedgerError) and isinstance(
            error.__cause__, ValueError | TypeError | KeyError
        )
        if isinstance(error, IdeogramTemporaryError) and not unreadable:
            if isinstance(error, IdeogramStorageError):
                burst.no_storage.append(error)
            return _put_off(later, AGAIN_SECONDS, error)
        return _without_job(later.item, error)

    def _take(self, items: list[DelayedItem], results: list[_Decision | None]) -> None:
        """Note what came of the submits."""
        self._write_part([dict(result) for result in results if isinstance(result, Mapping)])
        for later, result in zip(items, results, strict=True):
            if isinstance(result, InFlightItem):
                self.state.in_flight.append(result)
            elif not isinstance(result, Mapping):
                self.state.delayed.append(result or later)

    def _get_or_submit(self, item: Item) -> InFlightItem | dict[str, Any]:
        submitter = Submitter(
            self.hook,
            self.store,
            self.ledger,
            Target(self.output_prefix.bucket, item.key),
            owner=self.owner,
            max_tries=self.max_tries,
            if_exists=self.if_exists,
            resubmit=self.resubmit,
        )
        result = submitter.get_or_submit(item.request, absent=item.absent)
        return stored_line(item, result) if isinstance(result, ImageRecord) else InFlightItem(item, result[0])

    def _times(self, now: float) -> list[float]:
        """Return when items may be submitted in this slice."""
        room = self.max_in_flight - len(self.state.in_flight)
        if self._affordable is not None:
            room = min(room, self._affordable)
        if room <= 0 or self._storage_blocked:  # what can't be stored is not to be paid
            return []
        return [at for at in self.state.rate_limiter.times(room, now) if at <= now + PACE_SECONDS]

    @property
    def _storage_blocked(self) -> bool:
        """Whether images can't be brought to S3, for a reason that is not a single image's own."""
        no_storage = any(isinstance(problem, IdeogramStorageError) for problem in self._store_errors)
        return no_storage or (len(self._store_errors) >= HELD_IMAGES and not self._stored_ids)

    @property
    def _affordable(self) -> int | None:
        """How many more images the task may pay for, None for no limit."""
        if self.max_cost_usd is None or not self.price_usd:
            return None
        spent = self.state.cost_usd + self.price_usd * len(self.state.in_flight)
        return max(0, int((self.max_cost_usd - spent) / self.price_usd + 1e-9))

    @property
    def _more(self) -> bool:
        """Whether there are items to submit."""
        return self.state.chunk < self.state.chunks or bool(self.state.delayed)

    @property
    def _plan_open(self) -> bool:
        """Whether items are taken from the plan: not while as many as may be in flight were put off."""
        return self.state.chunk < self.state.chunks and len(self.state.delayed) < self.max_in_flight

    def _next_items(self, room: int, now: float) -> list[DelayedItem]:
        """Take the next items: those that were put off and are due, then those of the plan."""
        state = self.state
        due = [later for later in state.delayed if later.at <= now]
        state.delayed = [later for later in state.delayed if later.at > now] + due[room:]
        items = due[:room]
        while len(items) < room and self._plan_open:
            lines = self.workspace.read_lines(chunk_name("todo", state.chunk))
            taken = lines[state.offset : state.offset + room - len(items)]
            items += [DelayedItem(Item.from_json(line), now, now) for line in taken]
            state.offset += len(taken)
            if state.offset >= len(lines):
                state.chunk, state.offset = state.chunk + 1, 0
        return items

    def _write_part(self, lines: list[dict[str, Any]]) -> None:
        """Write the lines of decided items, and count them."""
        if not lines:
            return
        self.workspace.write_lines(chunk_name("part", self.state.parts), lines)
        self.state.parts += 1
        for line in lines:
            self.state.counts[line["status"]] += 1
            if line["request_id"] not in self.state.abandoned_request_ids:
                self.state.cost_usd += line["cost_usd"] or 0.0
            self._note(line)

    def _note(self, line: Mapping[str, Any]) -> None:
        """Note what a person will want to know of an item without an image."""
        state = self.state
        if line["error"] is None:
            state.failure, state.consecutive_same_failures = "", 0
            return
        if len(state.examples) < MAX_LISTED:
            state.examples.append(f"{line['id']}: {line['error']}")
        if line["status"] == ImageStatus.FAILED:
            error = _what_is_alike(line)
            state.consecutive_same_failures = state.consecutive_same_failures + 1 if error == state.failure else 1
            state.failure = error

    def _raise_if_systematic(self) -> None:
        state = self.state
        if state.consecutive_same_failures >= SYSTEMATIC_FAILURES and self._more:
            raise IdeogramDatasetStopped(
                f"The last {state.consecutive_same_failures} items failed for the same reason: {state.failure}",
                f"{state.cost_usd:.2f} USD were charged so far; {len(state.in_flight)} more jobs are running and paid. "
                "Clear the task when the cause is gone: it reattaches to them and attempts what failed.",
            )

    def _wait(self) -> Wait | None:
        state, now = self.state, time.time()
        if not self._more and not state.in_flight:
            return None
        affordable = self._affordable != 0
        if self._more and not state.in_flight and not affordable:
            raise IdeogramDatasetStopped(
                f"max_cost_usd={self.max_cost_usd} is reached: {state.cost_usd:.2f} USD were charged for {state.done} "
                f"of {state.total} items. What is stored stays; clear the task with a higher limit to go on from there."
            )
        jobs = [flight.job for flight in state.in_flight if flight.job.request_id not in self._recheck_ids]
        deadlines = [deadline_of(job.submitted_at, self.timeout) for job in jobs]
        min_settled = None
        if self._recheck_ids:
            deadlines.append(now + AGAIN_SECONDS)
        if self._more and affordable and not self._storage_blocked:
            if len(state.in_flight) < self.max_in_flight:
                deadlines.append(self._next_submit(now))
            else:
                min_settled = max(1, len(jobs) // 2)  # half the room is worth a slice
        requests = {job.request_id: job.submitted_at for job in jobs}
        not_before = now + MIN_WAIT_SECONDS
        return Wait(requests, not_before, max(min(deadlines), not_before), min_settled)

    def _next_submit(self, now: float) -> float:
        """Return when a slice can submit as much as makes it worth its start."""
        state = self.state
        room = min(self.max_in_flight, state.total - state.done) - len(state.in_flight)
        worth = max(1, min(room, int((state.rate_limiter.rate or 0.0) * SLICE_SECONDS / RATE_WINDOW)))
        ready = state.rate_limiter.ready_at(worth, now) - PACE_SECONDS
        return ready if self._plan_open else max(ready, min(later.at for later in state.delayed))

    def _copy(self, pool: ThreadPoolExecutor) -> list[IdeogramError]:
        """Copy images for the rows with identical inputs, when all images are there."""
        state = self.state
        if state.in_flight or self._more:
            return []
        while state.copied_chunks < state.copies:
            items = [
                Item.from_json(line) for line in self.workspace.read_lines(chunk_name("copy", state.copied_chunks))
            ]
            lines, problems = _gather(pool, self._copied_line, items)
            if problems:
                return problems
            self._write_part(lines)
            state.copied_chunks += 1
        return []

    def _copied_line(self, item: Item) -> dict[str, Any]:
        source, target = (Target(self.output_prefix.bucket, key) for key in (item.copy_of, item.key))
        if source == target:  # rows without ids: the image of the one is the other's
            head = self.store.find(target)
            same = head if head and made_from(head, item.request) else None
            record = ImageRecord.of_object(target, same, item.request) if same else None
        else:
            record = self.store.copy(source, target, item.request)
        if record is None:
            error = f"The row with the same inputs, {item.copy_of}, has no image. Nothing was charged for this one."
            return failed_line(item, ImageStatus.FAILED, error, None, 0.0)
        return stored_line(item, record)


def _what_is_alike(line: Mapping[str, Any]) -> str:
    """Return a line's error without what tells it from another's: its key, its request and all words with digits."""
    error = str(line["error"]).replace(str(line["key"]), "0").replace(str(line["request_id"]), "0")
    return _WITH_DIGITS.sub("…", error)


def _failed(
    flight: InFlightItem, status: ImageStatus, error: IdeogramError, *, is_terminal_failure: bool
) -> ItemResult:
    metrics.failed(error.code)
    return ItemResult(failed_line(flight.item, status, str(error), flight.job.request_id, 0.0), is_terminal_failure)


def _without_job(item: Item, error: IdeogramError) -> dict[str, Any]:
    metrics.failed(error.code)
    return failed_line(item, ImageStatus.FAILED, str(error), getattr(error, "request_id", None), None)


def _put_off(later: DelayedItem, delay: float, error: IdeogramError) -> DelayedItem | dict[str, Any]:
    now = time.time()
    if now + delay > later.since + PATIENCE_SECONDS:
        return _without_job(later.item, error)
    log.info("%s: %s. Tried again in %.0f s", later.item.id, error.reason, delay)
    return DelayedItem(later.item, now + delay, later.since)


def _gather(
    pool: ThreadPoolExecutor, work: Callable[[T], Any], items: Iterable[T]
) -> tuple[list[Any], list[IdeogramError]]:
    """Do the work on all items, and return what came of each, None for those that raised, and what they raised."""
    problems: list[IdeogramError] = []

    def attempt(item: T) -> Any:
        try:
            return work(item)
        except IdeogramError as problem:
            problems.append(problem)
            return None

    return list(pool.map(attempt, items)), problems
