"""
The gallery's web application, which Airflow's API server mounts.

Invariant: Airflow authorises every address below ``/dags/{dag_id}`` as the user, for that DAG, and below
``/account/{connection_id}`` for that connection, before anything is read. Pages of several DAGs read the XComs of those
alone whose own addresses the user may open.
An image is addressed by DAG, run, task, map index and row, never by its key. Text from prompts, XComs and manifests is
escaped, and no page may run or load anything but the files of ``static``. All that blocks runs in the gallery's own
threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache, wraps
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi import Query as QueryParam
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import HTMLResponse, Response

from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.ui import downloads, files, review_api
from airflow_provider_ideogram.ui.account import (
    DAYS,
    MAX_SHOWN,
    connections,
    dags_in_doubt,
    read_account,
    waiting_tasks,
)
from airflow_provider_ideogram.ui.again import call_again
from airflow_provider_ideogram.ui.compare import MOST, differences
from airflow_provider_ideogram.ui.costs import costs
from airflow_provider_ideogram.ui.gate import Gate, busy
from airflow_provider_ideogram.ui.handlers import (
    METHODS,
    InPlace,
    dag_router,
    in_thread,
    reader_of,
    with_readable_xcoms,
)
from airflow_provider_ideogram.ui.items import NO_ROW, console_address, find_item, find_named
from airflow_provider_ideogram.ui.leftovers import leftovers
from airflow_provider_ideogram.ui.pages import PAGE_SIZE, read_neighbours, read_page
from airflow_provider_ideogram.ui.places import Place
from airflow_provider_ideogram.ui.query import DECISIONS, ORDERS, STATUSES, STYLES, Query, query_of
from airflow_provider_ideogram.ui.rendering import address, render
from airflow_provider_ideogram.ui.review_api import may_decide
from airflow_provider_ideogram.ui.reviews import own_review
from airflow_provider_ideogram.ui.runs import Scope, dags_with_images, find_run, recent_runs
from airflow_provider_ideogram.ui.work import Busy

log = logging.getLogger(__name__)

_HERE = FilePath(__file__).parent
#: The DAGs of a page, and the results of each that are summed up there.
_DAGS_PER_PAGE, _RESULTS_PER_DAG = 24, 500
_RUNS_PER_PAGE = 10
_PREVIEWS = 6
#: Says in an image's address that its neighbours are those of its task.
_OF_TASK = "task"
_ERRORS = {
    401: "Log in to Airflow to see the images.",
    403: "You may not see what this page shows.",
    404: "This page does not exist. The run may have been deleted, or its task started again.",
    422: "The address is not valid.",
    500: "The API server's log has the error.",
}

_dag = dag_router()
_account = APIRouter(
    prefix="/account/{connection_id}",
    dependencies=[Depends(requires_access_connection(method="GET"))],
)
Position = Annotated[int | None, QueryParam(ge=0, le=10**11)]
PageNumber = Annotated[int, QueryParam(ge=1, le=10**9)]
Asked = Annotated[Query, Depends(query_of)]


@cache
def gallery_app() -> Gate:
    """Return the application, made once."""
    app = FastAPI(title="Ideogram images", openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.add_api_route("/", show_dags, methods=METHODS, response_class=HTMLResponse)
    app.add_api_route("/account", show_accounts, methods=METHODS, response_class=HTMLResponse)
    app.include_router(_account)
    app.include_router(_dag)
    app.include_router(files.router)
    app.include_router(review_api.router)
    app.include_router(downloads.router)
    for error in (StarletteHTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _show_error)
    app.add_exception_handler(Busy, lambda _request, _error: busy())
    return Gate(app)


def _or_leftovers(handler: Callable[..., Response]) -> Callable[..., Response]:
    """Let a page whose run or image is not there lead on to the images that are."""

    @wraps(handler)
    def handle(**arguments: Any) -> Response:
        try:
            return handler(**arguments)
        except HTTPException as error:
            if error.status_code != HTTPStatus.NOT_FOUND:
                raise
        place = arguments["dag_id"], arguments["run_id"], arguments.get("task_id")
        with create_session(scoped=False) as session:
            left = leftovers(session, *place)
        named = dict(zip(("dag_id", "run_id", "task_id"), place, strict=True))
        return _page(arguments["request"], "missing.html", HTTPStatus.NOT_FOUND, left=left, **named)

    return handle


@in_thread
def show_dags(request: Request, user: GetUserDep, page: PageNumber = 1) -> Response:
    """List the DAGs with images that the user may read, each with what its images cost."""
    first = (page - 1) * _DAGS_PER_PAGE
    with create_session(scoped=False) as session:
        dags = dags_with_images(session)
    permitted = get_auth_manager().get_authorized_dag_ids(user=user, method="GET") if dags else set()
    permitted = with_readable_xcoms(user, [dag_id for dag_id, _ in dags if dag_id in permitted])
    readable = [dag for dag in dags if dag[0] in permitted]
    with create_session(scoped=False) as session:
        shown = [
            (dag_id, moment, costs(session, dag_id, None, limit=_RESULTS_PER_DAG).total)
            for dag_id, moment in readable[first : first + _DAGS_PER_PAGE]
        ]
    more = len(readable) > first + _DAGS_PER_PAGE
    return _page(request, "dags.html", dags=shown, number=page, more=more)


@in_thread
def show_accounts(request: Request, user: GetUserDep) -> Response:
    """List the connections of type ideogram that the user may read."""
    with create_session(scoped=False) as session:
        known = {*connections(session), IdeogramHook.default_conn_name}
    manager = get_auth_manager()
    permitted = [
        conn_id
        for conn_id in sorted(known)
        if manager.is_authorized_connection(method="GET", details=ConnectionDetails(conn_id=conn_id), user=user)
    ]
    return _page(request, "accounts.html", conn_ids=permitted)


@_account.api_route("", methods=METHODS)
@in_thread
def show_account(request: Request, connection_id: str, user: GetUserDep) -> Response:
    """Show the credits, the spend, the budgets, the rate and the queue of a connection, and what waits for a person."""
    permitted, now = get_auth_manager().get_authorized_dag_ids(user=user, method="GET"), time.time()
    page = read_account(reader_of(request), connection_id, permitted, now)
    if page is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    with create_session(scoped=False) as session:
        in_doubt = dags_in_doubt(session, permitted, now)
    in_doubt = with_readable_xcoms(user, in_doubt)
    with create_session(scoped=False) as session:
        page.waiting = waiting_tasks(session, in_doubt, now)
    return _page(request, "account.html", page=page, now=now, days=DAYS, most=MAX_SHOWN)


@_dag.api_route("", methods=METHODS)
@_dag.api_route("/tasks/{task_id}", methods=METHODS)
@in_thread
def show_runs(request: Request, dag_id: str, task_id: str | None = None, page: PageNumber = 1) -> Response:
    """List a DAG's recent runs, each with its first images."""
    offset = (page - 1) * _RUNS_PER_PAGE
    with create_session(scoped=False) as session:
        runs = recent_runs(session, dag_id, offset, _RUNS_PER_PAGE + 1)
        cost = costs(session, dag_id, task_id)
    reader = reader_of(request)
    shown = [
        (run, read_page(reader, Scope(dag_id, run.run_id, task_id), limit=_PREVIEWS)) for run in runs[:_RUNS_PER_PAGE]
    ]
    more = len(runs) > _RUNS_PER_PAGE
    return _page(request, "runs.html", dag_id=dag_id, task_id=task_id, runs=shown, cost=cost, number=page, more=more)


