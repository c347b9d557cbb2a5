from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.utils.state import TaskInstanceState
from playwright.sync_api import expect

from tests.browser.gallery_data import APPROVAL, BUCKET, RUN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

#: The state of a task that waits for a person; on older versions it is that of any deferred one.
WAITING = "awaiting_input" if hasattr(TaskInstanceState, "AWAITING_INPUT") else "deferred"


@pytest.mark.parametrize(
    ("answer", "published"), [("Reject", False), pytest.param("Approve", True, marks=pytest.mark.pictures)]
)
def test_a_person_decides_what_is_published(
    answer: str, published: bool, gallery: GalleryWorld, open_page: Open, screenshot: Callable[[Page, str], None]
) -> None:
    cluster, run_id = gallery.cluster, f"run-{answer}"
    cluster.processes.wait_until(
        cluster.components["dag-processor"], lambda: cluster.api.has_dag(APPROVAL), RUN_SECONDS
    )
    cluster.api.trigger_run(APPROVAL, run_id=run_id)

    scheduler = cluster.components["scheduler"]
    ended = f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{APPROVAL}', "
    ended += f"task_id='approve', run_id='{run_id}'"

    def waits() -> bool:
        # Whoever answers before the scheduler has heard of the end of the task's first part makes Airflow take it for
        # failed (apache/airflow#72716); a person is slower.
        is_heard_of = ended in scheduler.log.read_text()
        return is_heard_of and cluster.api.count_task_instances(APPROVAL, run_id, WAITING) == 1

    cluster.processes.wait_until(scheduler, waits, RUN_SECONDS)

    page = open_page(f"{gallery.url}/dags/{APPROVAL}/runs/{run_id}/tasks/approve/required_actions")
    image = page.get_by_role("img", name="A poster for a summer fair")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("image => image.naturalWidth") > 0
    screenshot(page, "approval")
    page.get_by_role("button", name=answer).click()

    state = cluster.api.wait_for_run(APPROVAL, run_id, RUN_SECONDS)
    failed = cluster.api.task_instances(APPROVAL, run_id, "failed")
    assert state == "success", "\n".join(f"{one['task_id']}: {cluster.api.log(one)}" for one in failed)
    listed = gallery.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"published/{run_id}.png")
    assert listed["KeyCount"] == int(published)
