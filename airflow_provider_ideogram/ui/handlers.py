"""
What the handlers of the gallery share.

Invariant: Airflow authorises every address of a router as the user, for its DAG, before the handler runs. Handlers run
in the gallery's own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from http import HTTPStatus
from inspect import signature
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import Response

from airflow_provider_ideogram.ui.gate import WORK
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.places import Place
from airflow_provider_ideogram.ui.work import Work

METHODS = ["GET", "HEAD"]


def _place(map_index: str) -> Place:
    place = Place.parse(map_index)
    if place is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return place


#: The part ``{map_index}`` of an address.
InPlace = Annotated[Place, Depends(_place)]


def dag_router() -> APIRouter:
    """Return a router of addresses that show something of a DAG: what the API shows of task instances and XComs."""
    return APIRouter(
        prefix="/dags/{dag_id}",
        dependencies=[
            Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE)),
            Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM)),
        ],
    )


def in_thread(handler: Callable[..., Response]) -> Callable[..., Coroutine[Any, Any, Response]]:
    """Let a handler run in one of the gallery's threads; FastAPI passes its arguments by name."""

    @wraps(handler)
    async def handle(**arguments: Any) -> Response:
        return await _work(arguments["request"]).in_thread(handler, **arguments)

    # FastAPI before 0.118, which Airflow 3.1 needs, does not find the names of the handler's annotations.
    handle.__signature__ = signature(handler, eval_str=True)  # type: ignore[attr-defined]
    return handle


def reader_of(request: Request) -> Reader:
    """Return the reader of a request, with its limits."""
    return Reader(_work(request))


def _work(request: Request) -> Work:
    work: Work = request.scope[WORK]
    return work
