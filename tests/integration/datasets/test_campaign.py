"""Rows with several images: variants, a matrix of parameters, and templates of the prompt."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING
from unittest import mock

import pyarrow.parquet

from airflow_provider_ideogram.datasets import outputs
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from tests.integration.datasets.results import PREFIX, Make, assert_results_agree, manifest

if TYPE_CHECKING:
    import pytest

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


def test_prompt_is_made_of_a_files_columns_and_recorded(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("products.csv", b"id,Product,price,day\nmug,{{ var.value.x }},3.5,2026-11-26\n")
    template = "a {product} for {price:.2f} EUR on {day:%d %B}"
    run = task_runner(make(prompts_path=path, prompt_template=template, variants=1))

    assert_results_agree(world, run, world.to_end(run, run.execute()), total=1)

    (line,) = manifest(world)
    assert (line["id"], line["prompt"]) == ("mug-1", "a {{ var.value.x }} for 3.50 EUR on 26 November")


def test_file_that_can_not_be_written_costs_no_manifest(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = task_runner(make(outputs=["parquet", "imagefolder"], key_template="{id}.png"))
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "_write_parquet", mock.Mock(side_effect=IdeogramStorageError("S3 is away", "Retry.")))
        result = world.to_end(run, run.execute())
    assert (result.state, len(manifest(world)), world.accepted) == ("up_for_retry", 5, 5)

    assert_results_agree(world, run, world.to_end(run, run.retry()))
    assert world.accepted == 5
    assert pyarrow.parquet.read_table(io.BytesIO(world.stored(f"{PREFIX}manifest.parquet"))).num_rows == 5
    assert [json.loads(line)["file_name"] for line in world.stored(f"{PREFIX}metadata.jsonl").splitlines()] == [
        f"item-{number}.png" for number in range(5)
    ]


def test_nothing_is_paid_if_a_column_is_missing_or_empty(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"product": "mug"}, {"product": ""}, {"id": "lamp"}]
    error = str(task_runner(make(prompts=rows, prompt_template="a {product}")).execute().error)
    assert "item 1: column 'product' is empty" in error
    assert "item 2: has no column 'product'" in error
    path = world.put("products.csv", b"id,price\nmug,3\n")
    run = task_runner(make(prompts_path=path, prompt_template="a {product}"), run_id="file")
    assert "the header ['id', 'price'] has no column 'product'" in str(run.execute().error)
    assert world.accepted == 0
