"""A connection without limit, budget or account_url: no task reads or writes more in S3 than it did before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.support.s3 import calls_recorded
from tests.support.world import assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import ImageTask, World

KEYS = ("set/a", "set/b", "set/c")


def test_single_image_makes_the_same_calls(image_task: ImageTask, world: World) -> None:
    run = image_task(thumbnails=False)
    with calls_recorded() as calls:
        assert_succeeded(world.to_end(run, run.execute()))
    assert calls == [
        "HeadObject images/lighthouse.png",
        "HeadBucket ",
        "PutObject _ideogram/images/lighthouse.png.json",
        "HeadObject images/lighthouse.png",
        "PutObject _ideogram/images/lighthouse.png.json",
        "PutObject images/lighthouse.png",
        "DeleteObject _ideogram/images/lighthouse.png.json",
    ]


def test_dataset_makes_the_same_calls(task_runner: TaskRunner, ideogram_connection: str, world: World) -> None:
    operator = IdeogramGenerateDatasetOperator(
        task_id="make", prompts=[{"id": name, "prompt": name} for name in "abc"], s3_prefix=world.uri("set/")
    )
    run = task_runner(operator)
    with calls_recorded() as calls:
        assert_succeeded(world.to_end(run, run.execute()))
    assert not any("_account" in call for call in calls)
    of_images = Counter(call.split()[0] for call in calls if call.split()[-1].removesuffix(".json").endswith(KEYS))
    # Of each image: the intent and the request id, the target and the image itself.
    assert of_images == {"PutObject": 9, "HeadObject": 3, "DeleteObject": 3}
