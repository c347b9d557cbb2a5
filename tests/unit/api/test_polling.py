from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import pytest

from airflow_provider_ideogram.api.history import HistoryRow
from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.poll_schedule import JobDurations, default_schedule
from airflow_provider_ideogram.api.polling import (
    MAX_CONSECUTIVE_ERRORS,
    RESULT_LIFETIME,
    Outcome,
    RequestPoll,
    deadline_of,
)
from airflow_provider_ideogram.exceptions import (
    IdeogramAuthenticationError,
    IdeogramContentBlocked,
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramJobError,
    IdeogramJobFailed,
    IdeogramJobUnreachable,
    IdeogramNotFound,
    IdeogramPermissionError,
    IdeogramRateLimited,
    IdeogramResultExpired,
    IdeogramServerUnavailable,
    IdeogramTimeout,
)

ID = "r-1"
RNG = random.Random(7)


def _poll() -> RequestPoll:
    return RequestPoll(ID, submitted_at=1000.0)


def _after(*events: RequestStatus | IdeogramError, now: float = 1012.0) -> RequestPoll:
    poll = _poll()
    for event in events:
        if isinstance(event, RequestStatus):
            poll.on_status(event, now)
        else:
            poll.on_error(event, now)
    return poll


AWAY = IdeogramServerUnavailable("the API is away")
GONE = IdeogramNotFound("HTTP 404")
HOUR_OVER = 1000.0 + RESULT_LIFETIME


@pytest.mark.parametrize("state", ["QUEUED", "PROCESSING", "IN_QUEUE", "SOMETHING NEW"])
def test_any_other_state_means_not_done_yet(state: str) -> None:
    poll = _after(RequestStatus(state))
    assert (poll.outcome, poll.settled, poll.state, poll.polls) == (Outcome.PENDING, False, state, 1)


def test_completed() -> None:
    poll = _after(RequestStatus("QUEUED"), AWAY, RequestStatus("COMPLETED", 13.06))
    assert (poll.outcome, poll.settled) == (Outcome.COMPLETED, True)
    assert (poll.inference_seconds, poll.completed_at, poll.error, poll.polls) == (13.06, 1012.0, None, 3)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [("out of memory", Outcome.FAILED), (None, Outcome.FAILED), ("NSFW content", Outcome.CONTENT_BLOCKED)],
)
def test_failed(error: str | None, outcome: Outcome) -> None:
    poll = _after(RequestStatus("FAILED", None, error))
    assert (poll.outcome, poll.completed_at) == (outcome, None)


@pytest.mark.parametrize("error", [IdeogramAuthenticationError("401"), IdeogramPermissionError("403")])
def test_refused_key_ends_polling_at_once(error: IdeogramError) -> None:
    assert _after(error).outcome is Outcome.REFUSED


def test_not_found_is_the_end_only_when_the_hour_is_over() -> None:
    assert _after(GONE, now=HOUR_OVER).outcome is Outcome.RECORD_GONE
    assert not _after(GONE, now=HOUR_OVER - 1).settled
    assert _after(*[GONE] * MAX_CONSECUTIVE_ERRORS, now=HOUR_OVER - 1).outcome is Outcome.UNREACHABLE


def test_record_is_gone_after_the_hour_only() -> None:
    poll = _after(*[GONE] * MAX_CONSECUTIVE_ERRORS)
    outcomes = []
    for error in (AWAY, GONE):
        poll.on_error(error, HOUR_OVER)
        outcomes.append(poll.outcome)
    assert outcomes == [Outcome.UNREACHABLE, Outcome.RECORD_GONE]


@pytest.mark.parametrize("error", [AWAY, GONE, IdeogramRateLimited("429")])
def test_consecutive_temporary_errors_are_bounded(error: IdeogramError) -> None:
    many = [error] * (MAX_CONSECUTIVE_ERRORS - 1)
    assert not _after(*many).settled
    assert not _after(*many, RequestStatus("QUEUED"), *many).settled
    poll = _after(*many, error)
    assert poll.outcome is Outcome.UNREACHABLE
    assert poll.polls == poll.consecutive_errors == MAX_CONSECUTIVE_ERRORS


