"""The rows of a dataset: where they come from, and what is checked before anything is submitted."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from tests.integration.datasets.world import PREFIX, ROWS, jsonl

if TYPE_CHECKING:
    from tests.integration.datasets.world import Make, World
    from tests.support.task_runner import TaskRunner


class Rows(BaseOperator):
    """A task that returns rows."""

    def __init__(self, rows: list[dict[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def execute(self, context: Any) -> list[dict[str, str]]:
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

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()), total=1)

    (line,) = world.manifest()
    assert (line["id"], line["prompt"], line["key"]) == (rows[0]["id"], TEMPLATE, PREFIX + rows[0]["id"])


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_each_row_is_generated_once(
    deferrable: bool, durable: bool, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(deferrable=deferrable, durable=durable, max_in_flight=2))

    xcom = world.assert_stats_agree(run, world.run_to_end(run, run.execute()))

    assert (xcom["generated"], xcom["cost_usd"]) == (5, 0.25)
    assert xcom["manifest_uri"] == f"s3://{world.bucket}/{PREFIX}manifest.jsonl"
    assert [line["id"] for line in world.manifest()] == [row["id"] for row in ROWS]
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
    "rows.jsonl": jsonl,
    "rows.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "rows.csv": _csv,
    "rows.CSV.GZ": lambda rows: gzip.compress(_csv(rows)),
    "rows.parquet": _parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_rows_are_read_from_a_file_on_s3(name: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put(f"input/{name}", FILES[name](ROWS))
    run = task_runner(make(prompts_path=path))

    world.assert_stats_agree(run, world.run_to_end(run, run.execute()))

    assert [(line["id"], line["prompt"]) for line in world.manifest()] == [(row["id"], row["prompt"]) for row in ROWS]


def test_manifest_as_input_repeats_the_same_requests(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make(prompts=[{"prompt": "a cat", "model_params": {"guidance": 3}}]))
    world.run_to_end(first, first.execute())
    other = make(prompts_path=first.xcom()["manifest_uri"], s3_prefix=f"s3://{world.bucket}/again/")

    again = task_runner(other, run_id="again")
    assert world.run_to_end(again, again.execute()).state == "success"

    made, remade = world.emulator.requests()
    assert made.inputs == remade.inputs


def test_bad_row_fails_the_task_before_any_submit(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", b'{"prompt": "fine"}\n\n{"prompt": ""}\nnot json\n\xff\xfe\n{"promt": "x"}\n')
    run = task_runner(make(prompts_path=path))

    result = run.execute()

    assert result.state == "failed"
    assert "4 of 5 rows can't be used" in str(result.error)
    for place in ("line 3: has no prompt", "line 4: is not JSON", "line 5: is not UTF-8"):
        assert place in str(result.error).replace("is not JSON: is not UTF-8", "is not UTF-8")
    assert "line 6: column 'promt' is not a parameter. Did you mean 'prompt'?" in str(result.error)
    assert world.accepted() == 0
    assert world.keys("_ideogram/") == []


def test_empty_dataset_has_an_empty_manifest(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=[]))
    assert run.execute().state == "success"
    assert world.manifest() == []


def test_text_instead_of_rows_is_invalid(make: Make, task_runner: TaskRunner) -> None:
    run = task_runner(make(prompts="{{ 'a prompt' }}"))
    assert "must be a list of rows, not str" in str(run.execute().error)
