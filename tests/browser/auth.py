"""Airflow's simple auth manager with a guest who may read every DAG but one."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

GUEST = "guest"
PRIVATE_DAG = "private_images"


class GuestAuthManager(SimpleAuthManager):
    """Identifies users by their tokens only; a request without one is a guest's."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **arguments: Any) -> bool:
        """Refuse the guest one DAG, and all DAGs at once."""
        if user.username == GUEST and (details is None or details.id in (None, PRIVATE_DAG)):
            return False
        allowed: bool = super().is_authorized_dag(user=user, details=details, **arguments)
        return allowed

    def get_fastapi_middlewares(self) -> list[Any]:
        """Leave out the middleware that makes everybody an administrator."""
        return []
