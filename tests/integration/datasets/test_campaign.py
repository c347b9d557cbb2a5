"""Rows with several images: variants, a matrix of parameters, and templates of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.datasets.results import PREFIX, Make, assert_results_agree, manifest

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World

ROWS = [{"id": "mug", "prompt": "a mug"}, {"id": "lamp", "prompt": "a lamp", "style_type": "ANIME"}]


def test_only_new_variants_and_cells_are_paid(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make(prompts=ROWS, variants=1, matrix={"style_type": ["DESIGN"]}, key_template="{id}.png"))
    assert_results_agree(world, first, world.to_end(first, first.execute()), total=2)
    assert world.object_keys(PREFIX) == [f"{PREFIX}lamp-1.png", f"{PREFIX}manifest.jsonl", f"{PREFIX}mug-DESIGN-1.png"]

    matrix = {"style_type": ["REALISTIC", "DESIGN"]}
    again = task_runner(make(prompts=ROWS, variants=2, matrix=matrix, key_template="{id}.png"), run_id="again")
    xcom = assert_results_agree(world, again, world.to_end(again, again.execute()), total=6)

    assert (xcom["generated"], xcom["reused"]) == (4, 2)
    assert world.accepted == 6
    ids = [line["id"] for line in manifest(world)]
    assert ids == ["mug-REALISTIC-1", "mug-REALISTIC-2", "mug-DESIGN-1", "mug-DESIGN-2", "lamp-1", "lamp-2"]


def test_nothing_is_paid_if_a_matrix_is_rendered_to_a_mistake(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(matrix={"style_type": ["{{ 'DESIGNS' }}"]}))
    assert "matrix: style_type: 'DESIGNS' is not valid. Did you mean 'DESIGN'?" in str(run.execute().error)
    assert world.accepted == 0
