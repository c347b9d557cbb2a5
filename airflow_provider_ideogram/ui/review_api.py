"""
The addresses at which the gallery's script reads and changes a review.

Invariant: a decision is taken only from a user who may change the DAG's task instances, from a page of the same origin,
and is in Airflow's audit log. An answer of 200 means that the decisions are stored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.log import Log
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from botocore.exceptions import ClientError
from fastapi import Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramStorageError, IdeogramStorageRefused
from airflow_provider_ideogram.reviews.review import MAX_NOTE, Decision, DecisionRefused, Entry, Review, ReviewClosed
from airflow_provider_ideogram.reviews.store import ReviewStore
from airflow_provider_ideogram.ui.handlers import METHODS, InPlace, dag_router, in_thread, reader_of
from airflow_provider_ideogram.ui.objects import Reader, why_not_read
from airflow_provider_ideogram.ui.records import Instance
from airflow_provider_ideogram.ui.reviews import checked, store_of
from airflow_provider_ideogram.ui.runs import Scope, instances
from airflow_provider_ideogram.ui.work import LimitReached

log = logging.getLogger(__name__)

#: The event in Airflow's audit log.
EVENT = "ideogram_review"
#: Decisions in one request; the script sends what was decided while the request before was running.
MAX_DECISIONS = 50
_HEADER = "X-Ideogram-Review"
_CLOSED = "The review has ended, so the decision does not count. Clear its task to open it again."
_may_decide = requires_access_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE)
router = dag_router()


class OneDecision(BaseModel):
    """
    A decision as the script sends it.

    :param image: The id of the image's request.
    :param decision: None to undo the last one.
    """

    image: str = Field(max_length=200)
    decision: Decision | None
    note: str | None = Field(None, max_length=MAX_NOTE)


class Decided(BaseModel):
    """
    What the script sends.

    :param since: The number of decisions that it knows.
    :param finish: Whether the review ends, though images may be undecided.
    """

    decisions: list[OneDecision] = Field(max_length=MAX_DECISIONS)
    since: int = Field(0, ge=0)
    finish: bool = False


def may_decide(request: Request, user: Any) -> bool:
    """Return whether a user may change the task instances of the DAG that the address names."""
    try:
        _may_decide(request, user)
    except HTTPException as error:
        if error.status_code != HTTPStatus.FORBIDDEN:
            raise
        return False
    return True


def is_same_origin(request: Request) -> None:
    """Refuse a request that another site's page may have made; no such page can send the header without being asked."""
    headers = request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    own_hosts = {headers.get("Host"), urlsplit(conf.get("api", "base_url", fallback="") or "").netloc} - {""}
    is_foreign = site != "same-origin" if site else origin is not None and urlsplit(origin).netloc not in own_hosts
    is_json = headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"
    if is_foreign or not is_json or _HEADER not in headers:
        raise HTTPException(HTTPStatus.FORBIDDEN, "Decisions are taken from the gallery's own pages only.")


@router.api_route("/runs/{run_id}/tasks/{task_id}/review/{map_index}", methods=METHODS)
@in_thread
def read_review(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    place: InPlace,
    since: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Return the numbers of a review, and what was decided since."""
    try:
        instance, store = _find(reader_of(request), Scope(dag_id, run_id, task_id, place))
        return _state(checked(store.read(), instance), since)
    except (IdeogramError, LimitReached) as error:
        return _problem(error)


@router.post(
    "/runs/{run_id}/tasks/{task_id}/review/{map_index}/decisions",
    dependencies=[Depends(is_same_origin), Depends(_may_decide)],
)
@in_thread
def decide(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    place: InPlace,
    body: Decided,
    user: GetUserDep,
) -> Response:
    """Store decisions, and return what was decided since the script asked last."""
    scope = Scope(dag_id, run_id, task_id, place)
    try:
        instance, store = _find(reader_of(request), scope)
        _write_audit_log(scope, user.get_name(), body)
        return _state(_store(store, instance, user.get_name(), body), body.since)
    except ReviewClosed:
        return JSONResponse({"problem": _CLOSED}, HTTPStatus.CONFLICT)
    except DecisionRefused as refusal:
        return JSONResponse({"problem": str(refusal)}, HTTPStatus.UNPROCESSABLE_ENTITY)
    except (IdeogramError, LimitReached) as error:
        return _problem(error, "change")


def _store(store: ReviewStore, instance: Instance, user: str, body: Decided) -> Review:
    """Add the decisions to the review, and return it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    entries = [Entry(one.image, one.decision, one.note or None, user, now) for one in body.decisions]

    def change(found: Review | None) -> Review | None:
        review = checked(found, instance)
        is_new = review.add(entries)
        ends = body.finish and review.finished_by is None
        if ends:
            review.finished_by = user
        return review if is_new or ends else None

    return checked(store.update(change), instance)


def _find(reader: Reader, scope: Scope) -> tuple[Instance, ReviewStore]:
    with create_session(scoped=False) as session:
        found = instances(session, scope, [scope.task_id or ""])
    store = store_of(reader, found[0]) if len(found) == 1 else None
    if store is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return found[0], store


def _write_audit_log(scope: Scope, user: str, body: Decided) -> None:
    """Write what a user sends to Airflow's audit log, before it is stored: each stored decision is there."""
    place = {name: getattr(scope, name) for name in ("dag_id", "run_id", "task_id")}
    if scope.place is not None:
        place["map_index"] = scope.place.map_index
    with create_session(scoped=False) as session:
        session.add(Log(event=EVENT, owner=user, owner_display_name=user, extra=body.model_dump_json(), **place))


def _state(review: Review, since: int) -> Response:
    entries: Sequence[Entry] = review.entries[since:]
    return JSONResponse(
        {
            **review.counts(),
            "known": len(review.entries),
            "finished": review.finished_by is not None,
            "closed": review.closed_at is not None,
            "entries": [asdict(entry) for entry in entries],
        }
    )


def _problem(error: IdeogramError | LimitReached, action: str = "read") -> Response:
    """Return what users are told of an error of S3."""
    text = why_not_read(error, action) if isinstance(error, IdeogramStorageError | LimitReached) else str(error)
    if isinstance(error, IdeogramStorageRefused):
        is_write = isinstance(error.__cause__, ClientError) and error.__cause__.operation_name == "PutObject"
        verb, right = ("write", "s3:PutObject") if is_write else ("read", "s3:GetObject")
        text += (
            f": the API server may not {verb} the review. Its AWS connection needs {right} below "
            "_ideogram/.reviews/, see the page on reviews in the provider's documentation"
        )
    return JSONResponse({"problem": f"{text.rstrip('.')}."}, HTTPStatus.BAD_GATEWAY)
