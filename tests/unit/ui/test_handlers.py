from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any
from uuid import uuid4

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.team import Team
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from airflow_provider_ideogram.ui import downloads, files, review_api
from airflow_provider_ideogram.ui.app import _account, _dag, show_accounts, show_dags
from airflow_provider_ideogram.ui.handlers import with_readable_xcoms
from tests.unit.ui.conftest import AuthManager, Database, User

ROUTES = [
    route
    for router in (_dag, _account, downloads.router, files.router, review_api.router)
    for route in router.routes
    if isinstance(route, APIRoute)
]


@pytest.mark.parametrize(
    "handler",
    dict.fromkeys((show_dags, show_accounts, *(route.endpoint for route in ROUTES))),
    ids=lambda handler: handler.__name__,
)
def test_annotations_are_resolved_for_older_fastapi(handler: object) -> None:
    parameters = signature(handler).parameters.values()  # type: ignore[arg-type]
    assert [one.name for one in parameters if isinstance(one.annotation, str)] == []


@pytest.mark.usefixtures("database")
class TestWithReadableXcoms:
    def test_auth_manager_is_asked_once_if_all_may_be_read(
        self, auth_manager: AuthManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        ask = auth_manager.batch_is_authorized_dag

        def count(requests: Sequence[Mapping[str, Any]], *, user: str) -> bool:
            asked.append(len(requests))
            return ask(requests, user=user)

        monkeypatch.setattr(auth_manager, "batch_is_authorized_dag", count)
        assert with_readable_xcoms(User("alice"), ["cats", "dogs"]) == {"cats", "dogs"}
        assert asked == [4]
        assert with_readable_xcoms(User("guest"), ["cats", "dogs"]) == {"cats"}
        assert asked == [4, 4, 2, 2]
        assert with_readable_xcoms(User("alice"), []) == set()
        assert len(asked) == 4

    def test_dag_of_a_team_is_asked_for_with_its_team(
        self, database: Database, auth_manager: AuthManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teams: dict[str, str | None] = {}

        def note(requests: Sequence[Mapping[str, Any]], *, user: str) -> bool:
            teams.update({request["details"].id: request["details"].team_name for request in requests})
            return True

        monkeypatch.setattr(auth_manager, "batch_is_authorized_dag", note)
        with Session(database.engine) as session:
            bundle = DagBundleModel(name="bundle")
            # In Airflow 3.1 a team has an id of its own.
            bundle.teams = [Team(name="studio", **({"id": uuid4()} if hasattr(Team, "id") else {}))]
            session.add_all([bundle, DagModel(dag_id="cats", bundle_name="bundle")])
            session.commit()
            try:
                with_readable_xcoms(User("alice"), ["cats", "dogs"])
            finally:
                session.query(DagModel).delete()
                session.delete(bundle)
                session.query(Team).delete()
                session.commit()
        assert teams == {"cats": "studio", "dogs": None}
