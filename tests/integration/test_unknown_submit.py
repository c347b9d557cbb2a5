"""A submit without a response: the account's history decides, then the user, and nothing is paid twice unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_ideogram.exceptions import IdeogramUnknownSubmit
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG
from tests.support.world import DAY, HOUR, KEY, MINUTE, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World


class TestHistory:
    def test_that_shows_the_request_leads_to_it(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("submit", "reset", when="after")

        assert_succeeded(world.run(image_task()))

        assert (world.accepted, world.submits) == (1, 1)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_that_is_late_is_waited_for_in_the_triggerer(
        self, deferrable: bool, image_task: ImageTask, world: World
    ) -> None:
        world.emulator.configure(history_lag_seconds=50)
        world.emulator.fault("submit", "error", status=504, when="after")
        run = image_task(deferrable=deferrable)

        waiting = run.execute()

        assert waiting.state == "deferred"
        assert run.deferral is not None
        assert (run.deferral["next_method"], run.deferral["trigger_kwargs"]["requests"]) == ("submit_again", {})
        assert_succeeded(world.to_end(run, waiting))
        assert (world.accepted, world.submits) == (1, 1)
        assert run.xcom()["cost_usd"] == 0.05

    def test_that_shows_a_teammates_request_does_not_count(self, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("submit", "reset", when="before")
        run = image_task(seed=7, retries=1)
        waiting = run.execute()
        inputs = {
            "prompt": "a lighthouse",
            "magic_prompt_option": "AUTO",
            "resolution": "RESOLUTION_1024_1024",
            "style_type": "GENERAL",
            "seed": 7,
        }
        world.emulator.add_teammate_request(inputs)

        result = world.to_end(run, waiting)

        assert isinstance(result.error, IdeogramUnknownSubmit)
        assert "accepted as request" not in run.log_text
        assert_succeeded(world.to_end(run, run.clear()))
        assert [request.inputs for request in world.emulator.requests()] == [inputs]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "fault", [{"kind": "reset"}, {"kind": "error", "status": 504}, {"kind": "error", "status": 524}], ids=str
)
def test_unknown_submit_waits_for_a_person(
    fault: dict[str, Any], when: str, image_task: ImageTask, world: World
) -> None:
    world.emulator.configure(history_lag_seconds=10 * DAY)
    world.emulator.fault("submit", when=when, **fault)
    run = image_task(retries=3)

    result = world.run(run)
    for _ in range(3):
        assert isinstance(result.error, IdeogramUnknownSubmit)
        assert_error(result, "may have been accepted", "may be hours late", "Clear the task")
        result = run.retry()

    assert result.state == "failed"
    assert (world.accepted, world.submits) == (int(when == "after"), 1)


@pytest.mark.parametrize("accepted", [True, False])
def test_clear_permits_a_new_request(accepted: bool, image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=10 * HOUR)
    world.emulator.fault("submit", "reset", when="after" if accepted else "before")
    run = image_task(retries=0)
    failed = world.run(run)
    assert failed.state == "failed"
    assert isinstance(failed.error, IdeogramUnknownSubmit)

    assert_succeeded(world.to_end(run, run.clear()))

    assert world.accepted == 1 + accepted
    assert "A person cleared the task: a new request is submitted" in run.log_text
    assert world.object_keys() == [KEY]


def test_clear_submits_nothing_if_the_history_shows_it_then(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=HISTORY_LAG + MINUTE)
    world.emulator.fault("submit", "reset", when="after")
    run = image_task(retries=0)
    assert world.run(run).state == "failed"
    world.pass_time(2 * MINUTE)

    assert_succeeded(world.to_end(run, run.clear()))

    assert world.accepted == 1
    assert run.xcom()["cost_usd"] == 0.05


def test_resubmit_needs_no_person(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(history_lag_seconds=10 * HOUR)
    world.emulator.fault("submit", "reset", when="after")
    run = image_task(on_unknown_submit="resubmit")

    assert_succeeded(world.run(run))

    first, second = world.emulator.requests()
    assert first.inputs == second.inputs
    assert world.submits == 2


def test_refused_submit_is_not_unknown_without_delete_rights(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "_delete", mock.Mock(side_effect=RuntimeError("AccessDenied")))
    world.emulator.fault("submit", "credits_406")
    run = image_task(retries=1)
    assert run.execute().state == "failed"
    world.pass_time(HISTORY_LAG)

    assert_succeeded(world.to_end(run, run.retry()))

    assert world.accepted == 1