@pytest.mark.parametrize("error", [IdeogramInvalidInput("HTTP 302"), IdeogramJobError("what is this")])
def test_permanent_errors_are_final(error: IdeogramError) -> None:
    assert _after(error).outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize(
    ("poll", "expected"),
    [
        (_after(), False),
        (_after(RequestStatus("COMPLETED")), False),
        (_after(IdeogramPermissionError("403")), False),
        (_after(*[GONE] * MAX_CONSECUTIVE_ERRORS), False),
        (_after(GONE, now=HOUR_OVER), False),
        (_after(RequestStatus("FAILED")), True),
        (_after(RequestStatus("FAILED", None, "NSFW")), True),
    ],
)
def test_only_failed_and_expired_requests_are_terminal(poll: RequestPoll, expected: bool) -> None:
    assert poll.is_terminal_failure is expected


def test_delay_follows_the_age_without_errors() -> None:
    assert 8.0 < _poll().delay(1000.0, RNG) < 13.0
    assert 0.6 < _after(AWAY, RequestStatus("QUEUED")).delay(1012.4, RNG) < 0.9
    assert 40.0 <= RequestPoll(ID, 1000.0, poll_interval=50.0).delay(1000.0, RNG) < 60.0


def test_delay_after_errors_backs_off_and_honours_retry_after() -> None:
    assert _after(AWAY).delay(1012.0, RNG) <= 0.5
    assert 4.0 <= _after(*[AWAY] * 5).delay(1012.0, RNG) <= 8.0
    assert 4.0 <= _after(*[GONE] * 5).delay(1012.0, RNG) <= 8.0
    limited = IdeogramRateLimited("429", retry_after=45.0)
    assert 45.25 <= _after(limited).delay(1012.0, RNG) <= 45.5
    assert _after(limited, AWAY).delay(1012.0, RNG) <= 1.0


@pytest.mark.parametrize(
    ("events", "kind", "said"),
    [
        ([RequestStatus("FAILED", None, "oom")], IdeogramJobFailed, "failed at the vendor: oom"),
        ([RequestStatus("FAILED", None, "NSFW")], IdeogramContentBlocked, "was blocked because of its content: NSFW"),
        ([], IdeogramTimeout, "not done in time (last state: unknown)"),
        ([RequestStatus("PROCESSING")], IdeogramTimeout, "not done in time (last state: PROCESSING)"),
        (
            [RequestStatus("PROCESSING"), AWAY],
            IdeogramTimeout,
            "not done in time (last state: PROCESSING; last error: the API is away)",
        ),
        ([GONE], IdeogramTimeout, "last error: HTTP 404, within the hour in which the vendor serves it"),
        ([GONE] * MAX_CONSECUTIVE_ERRORS, IdeogramJobUnreachable, "check the connection's base URL and API key"),
        (
            [IdeogramAuthenticationError("401 no key", "Nothing was charged.")],
            IdeogramJobUnreachable,
            "can't be fetched or stored: 401 no key. The request is charged",
        ),
        ([AWAY] * MAX_CONSECUTIVE_ERRORS, IdeogramJobUnreachable, "can't be fetched or stored: the API is away"),
    ],
)
def test_failure_names_the_request_and_the_money(
    events: list[RequestStatus | IdeogramError], kind: type[IdeogramJobError], said: str
) -> None:
    failure = _after(*events).failure()
    assert type(failure) is kind
    assert failure.request_id == ID
    assert re.search(rf"[Rr]equest {ID}\b", failure.reason)
    assert said in str(failure)
    assert "charged" in failure.advice
    assert failure.charged is (False if isinstance(failure, IdeogramJobFailed) else None)
    assert "Nothing was charged" not in str(failure)
    assert ".." not in str(failure)


def test_expired_request_is_named_and_may_have_been_charged() -> None:
    poll = _after(GONE, now=HOUR_OVER)
    assert type(poll.failure()) is IdeogramJobUnreachable
    poll.outcome = Outcome.EXPIRED
    failure = poll.failure()
    assert type(failure) is IdeogramResultExpired
    assert failure.reason == f"The vendor no longer holds the image of request {ID}"
    assert "submits and pays for a new request" in failure.advice
    assert failure.charged is None


