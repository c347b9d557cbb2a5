"""What happens to a task whose image can't be fetched, is not an image, or can't be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.hooks import image as image_module
from tests.support.world import KEY, MINUTE, RECORD_KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.world import ImageTask, World


@pytest.mark.parametrize("operation", ["result", "image"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "status": 503},
        {"kind": "error", "status": 429},
        {"kind": "reset"},
        {"kind": "truncated"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_image_is_fetched_again_after_single_errors(
    operation: str, fault: dict[str, Any], image_task: ImageTask, world: World
) -> None:
    world.emulator.fault(operation, times=2, **fault)
    run = image_task(deferrable=False)

    assert_succeeded(run.execute())

    assert world.stored() == world.image_of(run)
    assert world.accepted == 1


@pytest.mark.parametrize("status", [403, 404, 503])
class TestUnavailableImage:
    """A file that is missing within the hour may still appear, and a proxy may answer 403."""

    def test_is_waited_for_in_the_triggerer(self, status: int, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("image", "error", status=status, times=None)
        run = image_task()
        run.execute()
        assert run.resume(run.fire()).state == "deferred"
        world.emulator.clear_faults()
        world.clock.advance(MINUTE)

        assert_succeeded(run.resume(run.fire()))

        assert world.accepted == 1

    def test_is_left_to_a_retry_after_the_deadline(self, status: int, image_task: ImageTask, world: World) -> None:
        world.emulator.fault("image", "error", status=status, times=None)
        run = image_task(retries=1)
        run.execute()
        event = run.fire()
        world.clock.advance(601)

        result = run.resume(event)

        [request] = world.emulator.requests()
        assert result.state == "up_for_retry"
        assert_error(result, request.request_id, f"HTTP {status}", "is not lost", "for an hour")
        assert world.object_keys() == [RECORD_KEY]
        world.emulator.clear_faults()
        assert_succeeded(world.to_end(run, run.retry()))
        assert world.accepted == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "not_image"}, "not a complete image"),
        ({"kind": "redirect", "location": "http://169.254.169.254/latest"}, "169.254.169.254"),
        ({"kind": "redirect", "location": "https://images.example.com/a.png"}, "image_hosts"),
        ({"kind": "redirect", "location": "file:///etc/passwd"}, "file"),
        ({"kind": "oversize", "size": 2_000_000}, "more than 1,000,000 bytes"),
        ({"kind": "endless"}, "more than 1,000,000 bytes"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_anything_but_an_image_is_not_stored(
    fault: dict[str, Any], reason: str, image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_module, "MAX_IMAGE_BYTES", 1_000_000)
    world.emulator.fault("image", times=None, **fault)

    result = image_task().to_end()

    [request] = world.emulator.requests()
    assert result.state == "failed"
    assert_error(result, request.request_id, "is paid", reason, "A retry fetches the image again")
    assert world.object_keys() == [RECORD_KEY]


def test_image_is_stored_once_the_bucket_exists_again(image_task: ImageTask, world: World) -> None:
    run = image_task(durable=False)
    run.execute()
    world.s3.delete_bucket(Bucket=world.bucket)
    assert run.resume(run.fire()).state == "deferred"
    world.s3.create_bucket(Bucket=world.bucket)
    world.clock.advance(MINUTE)

    assert_succeeded(run.resume(run.fire()))

    assert world.accepted == 1
    assert world.object_keys() == [KEY]
