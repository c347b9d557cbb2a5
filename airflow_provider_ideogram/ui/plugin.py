"""
The gallery's registration with Airflow's plugin manager.

Invariant: every Airflow process loads this module, so the application is created only when the API server asks for it.
Below Airflow 3.1 nothing is registered. An application that can't be imported is logged and has no tabs: the API server
starts without it.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_ideogram.links.ideogram import UI_ROUTE, has_gallery
from airflow_provider_ideogram.ui import URL_PREFIX

log = logging.getLogger(__name__)

_RUNS = "dags/{DAG_ID}/runs/{RUN_ID}"
#: The page of each destination. Addresses without a leading slash stay below ``[api] base_url``. The UI does not
#: replace ``{MAP_INDEX}`` for a task that is not mapped.
_VIEWS = {
    "nav": "",
    "dag": "dags/{DAG_ID}",
    "dag_run": _RUNS,
    "task": "dags/{DAG_ID}/tasks/{TASK_ID}",
    "task_instance": f"{_RUNS}/tasks/{{TASK_ID}}?map_index={{MAP_INDEX}}",
}


def _view(destination: str, path: str) -> dict[str, Any]:
    prefix = URL_PREFIX.strip("/")
    # Each view needs its own route; extra links lead to the tab of a task instance.
    route = UI_ROUTE if destination == "task_instance" else f"{UI_ROUTE}-{destination.replace('_', '-')}"
    return {
        "name": "Images",
        "href": f"{prefix}/{path}",
        "destination": destination,
        "url_route": route,
        "icon": f"{prefix}/static/icon-light.svg",
        "icon_dark_mode": f"{prefix}/static/icon-dark.svg",
    } | ({"category": "browse"} if destination == "nav" else {})


#: The page *Image account*, beside *Images*.
_ACCOUNT = {
    **_view("nav", "account"),
    "name": "Image account",
    "url_route": f"{UI_ROUTE}-account",
}


class IdeogramPlugin(AirflowPlugin):
    """The tabs *Images* of DAGs, runs, tasks and instances; the pages *Images* and *Image account* under *Browse*."""

    name = "ideogram"
    external_views = (
        [*(_view(destination, path) for destination, path in _VIEWS.items()), _ACCOUNT] if has_gallery() else []
    )

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The application, created when the API server asks for it."""
        if not has_gallery():
            return []
        try:
            from airflow_provider_ideogram.ui.app import gallery_app

            app = gallery_app()
        except Exception:  # of any import: Airflow has renamed something, or the amazon provider is missing
            log.exception("The gallery of images is not available, since it can't be imported")
            self.external_views = []  # which Airflow reads later
            return []
        return [{"name": "Ideogram images", "app": app, "url_prefix": URL_PREFIX}]
