"""
What the handlers of the gallery share.

Invariant: Airflow authorises every address of a router as the user, for its DAG, before the handler runs. A page of
several DAGs shows of each what the router's addresses would show this user. Handlers run in the gallery's own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from functools import wraps
from http import HTTPStatus
from inspect import signature
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.batch_apis import IsAuthorizedDagRequest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import Response

from airflow_provider_ideogram.ui.gate import WORK
from airflow_provider_ideogram.ui.objects import Reader
from airflow_provider_ideogram.ui.places import Place
from airflow_provider_ideogram.ui.work import Work

METHODS = ["GET", "HEAD"]
#: What of a DAG a user must be permitted to read.
_ENTITIES = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)


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
        dependencies=[Depends(requires_access_dag(method="GET", access_entity=entity)) for entity in _ENTITIES],
    )


def with_readable_xcoms(user: Any, dag_ids: Collection[str]) -> set[str]:
    """
    Return those DAGs whose addresses of :func:`dag_router` a user may read.

    An auth manager may ask a server each time: it is asked once for all, and for each DAG only if one is denied.
    """
    if not dag_ids:
        return set()
    teams = _teams(dag_ids)
    requests = {
        dag_id: [
            IsAuthorizedDagRequest(
                method="GET", access_entity=entity, details=DagDetails(id=dag_id, team_name=teams.get(dag_id))
            )
            for entity in _ENTITIES
        ]
        for dag_id in dag_ids
    }
    manager = get_auth_manager()
    if manager.batch_is_authorized_dag([one for of_dag in requests.values() for one in of_dag], user=user):
        return set(requests)
    return {dag_id for dag_id, of_dag in requests.items() if manager.batch_is_authorized_dag(of_dag, user=user)}


def _teams(dag_ids: Collection[str]) -> dict[str, str | None]:
    """Return the teams of DAGs, which Airflow passes to the auth manager with a DAG's id."""
    with create_session(scoped=False) as session:
        if hasattr(DagModel, "get_dag_id_to_team_name_mapping"):
            return DagModel.get_dag_id_to_team_name_mapping(list(dag_ids), session=session)
        return {dag_id: DagModel.get_team_name(dag_id, session=session) for dag_id in dag_ids}  # Airflow 3.1


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
