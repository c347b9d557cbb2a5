"""Items without an image: which fail the task, what a retry attempts again, and when a run stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.api import parameters, polling
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


class TestFailures:
    MIXED = (*ROWS[:3], {"id": "bad", "prompt": "x [[fault:blocked]]"}, {"id": "down", "prompt": "y [[fault:failed]]"})

    @pytest.mark.parametrize("retries", [3, 0], ids=["cleared", "cleared with fewer retries"])
    def test_do_not_stop_the_others_and_fail_the_task_in_the_end(
        self, retries: int, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(make(prompts=list(self.MIXED)))

        result = world.to_end(run, run.execute())

        assert result.state == "up_for_retry"
        assert "2 of 5 items have no image" in str(result.error)
        assert run.xcom("progress")["manifest_uri"] == f"s3://{world.bucket}/{PREFIX}manifest.jsonl"
        assert [line["status"] for line in manifest(world)] == [*["generated"] * 3, "content_blocked", "failed"]
        assert "violates the content policy" in manifest(world)[3]["error"]
        assert world.accepted == 5

        result = world.to_end(run, run.retry())  # what failed is paid once more, what was blocked is not

        assert world.accepted == 6
        run.operator.retries = retries
        world.to_end(run, run.clear())
        assert world.accepted == 8

    @pytest.mark.parametrize(
        ("allowed", "state"), [(1, "up_for_retry"), (2, "success"), (0.4, "success"), (0.39, "up_for_retry")]
    )
    def test_may_be_as_many_as_the_user_said(
        self, allowed: float, state: str, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(make(prompts=list(self.MIXED), max_failures=allowed))
        assert world.to_end(run, run.execute()).state == state
        if state == "success":
            assert (run.xcom()["content_blocked"], run.xcom()["failed"], run.xcom()["generated"]) == (1, 1, 3)
            assert run.xcom()["cost_usd"] == 0.15
            assert world.object_keys("_ideogram/") == []

    def test_that_are_all_blocked_are_not_tried_again(self, make: Make, task_runner: TaskRunner, world: World) -> None:
        run = task_runner(make(prompts=list(self.MIXED[:4])))
        result = world.to_end(run, run.execute())
        assert result.state == "failed"
        assert "A retry would end the same" in str(result.error)

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_retry_attempts_only_what_failed(
        self, if_exists: str, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed", prompt="number 3")
        run = task_runner(make(if_exists=if_exists, max_in_flight=2))
        assert world.to_end(run, run.execute()).state == "up_for_retry"

        result = world.to_end(run, run.retry())

        assert result.state == "success", run.log_text
        assert world.accepted == 6
        assert (run.xcom()["generated"], run.xcom()["cost_usd"]) == (5, 0.25)
        assert [line["status"] for line in manifest(world)] == ["generated"] * 5

    def test_invalid_image_is_fetched_again_by_a_retry_for_free(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("image", "not_image", times=8)
        run = task_runner(make(prompts=ROWS[:1]))
        assert world.to_end(run, run.execute()).state == "up_for_retry"
        assert "is not a complete image" in manifest(world)[0]["error"]
        world.emulator.clear_faults()

        xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=1)

        assert (world.accepted, xcom["cost_usd"]) == (1, 0.05)

    def test_job_that_is_not_done_in_time_is_taken_up_by_a_retry(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
        run = task_runner(make(prompts=ROWS[:2]))
        result = run.execute()
        while result.state == "deferred":
            world.pass_time(601)
            result = run.resume(run.fire())
        assert result.state == "up_for_retry"
        assert "was not done in time" in manifest(world)[0]["error"]
        world.pass_time(600)

        xcom = assert_results_agree(world, run, world.to_end(run, run.retry()), total=2)

        assert (world.accepted, xcom["cost_usd"]) == (2, 0.1)

    def test_retry_without_ledger_pays_for_no_unsettled_request(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
        run = task_runner(make(prompts=ROWS[:2], durable=False))
        result = run.execute()
        while result.state == "deferred":
            world.pass_time(601)
            result = run.resume(run.fire())
        assert result.state == "up_for_retry"

        assert world.to_end(run, run.retry()).state == "up_for_retry"

        assert world.accepted == 2
        world.to_end(run, run.clear())
        assert world.accepted == 3

    def test_state_that_is_not_written_ends_a_task_without_ledger(
        self, make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the slice knew its requests: a retry would pay for all of them again."""
        write_state = Workspace.write_state

        def fail_after_submits(workspace: Workspace, state: Any, replaces: str | None) -> str:
            if state["in_flight"]:
                raise IdeogramStorageError("S3 does not respond", "Nothing was charged.")
            return write_state(workspace, state, replaces)

        monkeypatch.setattr(Workspace, "write_state", fail_after_submits)
        run = task_runner(make(prompts=ROWS[:2], durable=False))

        result = run.execute()

        assert (result.state, world.accepted) == ("failed", 2)
        assert "clear the task to submit and pay for a new one" in str(result.error)

    @pytest.mark.parametrize("kind", ["credits_402", "credits_406", "spend_limit", "model_forbidden", "model_retired"])
    def test_of_all_items_stop_before_more_is_paid(
        self, kind: str, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(make(prompts=[f"p {n}" for n in range(30)], max_in_flight=10))
        assert run.execute().state == "deferred"
        world.emulator.fault("submit", kind, times=None)

        result = world.to_end(run, run.resume(run.fire()))

        assert result.state == "failed"
        paid = world.accepted
        world.emulator.clear_faults()
        xcom = assert_results_agree(world, run, world.to_end(run, run.clear()), total=30)
        assert paid < 30
        assert xcom["cost_usd"] == 1.5
        assert world.accepted == 30

    @pytest.mark.parametrize(("late", "count"), [(False, 100), (True, 50)], ids=["406", "failed at once"])
    def test_refused_parameter_fails_its_item_only(
        self, late: bool, count: int, make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(parameters.CHECKS, "style_type", lambda value: value)  # the API alone checks it
        monkeypatch.setattr(polling, "_LATE_VALIDATION_SECONDS", 1.0)
        world.emulator.configure(late_validation=late)
        rows: list[Any] = [f"p {number}" for number in range(count)]
        rows[41] = {"prompt": "p 41", "style_type": "WATERCOLOUR"}
        run = task_runner(make(prompts=rows, max_failures=1))

        assert world.to_end(run, run.execute()).state == "success"

        assert (run.xcom()["generated"], run.xcom()["failed"]) == (count - 1, 1)
        assert len(world.emulator.charges()) == count - 1
        assert run.xcom()["cost_usd"] == pytest.approx(world.charged_usd)
        failed = [line for line in manifest(world) if line["status"] == "failed"]
        assert [(line["row"], line["style_type"], line["cost_usd"]) for line in failed] == [(41, "WATERCOLOUR", 0.0)]
        assert "style_type: 'WATERCOLOUR' is not one of" in failed[0]["error"]
        assert "was not charged" in failed[0]["error"] if late else "Nothing was charged" in failed[0]["error"]

    def test_invalid_record_of_the_ledger_fails_its_item_only(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        record = f"_ideogram/{PREFIX}item-1.json"
        world.put(record, b"not a record")
        run = task_runner(make())

        assert world.to_end(run, run.execute()).state == "up_for_retry"

        statuses = ["generated", "failed", *["generated"] * 3]
        assert [(line["status"], line["cost_usd"]) for line in manifest(world)] == [
            (status, None if status == "failed" else 0.05) for status in statuses
        ]
        assert f"{record} is not valid" in manifest(world)[1]["error"]
        world.s3.delete_object(Bucket=world.bucket, Key=record)
        assert_results_agree(world, run, world.to_end(run, run.retry()))

    def test_that_are_all_alike_stop_before_more_is_paid(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed", times=None)
        prompts = ["p 0 [[slow:8]]", *(f"p {n}" for n in range(1, 60))]
        run = task_runner(make(prompts=prompts, max_in_flight=25, max_failures=1000))

        result = world.to_end(run, run.execute())

        assert result.state == "failed"  # with the last request: one that ended later would not be attempted again
        assert "items failed for the same reason" in str(result.error)
        assert 20 <= world.accepted <= 40
        world.emulator.clear_faults()
        result = world.to_end(run, run.clear())
        assert result.state == "success", run.log_text
        assert run.xcom()["generated"] == 60


def test_run_succeeds_though_its_workspace_cannot_be_deleted(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ObjectStore, bucket: str, keys: list[str], **__: Any) -> None:
        if keys:
            raise IdeogramStorageError(f"Deleting {len(keys)} objects of s3://{bucket} failed")

    monkeypatch.setattr(ObjectStore, "delete_many", refuse)
    run = task_runner(make())

    result = world.to_end(run, run.execute())

    assert result.state == "success"
    assert "The images and the manifest are stored" in result.log_text
    assert len(manifest(world)) == world.accepted == len(ROWS)


def test_lines_of_a_slice_that_died_do_not_contradict_the_counts(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.fault("job", "failed")
    run = task_runner(make())
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    assert world.run(task_runner(make(), run_id="other")).state == "success"  # it stores the missing image
    write = Workspace.write_lines

    def write_and_fail(workspace: Workspace, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        write(workspace, name, values)
        if name.startswith("part-"):
            raise IdeogramStorageError("No response")

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "write_lines", write_and_fail)
        assert "No response" in str(run.retry().error)
    result = world.to_end(run, run.retry())

    assert result.state == "success", result.log_text
    assert_results_agree(world, run, result)
    assert (run.xcom()["reused"], run.xcom()["failed"], world.charged_usd) == (1, 0, 0.05 * len(ROWS))
