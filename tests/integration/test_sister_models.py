"""Images of the vendor's sister models, whose parameters and prices are their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow_version import DagBag

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import ImageTask, World

EXAMPLE = Path(__file__).resolve().parents[2] / "example_dags" / "ideogram_sister_model.py"


@pytest.mark.usefixtures("ideogram_connection")
def test_example_generates_an_image_of_ideogram_3(task_runner: TaskRunner, world: World) -> None:
    task: Any = DagBag(dag_folder=str(EXAMPLE)).dags["ideogram_sister_model"].get_task("generate")
    task.s3_bucket = world.bucket  # in place of the Airflow variable

    run = task_runner(task)

    assert run.to_end().state == "success"
    [request] = world.emulator.requests()
    assert (request.model, request.inputs) == (
        "ideogram-3",
        {
            "prompt": "A red lighthouse in a storm, gouache",
            "resolution": "1024x1024",
            "magic_prompt": "AUTO",
            "seed": 7,
        },
    )
    assert world.stored("sister-model/lighthouse.png") == world.image_of(run)
    assert (run.xcom()["model"], run.xcom()["cost_usd"]) == ("ideogram-3", 0.065)


def test_image_to_image_model_takes_parameters_of_its_own(image_task: ImageTask, world: World) -> None:
    own = {"image_file": "https://example.com/harbour.png", "image_weight": 40}
    run = image_task(model="ideogram-2a-img-2-img", model_params=own, resolution=None)

    assert run.to_end().state == "success"
    [request] = world.emulator.requests()
    assert request.inputs.items() >= own.items()
    assert "resolution" not in request.inputs
    assert run.xcom()["cost_usd"] == 0.05
