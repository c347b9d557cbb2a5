from __future__ import annotations

from inspect import signature

import pytest
from fastapi.routing import APIRoute

from airflow_provider_ideogram.ui import downloads, files, review_api
from airflow_provider_ideogram.ui.app import _account, _dag, show_accounts, show_dags

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