@_dag.api_route("/runs/{run_id}", methods=METHODS)
@_dag.api_route("/runs/{run_id}/tasks/{task_id}", methods=METHODS)
@in_thread
@_or_leftovers
def show_run(
    request: Request,
    dag_id: str,
    run_id: str,
    query: Asked,
    task_id: str | None = None,
    map_index: str | None = None,
    page: PageNumber = 1,
    *,
    user: GetUserDep,
) -> Response:
    """Show a page of what a query finds among the images of a run, of a task in it, or of a task instance."""
    with create_session(scoped=False) as session:
        run = find_run(session, dag_id, run_id)
        cost = costs(session, dag_id, task_id, run_id)
    if run is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    # Airflow's UI sends the placeholder ``{MAP_INDEX}`` for a task that is not mapped.
    place = None if map_index is None else Place.parse(map_index)
    scope, first = Scope(dag_id, run_id, task_id, place), (page - 1) * PAGE_SIZE
    content = read_page(reader_of(request), scope, first, query=query, with_reviews=True)
    return _page(
        request,
        "run.html",
        dag_id=dag_id,
        run=run,
        task_id=task_id,
        map_index=None if place is None else map_index,
        cost=cost.total if place is None else None,
        content=content,
        review=own_review(content.reviews, task_id, place),
        may_decide=bool(content.reviews) and may_decide(request, user),
        query=query,
        choices={
            "status": STATUSES,
            "style": STYLES,
            "sort": ORDERS,
            "decision": DECISIONS if content.reviews else (),
        },
        first=first,
        # The images of a single task instance have no position among those of the run or the task.
        of=_OF_TASK if task_id else None,
        has_positions=place is None,
        number=page,
        pages=max(-(-content.found // PAGE_SIZE), 1),
    )


@_dag.api_route("/runs/{run_id}/compare", methods=METHODS)
@in_thread
@_or_leftovers
def compare_images(
    request: Request,
    dag_id: str,
    run_id: str,
    query: Asked,
    image: Annotated[list[str], QueryParam(max_length=PAGE_SIZE)],
    task_id: str | None = None,
    page: PageNumber = 1,
) -> Response:
    """
    Show images side by side.

    :param image: Their names, see :mod:`airflow_provider_ideogram.ui.compare`.
    :param query: With ``task_id`` and ``page``, where they were selected.
    """
    reader = reader_of(request)
    items = [find_named(reader, dag_id, run_id, name) for name in image[:MOST]]
    first = items[0]
    root = request.scope.get("root_path", "")
    parts = ("dags", dag_id, "runs", run_id, *(("tasks", task_id) if task_id else ()))
    return _page(
        request,
        "compare.html",
        dag_id=dag_id,
        run_id=run_id,
        items=items,
        facts=differences(items),
        problem=None if 2 <= len(image) <= MOST else f"Select two to four images; {len(image)} are selected.",
        back=f"{address(root, *parts, page=page, **query.parameters)}#image-{first.instance.label}-{first.row or ''}",
    )


@_dag.api_route("/runs/{run_id}/tasks/{task_id}/images/{map_index}/{row}", methods=METHODS)
@in_thread
@_or_leftovers
def show_image(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    place: InPlace,
    row: str,
    query: Asked,
    at: Position = None,
    of: str | None = None,
) -> Response:
    """
    Show an image with its facts, its neighbours, and the call that generates it again.

    :param at: Its position among the images that the user looks at.
    :param of: Whose images they are: ``task``, otherwise the run's.
    """
    reader = reader_of(request)
    item = find_item(reader, Scope(dag_id, run_id, task_id, place), row)
    listed = Scope(dag_id, run_id, task_id if of == _OF_TASK else None)
    near = (None, None) if at is None else read_neighbours(reader, listed, item, at, query)
    call = call_again(item.facts) if item.is_accepted else None
    return _page(
        request,
        "image.html",
        dag_id=dag_id,
        run_id=run_id,
        item=item,
        call=call,
        console=console_address(reader, item),
        near=near,
        query=query,
        at=at,
        of=_OF_TASK if listed.task_id else None,
        list_page=(at or 0) // PAGE_SIZE + 1,
    )


def _page(request: Request, template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    # The mounted application's path, with the prefix that a proxy adds to Airflow's.
    root = request.scope.get("root_path", "")
    return HTMLResponse(render(template, root=root, no_row=NO_ROW, **values), status)


def _show_error(request: Request, error: Exception) -> Response:
    status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
    headers: dict[str, str] = {}
    message = None
    if isinstance(error, RequestValidationError):
        is_in_path = any(one["loc"][0] == "path" for one in error.errors())
        status = HTTPStatus.NOT_FOUND if is_in_path else HTTPStatus.UNPROCESSABLE_ENTITY
    elif isinstance(error, StarletteHTTPException):
        status, message = error.status_code, error.detail
        headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        # Static files of older versions of Starlette do not say what is allowed.
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "GET, HEAD").split(", ")))
    values = {"title": HTTPStatus(status).phrase, "message": _ERRORS.get(status) or message}
    response = _page(request, "error.html", status, **values)
    response.headers.update(headers)
    return response
