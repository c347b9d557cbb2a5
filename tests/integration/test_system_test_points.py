"""The points at which the system test kills a task's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.airflow_version import need_airflow

need_airflow("3.0", "airflow.sdk")

from tests.system import crashes  # noqa: E402
from tests.system.plan import KILL_POINTS  # noqa: E402

if TYPE_CHECKING:
    import pytest

    from tests.support.world import ImageTask


def test_an_image_passes_all_points(image_task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in crashes.wrapped_functions():
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undone at the end, with what install() does
    for module, constants in crashes.SHORT_WAITS.items():
        for name in constants:
            monkeypatch.setattr(module, name, getattr(module, name))
    passed: set[str] = set()
    monkeypatch.setattr(crashes, "planned", passed.add)
    crashes.install()

    assert image_task().to_end().state == "success"

    assert passed == set(KILL_POINTS)