ROW = HistoryRow(ID, DEFAULT_MODEL, {}, 1000.0, "COMPLETED", "https://images.segmind.com/a.png", 0.05)


def test_completed_request_of_the_history_has_image_and_cost() -> None:
    poll = _after(GONE, now=HOUR_OVER)
    poll.on_history(ROW, HOUR_OVER)
    assert (poll.outcome, poll.image_url, poll.cost_usd) == (Outcome.COMPLETED, ROW.image_url, 0.05)


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (replace(ROW, state="PENDING", image_url=None), Outcome.PENDING),
        (replace(ROW, image_url=None), Outcome.PENDING),
        (replace(ROW, state="FAILED", error="oom"), Outcome.FAILED),
        (replace(ROW, state="FAILED", error="NSFW"), Outcome.CONTENT_BLOCKED),
    ],
)
def test_other_states_of_the_history(row: HistoryRow, outcome: Outcome) -> None:
    poll = _after(GONE, now=HOUR_OVER)
    poll.on_history(row, HOUR_OVER)
    assert poll.outcome is outcome


@pytest.mark.parametrize(
    ("inference_seconds", "age", "refused"),
    [(0.1, 11.0, True), (8.0, 11.0, False), (None, 0.5, False), (None, 11.0, False)],
)
def test_failure_within_a_second_reads_as_refused_parameters(
    inference_seconds: float | None, age: float, refused: bool
) -> None:
    poll = _poll()
    poll.on_status(RequestStatus("FAILED", inference_seconds, "bad seed"), poll.submitted_at + age)
    assert ("refused its parameters: bad seed" in str(poll.failure())) is refused


@pytest.mark.parametrize(
    "events",
    [
        [],
        [RequestStatus("PROCESSING")],
        [RequestStatus("COMPLETED", 13.0)],
        [RequestStatus("FAILED", None, "NSFW")],
        [AWAY] * MAX_CONSECUTIVE_ERRORS,
    ],
)
def test_report_has_all_that_a_resumed_task_needs(events: list[RequestStatus | IdeogramError]) -> None:
    poll, resumed = _after(*events), _poll()
    report = json.loads(json.dumps(poll.report()))
    resumed.take_report(report)
    assert resumed.report() == report
    assert resumed.outcome is poll.outcome
    if poll.outcome is not Outcome.COMPLETED:
        assert str(resumed.failure()) == str(poll.failure())


def test_waiting_ends_at_the_timeout() -> None:
    assert deadline_of(1000.0, 600) == 1600.0


def test_observed_durations_decide_the_next_poll() -> None:
    durations = JobDurations()
    for _ in range(10):
        RequestPoll(ID, 1000.0, model="fast", durations=durations).on_status(RequestStatus("COMPLETED", 3.0), 1010.0)
    assert 2.0 < RequestPoll(ID, 1000.0, model="fast", durations=durations).delay(1000.0, RNG) < 4.0
    assert RequestPoll(ID, 1000.0, model="other", durations=durations).delay(1000.0, RNG) > 10.0
    assert RequestPoll(ID, 1000.0, 20.0, "fast", durations).delay(1000.0, RNG) >= 20.0


def test_time_in_the_vendors_queue_counts() -> None:
    durations = JobDurations()
    for _ in range(10):
        poll = RequestPoll(ID, 1000.0, durations=durations)
        poll.on_status(RequestStatus("QUEUED"), 1040.0)
        poll.on_status(RequestStatus("COMPLETED", 12.4), 1041.0)
    assert RequestPoll(ID, 1000.0, durations=durations).delay(1000.0, RNG) > 39.0


def test_job_without_a_duration_is_not_observed() -> None:
    durations = JobDurations()
    for _ in range(10):
        RequestPoll(ID, 1000.0, durations=durations).on_status(RequestStatus("COMPLETED"), 1100.0)
    assert durations.schedule(DEFAULT_MODEL) == default_schedule()
