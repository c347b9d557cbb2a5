"""The rows of a dataset: their forms, their checks, and rows with the same inputs."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator

from tests.integration.datasets.results import PREFIX, ROWS, Make, assert_results_agree, json_lines, manifest
from tests.support.airflow_version import need_airflow

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import World


class Rows(BaseOperator):
    """A task that returns the rows of another team's dataset."""

    def __init__(self, rows: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def execute(self, context: Any) -> Any:
        return self.rows


TEMPLATE = "{{ var.value.secret }} {% raw %} {{ 1 / 0 }}"


@pytest.mark.parametrize("source", ["file", "task"])
def test_template_in_a_row_is_not_rendered(source: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"id": TEMPLATE.replace("/", ""), "prompt": TEMPLATE}]
    if source == "file":
        operator = make(prompts_path=world.put("rows.jsonl", json.dumps(rows[0]).encode()))
    else:
        with DAG("night", schedule=None):
            upstream = Rows(task_id="rows", rows=rows)
            operator = make(prompts=upstream.output)
        assert task_runner(upstream).execute().state == "success"
    run = task_runner(operator)

    assert_results_agree(world, run, world.to_end(run, run.execute()), total=1)

    (line,) = manifest(world)
    assert (line["id"], line["prompt"], line["key"]) == (rows[0]["id"], TEMPLATE, PREFIX + rows[0]["id"])


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_each_row_is_made_once(
    deferrable: bool, durable: bool, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(deferrable=deferrable, durable=durable, max_in_flight=2))

    xcom = assert_results_agree(world, run, world.to_end(run, run.execute()))

    assert (xcom["generated"], xcom["cost_usd"]) == (5, 0.25)
    assert xcom["manifest_uri"] == f"s3://{world.bucket}/{PREFIX}manifest.jsonl"
    assert [line["id"] for line in manifest(world)] == [row["id"] for row in ROWS]
    progress = run.xcom("progress")
    assert (progress["total"], progress["done"], progress["in_flight"]) == (5, 5, 0)
    assert world.emulator.stats().max_jobs_in_flight <= 2
    assert "5 of 5 items" in run.log_text


def _csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "prompt"])
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


FILES: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "rows.jsonl": json_lines,
    "rows.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
    "rows.csv": _csv,
    "rows.CSV.GZ": lambda rows: gzip.compress(_csv(rows)),
    "rows.parquet": _parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_file_on_s3(name: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put(f"input/{name}", FILES[name](ROWS))
    run = task_runner(make(prompts_path=path))

    assert_results_agree(world, run, world.to_end(run, run.execute()))

    assert [(line["id"], line["prompt"]) for line in manifest(world)] == [(row["id"], row["prompt"]) for row in ROWS]


def test_manifest_is_an_input_that_makes_the_same_images(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make(prompts=[{"prompt": "a cat", "model_params": {"guidance": 3}}]))
    world.to_end(first, first.execute())
    other = make(prompts_path=first.xcom()["manifest_uri"], s3_prefix=f"s3://{world.bucket}/again/")

    again = task_runner(other, run_id="again")
    assert world.to_end(again, again.execute()).state == "success"

    made, remade = world.emulator.requests()
    assert made.inputs == remade.inputs


def test_nothing_is_paid_if_a_row_is_bad(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", b'{"prompt": "fine"}\n\n{"prompt": ""}\nnot json\n\xff\xfe\n{"promt": "x"}\n')
    run = task_runner(make(prompts_path=path))

    result = run.execute()

    assert result.state == "failed"
    assert "4 of 5 rows can't be used" in str(result.error)
    for place in ("line 3: has no prompt", "line 4: is not JSON", "line 5: is not UTF-8"):
        assert place in str(result.error).replace("is not JSON: is not UTF-8", "is not UTF-8")
    assert "line 6: column 'promt' is not a parameter. Did you mean 'prompt'?" in str(result.error)
    assert world.accepted == 0
    assert world.object_keys("_ideogram/") == []


def test_identical_rows_are_made_once_each_unless_deduped(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"id": "a", "prompt": "same"}, {"id": "b", "prompt": "same"}, "other", "other"]
    run = task_runner(make(prompts=rows))
    assert "have the same key" in str(run.execute().error)

    run = task_runner(make(prompts=rows, dedupe=True), run_id="deduped")
    result = world.to_end(run, run.execute())

    assert result.state == "success", run.log_text
    assert world.accepted == 2
    assert (run.xcom()["generated"], run.xcom()["reused"], run.xcom()["cost_usd"]) == (2, 2, 0.1)
    a, b, other, same_other = manifest(world)
    assert (a["sha256"], a["request_id"]) == (b["sha256"], b["request_id"])
    assert a["key"] != b["key"]
    assert other["key"] == same_other["key"]
    assert len(world.object_keys(PREFIX)) == 4

    separate = task_runner(make(prompts=rows[:2], s3_prefix=f"s3://{world.bucket}/other/"), run_id="separate")
    world.to_end(separate, separate.execute())
    assert world.accepted == 4


def test_empty_dataset_fails_unless_it_is_allowed(make: Make, task_runner: TaskRunner, world: World) -> None:
    assert "prompts: there are no rows; see allow_empty" in str(task_runner(make(prompts=[])).execute().error)
    assert world.object_keys("_ideogram/") == []
    path = world.put("rows.csv", b"id,prompt\n,\n")
    run = task_runner(make(prompts_path=path), run_id="file")
    assert f"{path}: there are no rows; see allow_empty" in str(run.execute().error)

    assert task_runner(make(prompts=[], allow_empty=True), run_id="allowed").execute().state == "success"
    assert manifest(world) == []


def test_text_in_place_of_rows(make: Make, task_runner: TaskRunner) -> None:
    run = task_runner(make(prompts="{{ 'a prompt' }}"))
    assert "must be a list of rows" in str(run.execute().error)


@pytest.mark.parametrize("value", [5, iter(["a cat"]), {"prompt": "a cat"}])
def test_value_in_place_of_rows_is_refused_before_a_submit(
    value: Any, make: Make, task_runner: TaskRunner, world: World
) -> None:
    operator = make()
    operator.prompts = value  # as the XCom of another task may be
    assert "prompts: " in str(task_runner(operator).execute().error)
    assert world.accepted == 0


def test_table_of_another_task(make: Make, task_runner: TaskRunner, world: World) -> None:
    need_airflow("3.3", "XComs of pandas 3")
    table = pandas.DataFrame({"ID": [1.0, 2.0], "Prompt": ["a cat", "a dog"], "seed": [7, float("nan")], "day": None})
    with DAG("night", schedule=None):
        upstream = Rows(task_id="rows", rows=table)
        operator = make(prompts=upstream.output)
    assert task_runner(upstream).execute().state == "success"
    run = task_runner(operator)

    assert_results_agree(world, run, world.to_end(run, run.execute()), total=2)

    assert [(line["id"], line["prompt"]) for line in manifest(world)] == [("1", "a cat"), ("2", "a dog")]
    assert manifest(world)[0]["seed"] == 7


def test_asset_event_carries_the_manifest(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(outlets=[Asset("images")]))
    world.to_end(run, run.execute())

    [extra] = run.asset_events
    assert extra == run.xcom()
    assert extra["manifest_uri"].endswith("manifest.jsonl")
