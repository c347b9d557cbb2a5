"""
The account's request history, newest first.

It contains requests of any age, FAILED ones included, and in the list also those of teammates. A COMPLETED request has
one row per output, each with the request's full cost. A row can appear later than its request was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.jobs import OWN_USER, TEAMMATE, Job

#: Returns the URL of an output of a job, by its number.
OutputUrl: TypeAlias = Callable[[Job, int], str]

#: The vendor serves this path on another host than the API; the emulator serves both on one port.
HISTORY_PATH = "/inference-request/request-history"
GENERATIONS_PATH = "/inference-request/generations"

MAX_PER_PAGE = 100
_PER_PAGE = 20
_DEFAULT_DAYS = 7
_MAX_DAYS = 31
_PENDING = "PENDING"
_STATUSES = ("COMPLETED", "FAILED", _PENDING)
_SORTS: dict[str, Callable[[Job, float], Any]] = {
    "model_created": lambda job, _: job.submitted_at,
    "model_name": lambda job, _: job.model,
    "credits_deduction": lambda job, now: job.cost(now),
}
#: The values of ``user_id`` and ``user_email`` that the emulator knows, and the user.
_USERS = {name: user for user in (OWN_USER, TEAMMATE) for name in (user, f"{user}@example.com")}


def page_of_history(jobs: Iterable[Job], query: Mapping[str, str], now: float, output_url: OutputUrl) -> dict[str, Any]:
    """
    Return a page of the history.

    :param jobs: The jobs that are visible in the history.
    :param query: The query as sent: ``page``, ``per_page``, ``from_date``, ``to_date``, ``model_name``, ``status``,
        ``user_id``, ``user_email``, ``sort_by``, ``sort_order``.
    :param now: The current time in seconds since the epoch.
    :param output_url: Returns the URL of an output.
    :raises ApiError: 400, if the query is not valid.
    """
    page = _integer(query, "page", 1, 1_000_000)
    per_page = _integer(query, "per_page", _PER_PAGE, MAX_PER_PAGE)
    first, last = _window(query, now)
    status = _choice(query, "status", ("", *_STATUSES))
    sort_key = _SORTS[_choice(query, "sort_by", tuple(_SORTS))]
    newest_first = _choice(query, "sort_order", ("desc", "asc")) == "desc"
    model = query.get("model_name", "")
    user = query.get("user_id") or query.get("user_email")
    found = sorted(
        (
            job
            for job in jobs
            if first <= _day(job.submitted_at) <= last
            and model in job.model
            and status in ("", _history_status(job, now))
            and (not user or _USERS.get(user) == job.user)
        ),
        key=lambda job: sort_key(job, now),
        reverse=newest_first,
    )
    rows = [history_row(job, now, output_url, output) for job in found for output in range(_row_count(job, now))]
    return {
        "data": rows[(page - 1) * per_page : page * per_page],
        "total": len(rows),
        "page": page,
        "per_page": per_page,
    }


def history_row(job: Job, now: float, output_url: OutputUrl, output: int = 0) -> dict[str, Any]:
    """Return the history row of an output of a job."""
    status = _history_status(job, now)
    done = status != _PENDING
    return {
        "request_id": job.request_id,
        "model_name": job.model,
        "model_status": status,
        "request_body": job.inputs,
        "generation_url": output_url(job, output) if status == "COMPLETED" else None,
        "credits_deduction": job.cost(now) if done else None,
        "latency_ms": round((job.done_at - job.submitted_at) * 1000) if done else None,
        "model_created": _timestamp(job.submitted_at),
        "model_updated": _timestamp(job.done_at if done else job.submitted_at),
        "error": job.outcome.error if done else None,
    }


def page_of_generations(
    jobs: Iterable[Job], query: Mapping[str, str], now: float, output_url: OutputUrl, landed: Callable[[Job], bool]
) -> dict[str, Any]:
    """
    Return a page of the outputs alone; the columns of a request that is not in the history yet are null.

    :param jobs: All jobs, newest first; without ``user_id`` only those of the account are taken.
    :param query: The query as sent: ``page``, ``model_name``, ``start_date``, ``end_date``, ``user_id``.
    :param landed: Returns whether a job is in the history.
    :raises ApiError: 400, if the query is not valid.
    """
    page = _integer(query, "page", 1, 1_000_000)
    first = _date(query, "start_date", date.min)
    last = _date(query, "end_date", _day(now))
    user = _USERS.get(query.get("user_id") or OWN_USER)
    rows = [
        _generation(job, now, output_url(job, output), landed=landed(job))
        for job in jobs
        if job.state(now) == "COMPLETED"
        and job.user == user
        and query.get("model_name", "") in job.model
        and first <= _day(job.submitted_at) <= last
        for output in range(job.outputs)
    ]
    return {"data": rows[(page - 1) * _PER_PAGE : page * _PER_PAGE], "total": len(rows), "page": page}


def _generation(job: Job, now: float, url: str, *, landed: bool) -> dict[str, Any]:
    columns = {
        "status": "COMPLETED",
        "credits_deduction": job.cost(now),
        "latency_ms": round((job.done_at - job.submitted_at) * 1000),
        "prompt": job.prompt,
        "parameters": job.inputs,
    }
    row = {"request_id": job.request_id, "model_name": job.model, "generation_url": url}
    return row | (columns if landed else dict.fromkeys(columns))


def _history_status(job: Job, now: float) -> str:
    state = job.state(now)
    return state if state in _STATUSES else _PENDING


def _row_count(job: Job, now: float) -> int:
    return job.outputs if job.state(now) == "COMPLETED" else 1


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _window(query: Mapping[str, str], now: float) -> tuple[date, date]:
    last = _date(query, "to_date", _day(now))
    first = _date(query, "from_date", last - timedelta(days=_DEFAULT_DAYS))
    if not timedelta(0) <= last - first <= timedelta(days=_MAX_DAYS):
        raise ApiError(400, f"from_date and to_date may span at most {_MAX_DAYS} days")
    return first, last


def _date(query: Mapping[str, str], name: str, default: date) -> date:
    try:
        return datetime.strptime(query[name], "%Y-%m-%d").date() if query.get(name) else default
    except ValueError:
        raise ApiError(400, f"{name}: {query[name]!r} is not a date such as 2026-01-31") from None


def _integer(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise ApiError(400, f"{name}: {text!r} is not an integer within 1..{maximum}")
    return int(text)


def _choice(query: Mapping[str, str], name: str, valid: tuple[str, ...]) -> str:
    """Return a value of the query, by default the first valid one."""
    value = query.get(name) or valid[0]
    if value not in valid:
        raise ApiError(400, f"{name}: {value!r} is not one of {', '.join(filter(None, valid))}")
    return value
