"""
The account's request history, newest first.

It contains all requests, also those whose record has expired. A row can appear later than its request was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.jobs import Job

#: The vendor serves this path on another host than the API; the emulator serves both on one port.
HISTORY_PATH = "/inference-request/request-history"

MAX_PER_PAGE = 100
_DEFAULT_DAYS = 7
_MAX_DAYS = 31
_STATUSES = ("COMPLETED", "FAILED", "PENDING")
_SORTS: dict[str, Callable[[Job], Any]] = {
    "model_created": lambda job: job.submitted_at,
    "model_name": lambda job: job.model,
    "credits_deduction": lambda job: job.cost,
}


def page_of_history(
    jobs: Iterable[Job], query: Mapping[str, str], now: float, image_url: Callable[[Job], str]
) -> dict[str, Any]:
    """
    Return a page of the history.

    :param jobs: The jobs that are visible in the history.
    :param query: The query as sent: ``page``, ``per_page``, ``from_date``, ``to_date``, ``model_name``, ``status``,
        ``sort_by``, ``sort_order``.
    :param now: The current time in seconds since the epoch.
    :param image_url: Returns the URL of a job's image.
    :raises ApiError: 400, if the query is not valid.
    """
    page = _integer(query, "page", 1, 1_000_000)
    per_page = _integer(query, "per_page", 20, MAX_PER_PAGE)
    first, last = _window(query, now)
    status = _choice(query, "status", ("", *_STATUSES))
    sort_key = _SORTS[_choice(query, "sort_by", tuple(_SORTS))]
    newest_first = _choice(query, "sort_order", ("desc", "asc")) == "desc"
    model = query.get("model_name", "")
    found = sorted(
        (
            job
            for job in jobs
            if first <= _day(job.submitted_at) <= last
            and model in job.model
            and status in ("", _history_status(job, now))
        ),
        key=sort_key,
        reverse=newest_first,
    )
    rows = [history_row(job, now, image_url) for job in found[(page - 1) * per_page : page * per_page]]
    return {"data": rows, "total": len(found), "page": page, "per_page": per_page}


def history_row(job: Job, now: float, image_url: Callable[[Job], str]) -> dict[str, Any]:
    """Return the history row of a job."""
    status = _history_status(job, now)
    done = status != "PENDING"
    return {
        "request_id": job.request_id,
        "model_name": job.model,
        "model_status": status,
        "request_body": job.inputs,
        "generation_url": image_url(job) if status == "COMPLETED" else None,
        "credits_deduction": job.cost,
        "latency_ms": round((job.done_at - job.submitted_at) * 1000) if done else None,
        "model_created": _timestamp(job.submitted_at),
        "model_updated": _timestamp(job.done_at if done else job.submitted_at),
        "error": job.outcome.error if done else None,
    }


def _history_status(job: Job, now: float) -> str:
    state = job.state(now)
    return state if state in _STATUSES else "PENDING"


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
