"""A dataset's task from its rows to its manifest: what is made, what is paid, and what three books say of it."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.httpsession
import httpx
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets import settling, submitting, waiting
from airflow_provider_ideogram.datasets.slice import RETRY_SECONDS
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.jobs.reconciliation import HISTORY_LAG
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.storage.image_store import ImageStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import Slice, TaskRun, TaskRunner

PREFIX = "sets/day/"
PROMPTS = [f"a lighthouse, number {number}" for number in range(5)]
ROWS = [{"id": f"item-{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)]

Make = Callable[..., IdeogramGenerateDatasetOperator]


class World:
    """The vendor's books, the bucket and the clock."""

    def __init__(self, emulator: RunningEmulator, clock: Clock, s3: S3Client, bucket: str) -> None:
        self.emulator = emulator
        self.clock = clock
        self.s3 = s3
        self.bucket = bucket

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.emulator.advance(seconds)

    def charged(self) -> int:
        return self.emulator.stats().accepted

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def manifest(self) -> list[dict[str, Any]]:
        body = self.s3.get_object(Bucket=self.bucket, Key=f"{PREFIX}manifest.jsonl")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def to_end(self, run: TaskRun, result: Slice) -> Slice:
        """Run the attempt to its end; where nothing is at the vendor, the time passes that it waits for."""
        while result.state == "deferred":
            trigger = run.trigger()
            if not trigger.requests:  # type: ignore[attr-defined]
                self.later(max(0.0, trigger.deadline - self.clock()))  # type: ignore[attr-defined]
            result = run.resume(run.fire())
        return result

    def assert_books_agree(self, run: TaskRun, result: Slice, *, total: int = len(ROWS)) -> dict[str, Any]:
        """One charge and one image an item, byte by byte, and a manifest, an XCom and a ledger that say so."""
        assert result.state == "success", f"{result.error}\n{run.log_text[-3000:]}"
        lines, xcom = self.manifest(), run.xcom()
        assert [line["row"] for line in lines] == list(range(total))
        assert xcom["total"] == total == sum(xcom[status] for status in ImageStatus)
        for status in ImageStatus:
            assert xcom[status] == sum(line["status"] == status for line in lines)
        charges = {charge.request_id: charge for charge in self.emulator.charges()}
        assert {line["request_id"] for line in lines} == set(charges)
        for line in lines:
            stored = self.s3.get_object(Bucket=self.bucket, Key=line["key"])
            assert stored["Body"].read() == self.emulator.image_bytes(line["request_id"])
            assert stored["ETag"].strip('"') == line["etag"]
            assert line["prompt"] == charges[line["request_id"]].inputs["prompt"]
        assert xcom["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
        assert self.keys("_ideogram/") == []
        return xcom  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "EXPECTED_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "MIN_WAIT_SECONDS", 0.05)
    for module in (submitting, waiting):
        monkeypatch.setattr(module, "PACE_SECONDS", 0.2)


@pytest.fixture
def world(ideogram_emulator: RunningEmulator, clock: Clock, s3: S3Client, s3_bucket: str) -> World:
    return World(ideogram_emulator, clock, s3, s3_bucket)


@pytest.fixture
def make(world: World, ideogram_connection: str) -> Make:
    def operator(**arguments: Any) -> IdeogramGenerateDatasetOperator:
        if "prompts_path" not in arguments:
            arguments.setdefault("prompts", ROWS)
        return IdeogramGenerateDatasetOperator(
            **{"task_id": "make", "s3_prefix": f"s3://{world.bucket}/{PREFIX}", "retries": 3} | arguments
        )

    return operator


class Rows(BaseOperator):
    """Stands for a task that reads a dataset of somebody else's."""

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

    world.assert_books_agree(run, world.to_end(run, run.execute()), total=1)

    (line,) = world.manifest()
    assert (line["id"], line["prompt"], line["key"]) == (rows[0]["id"], TEMPLATE, PREFIX + rows[0]["id"])


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_each_row_is_made_once(
    deferrable: bool, durable: bool, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(deferrable=deferrable, durable=durable, max_in_flight=2))

    xcom = world.assert_books_agree(run, world.to_end(run, run.execute()))

    assert (xcom["generated"], xcom["cost_usd"]) == (5, 0.25)
    assert xcom["manifest_uri"] == f"s3://{world.bucket}/{PREFIX}manifest.jsonl"
    assert [line["id"] for line in world.manifest()] == [row["id"] for row in ROWS]
    progress = run.xcom("progress")
    assert (progress["total"], progress["done"], progress["in_flight"]) == (5, 5, 0)
    assert world.emulator.stats().max_jobs_in_flight <= 2
    assert "5 of 5 items" in run.log_text


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


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
    "rows.jsonl": _jsonl,
    "rows.jsonl.gz": lambda rows: gzip.compress(_jsonl(rows)),
    "rows.csv": _csv,
    "rows.CSV.GZ": lambda rows: gzip.compress(_csv(rows)),
    "rows.parquet": _parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_file_on_s3(name: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put(f"input/{name}", FILES[name](ROWS))
    run = task_runner(make(prompts_path=path))

    world.assert_books_agree(run, world.to_end(run, run.execute()))

    assert [(line["id"], line["prompt"]) for line in world.manifest()] == [(row["id"], row["prompt"]) for row in ROWS]


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
    assert world.charged() == 0
    assert world.keys("_ideogram/") == []


def test_a_second_run_reuses_what_is_there_and_makes_what_is_new(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}item-1")
    world.s3.put_object(Bucket=world.bucket, Key=f"{PREFIX}item-2", Body=b"somebody else's")
    changed = [*ROWS[:4], {"id": "item-4", "prompt": "another prompt"}, {"id": "new", "prompt": "a new one"}]

    second = task_runner(make(prompts=changed), run_id="second")
    result = world.to_end(second, second.execute())

    assert result.state == "success", second.log_text
    assert (second.xcom()["reused"], second.xcom()["generated"], second.xcom()["cost_usd"]) == (2, 4, 0.2)
    assert world.charged() == 9
    assert [line["status"] for line in world.manifest()] == ["reused", *["generated"] * 2, "reused", *["generated"] * 2]


def test_images_of_a_run_without_a_manifest_are_reused(make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    world.s3.delete_object(Bucket=world.bucket, Key=f"{PREFIX}manifest.jsonl")

    second = task_runner(make(), run_id="second")
    xcom = world.assert_books_agree(second, world.to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"]) == (5, 0.0)


def test_images_that_were_copied_with_their_manifest_are_told_where_they_are(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())
    old, copy = world.bucket, f"{world.bucket}-copy"
    world.s3.create_bucket(Bucket=copy)
    for key in world.keys(PREFIX):
        world.s3.copy_object(CopySource={"Bucket": old, "Key": key}, Bucket=copy, Key=key)
    monkeypatch.setattr(world, "bucket", copy)

    second = task_runner(make(), run_id="second")
    xcom = world.assert_books_agree(second, world.to_end(second, second.execute()))

    assert (xcom["reused"], xcom["cost_usd"], world.charged()) == (5, 0.0, 5)
    assert [line["uri"] for line in world.manifest()] == [f"s3://{copy}/{PREFIX}{row['id']}" for row in ROWS]


def test_another_run_takes_over_what_an_unfinished_one_left(make: Make, task_runner: TaskRunner, world: World) -> None:
    dead = task_runner(make(max_in_flight=2))
    dead.execute()
    dead.resume(dead.fire())

    other = task_runner(make(), run_id="other")
    result = world.to_end(other, other.execute())

    assert result.state == "success", other.log_text
    assert world.charged() == 5
    assert other.xcom()["reused"] > 0
    assert len(world.manifest()) == 5


@pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
def test_what_is_there_already(if_exists: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    first = task_runner(make())
    world.to_end(first, first.execute())

    second = task_runner(make(if_exists=if_exists), run_id="second")
    result = world.to_end(second, second.execute())

    assert result.state == ("failed" if if_exists == "fail" else "success")
    assert world.charged() == (10 if if_exists == "overwrite" else 5)
    if if_exists == "overwrite":
        assert second.xcom()["generated"] == 5
        again = world.to_end(second, second.retry())
        assert (again.state, second.xcom()["generated"], world.charged()) == ("success", 5, 10)
        world.to_end(second, second.clear())
        assert world.charged() == 15


def test_identical_rows_are_made_once_each_unless_deduped(make: Make, task_runner: TaskRunner, world: World) -> None:
    rows = [{"id": "a", "prompt": "same"}, {"id": "b", "prompt": "same"}, "other", "other"]
    run = task_runner(make(prompts=rows))
    assert "have the same key" in str(run.execute().error)

    run = task_runner(make(prompts=rows, dedupe=True), run_id="deduped")
    result = world.to_end(run, run.execute())

    assert result.state == "success", run.log_text
    assert world.charged() == 2
    assert (run.xcom()["generated"], run.xcom()["reused"], run.xcom()["cost_usd"]) == (2, 2, 0.1)
    a, b, other, same_other = world.manifest()
    assert (a["sha256"], a["request_id"]) == (b["sha256"], b["request_id"])
    assert a["key"] != b["key"]
    assert other["key"] == same_other["key"]
    assert len(world.keys(PREFIX)) == 4

    separate = task_runner(make(prompts=rows[:2], s3_prefix=f"s3://{world.bucket}/other/"), run_id="separate")
    world.to_end(separate, separate.execute())
    assert world.charged() == 4


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
        assert [line["status"] for line in world.manifest()] == [*["generated"] * 3, "content_blocked", "failed"]
        assert "violates the content policy" in world.manifest()[3]["error"]
        assert world.charged() == 5

        result = world.to_end(run, run.retry())  # what failed is paid once more, what was blocked is not

        assert world.charged() == 6
        run.operator.retries = retries
        world.to_end(run, run.clear())
        assert world.charged() == 8

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
            assert world.keys("_ideogram/") == []

    def test_that_are_all_blocked_are_not_tried_again(self, make: Make, task_runner: TaskRunner, world: World) -> None:
        run = task_runner(make(prompts=list(self.MIXED[:4])))
        result = world.to_end(run, run.execute())
        assert result.state == "failed"
        assert "A retry would be blocked again" in str(result.error)

    @pytest.mark.parametrize("if_exists", ["reuse", "overwrite", "fail"])
    def test_retry_attempts_only_what_failed(
        self, if_exists: str, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed", prompt="number 3")
        run = task_runner(make(if_exists=if_exists, max_in_flight=2))
        assert world.to_end(run, run.execute()).state == "up_for_retry"

        result = world.to_end(run, run.retry())

        assert result.state == "success", run.log_text
        assert world.charged() == 6
        assert (run.xcom()["generated"], run.xcom()["cost_usd"]) == (5, 0.25)
        assert [line["status"] for line in world.manifest()] == ["generated"] * 5

    def test_not_an_image_is_fetched_again_by_a_retry_and_not_paid_again(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("image", "not_image", times=8)
        run = task_runner(make(prompts=ROWS[:1]))
        assert world.to_end(run, run.execute()).state == "up_for_retry"
        assert "is not a complete image" in world.manifest()[0]["error"]
        world.emulator.clear_faults()

        xcom = world.assert_books_agree(run, world.to_end(run, run.retry()), total=1)

        assert (world.charged(), xcom["cost_usd"]) == (1, 0.05)

    def test_job_that_is_not_done_in_time_is_taken_up_by_a_retry(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "job_seconds", seconds=900.0, prompt="number 0")
        run = task_runner(make(prompts=ROWS[:2]))
        result = run.execute()
        while result.state == "deferred":
            world.later(601)
            result = run.resume(run.fire())
        assert result.state == "up_for_retry"
        assert "was not done in time" in world.manifest()[0]["error"]
        world.later(600)

        xcom = world.assert_books_agree(run, world.to_end(run, run.retry()), total=2)

        assert (world.charged(), xcom["cost_usd"]) == (2, 0.1)

    @pytest.mark.parametrize("kind", ["credits_402", "credits_406", "spend_limit", "model_forbidden", "model_retired"])
    def test_of_all_items_stop_before_more_is_paid(
        self, kind: str, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        run = task_runner(make(prompts=[f"p {n}" for n in range(30)], max_in_flight=10))
        assert run.execute().state == "deferred"
        world.emulator.fault("submit", kind, times=None)

        result = world.to_end(run, run.resume(run.fire()))

        assert result.state == "failed"
        paid = world.charged()
        world.emulator.clear_faults()
        xcom = world.assert_books_agree(run, world.to_end(run, run.clear()), total=30)
        assert paid < 30
        assert xcom["cost_usd"] == 1.5
        assert world.charged() == 30

    def test_refused_parameter_fails_its_item_only(self, make: Make, task_runner: TaskRunner, world: World) -> None:
        rows = [f"p {number}" for number in range(99)]
        run = task_runner(make(prompts=[*rows, "bad [[fault:parameter-refused]]"], max_failures=1))

        assert world.to_end(run, run.execute()).state == "success"

        assert (run.xcom()["generated"], run.xcom()["failed"]) == (99, 1)
        assert run.xcom()["cost_usd"] == pytest.approx(world.emulator.stats().charged_usd)

    def test_that_are_all_alike_stop_before_more_is_paid(
        self, make: Make, task_runner: TaskRunner, world: World
    ) -> None:
        world.emulator.fault("job", "failed", times=None)
        run = task_runner(make(prompts=[f"p {n}" for n in range(60)], max_in_flight=10, max_failures=1000))

        result = world.to_end(run, run.execute())

        assert result.state == "failed"
        assert "items failed for the same reason" in str(result.error)
        assert 20 <= world.charged() <= 40
        world.emulator.clear_faults()
        result = world.to_end(run, run.clear())
        assert result.state == "success", run.log_text
        assert run.xcom()["generated"] == 60


def test_cost_is_bounded_before_and_while(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_cost_usd=0.2))
    assert "5 images would cost about 0.25 USD" in str(run.execute().error)
    assert world.charged() == 0

    world.emulator.fault("job", "failed", times=1)
    run = task_runner(make(max_cost_usd=0.25, max_in_flight=1), run_id="retried")
    assert world.to_end(run, run.execute()).state == "up_for_retry"
    xcom = world.assert_books_agree(run, world.to_end(run, run.retry()))
    assert (xcom["cost_usd"], world.charged()) == (0.25, 6)  # a failed request is free


@pytest.mark.parametrize("price_usd", [None, 0.07])
def test_unknown_price_is_bounded_too(
    price_usd: float | None, make: Make, task_runner: TaskRunner, world: World
) -> None:
    world.emulator.configure(prices={"brand-new": 0.07})
    run = task_runner(make(model="brand-new", max_cost_usd=0.25 if price_usd is None else 0.36, price_usd=price_usd))

    result = world.to_end(run, run.execute())

    assert result.state == ("failed" if price_usd is None else "success")
    assert world.emulator.stats().charged_usd == pytest.approx(0.21 if price_usd is None else 0.35)


@pytest.mark.parametrize("named", [6, 0])
def test_rate_limit(named: float, make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.configure(rate_limit=6)
    rows = [f"p {number}" for number in range(15)]
    run = task_runner(make(prompts=rows, requests_per_minute=named))
    start = world.clock()

    world.assert_books_agree(run, world.to_end(run, run.execute()), total=15)

    rejected = world.emulator.stats().rate_limited
    assert rejected == 0 if named else 0 < rejected < 30
    assert world.clock() - start > 60


@pytest.mark.parametrize("on", ["submit", "status", "result", "image"])
def test_passing_errors_are_outlasted(on: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    wait = {"status": 429, "retry_after": 20} if on == "submit" else {"status": 503}
    world.emulator.fault(on, "error", times=6, **wait)
    run = task_runner(make())

    world.assert_books_agree(run, world.to_end(run, run.execute()))


@pytest.mark.timeout(60)  # it would submit nothing more, for ever
def test_an_image_that_was_held_up_holds_up_nothing_for_good_on_a_worker(
    make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(submitting, "RETRY_SECONDS", 0.2)
    world.emulator.fault("image", "error", status=503, times=4)
    run = task_runner(make(prompts=ROWS[:3], max_in_flight=1, deferrable=False))

    xcom = world.assert_books_agree(run, world.to_end(run, run.execute()), total=3)

    assert (xcom["generated"], world.charged()) == (3, 3)
    assert "is completed, but its image is not stored yet" in run.log_text


def _hold_up(on: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let finished images stay at the vendor."""
    if on == "S3":
        refused = IdeogramStorageError("S3 takes nothing")
        monkeypatch.setattr(ImageStore, "put", mock.Mock(side_effect=refused))
    else:
        world.emulator.fault(on, "error", status=503, times=None)


@pytest.mark.parametrize("on", ["image", "result"])
def test_one_image_that_can_not_be_fetched_does_not_stop_the_others(
    on: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    bad = {"id": "bad", "prompt": "a bad one"}
    world.emulator.fault(on, "error", status=503, times=None, prompt=bad["prompt"])
    run = task_runner(make(prompts=[bad, *ROWS], max_in_flight=2))

    result = run.execute()
    while result.state == "deferred" and len(world.keys(PREFIX)) < len(ROWS):
        assert run.trigger().requests, "nothing is at the vendor"  # type: ignore[attr-defined]
        result = run.resume(run.fire())

    assert result.state == "deferred", "the bad one is not given up within its hour"
    world.emulator.clear_faults()
    world.assert_books_agree(run, world.to_end(run, result), total=6)
    assert world.charged() == 6


@pytest.mark.parametrize(("on", "held"), [("image", 5), ("result", 5), ("S3", 1)])
def test_nothing_more_is_paid_while_no_image_can_be_brought_here(
    on: str, held: int, make: Make, task_runner: TaskRunner, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"p {number}" for number in range(12)]
    run = task_runner(make(prompts=rows, max_in_flight=8, requests_per_minute=10 * held))
    with monkeypatch.context() as patch:
        _hold_up(on, world, patch)
        result = run.execute()
        for _ in range(6):
            world.later(RETRY_SECONDS)
            result = run.resume(run.fire())
        assert (result.state, world.charged(), world.keys(PREFIX)) == ("deferred", held, [])
    world.emulator.clear_faults()

    world.assert_books_agree(run, world.to_end(run, result), total=12)


def test_not_found_within_the_hour_is_no_job_s_end(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("status", "error", status=404, times=3 * len(ROWS))
    run = task_runner(make(poll_interval=0.05))

    world.assert_books_agree(run, world.to_end(run, run.execute()))


def test_result_that_is_not_there_yet_is_fetched_later(make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("result", "error", status=404, times=len(ROWS))
    run = task_runner(make())

    world.assert_books_agree(run, world.to_end(run, run.execute()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_unanswered_submits_are_looked_up(when: str, make: Make, task_runner: TaskRunner, world: World) -> None:
    world.emulator.fault("submit", "reset", when=when, times=2)
    run = task_runner(make())

    result = world.to_end(run, run.execute())

    if when == "after":
        world.assert_books_agree(run, result)
        return
    assert result.state == "up_for_retry"
    assert "may have been accepted" in str(result.error)
    assert world.charged() == 3
    world.later(HISTORY_LAG)
    assert world.to_end(run, run.retry()).state == "up_for_retry"
    assert world.charged() == 3
    world.assert_books_agree(run, world.to_end(run, run.clear()))


def test_asset_event_carries_the_manifest(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(outlets=[Asset("images")]))
    world.to_end(run, run.execute())

    [extra] = run.asset_events
    assert extra == run.xcom()
    assert extra["manifest_uri"].endswith("manifest.jsonl")


def test_changed_input_is_planned_anew(make: Make, task_runner: TaskRunner, world: World) -> None:
    path = world.put("rows.jsonl", _jsonl(ROWS))
    run = task_runner(make(prompts_path=path, max_in_flight=2))
    assert run.execute().state == "deferred"
    world.put("rows.jsonl", _jsonl([*ROWS, {"id": "late", "prompt": "a late one"}]))

    world.assert_books_agree(run, world.to_end(run, run.retry()), total=6)

    assert world.charged() == 6


def test_state_that_is_gone_or_broken(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    run.execute()
    event = run.fire()
    [state] = [key for key in world.keys("_ideogram/") if key.endswith("state.json")]
    kept = world.s3.get_object(Bucket=world.bucket, Key=state)["Body"].read()
    world.s3.delete_object(Bucket=world.bucket, Key=state)
    assert "was removed while the task waited" in str(run.resume(event).error)

    for broken in (b"not json", b"[]", b'{"version": 99}', kept.replace(b'"chunks"', b'"lumps"')):
        world.s3.put_object(Bucket=world.bucket, Key=state, Body=broken)
        assert "can't be understood" in str(run.retry().error)
    world.s3.delete_object(Bucket=world.bucket, Key=state)

    world.assert_books_agree(run, world.to_end(run, run.clear()))
    assert world.charged() == 5


def test_part_that_was_removed_is_made_good(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=2))
    result = run.resume((run.execute(), run.fire())[1])
    [part] = [key for key in world.keys("_ideogram/") if "/part-" in key]
    world.s3.delete_object(Bucket=world.bucket, Key=part)
    result = world.to_end(run, result)
    assert "has no line of row" in str(result.error)

    world.assert_books_agree(run, world.to_end(run, run.retry()))
    assert world.charged() == 5


def test_resumed_after_the_hour(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=ROWS[:1]))
    run.execute()
    event = run.fire()
    world.later(3700)

    world.assert_books_agree(run, world.to_end(run, run.resume(event)), total=1)
    assert world.charged() == 1


def test_resumed_after_the_files_lifetime(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=ROWS[:1]))
    run.execute()
    event = run.fire()
    world.later(8 * 86400)

    assert world.to_end(run, run.resume(event)).state == "up_for_retry"
    assert [line["status"] for line in world.manifest()] == ["expired"]

    assert world.to_end(run, run.retry()).state == "success"
    assert world.charged() == 2


def test_empty_dataset(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(prompts=[]))
    assert run.execute().state == "success"
    assert world.manifest() == []


def test_text_in_place_of_rows(make: Make, task_runner: TaskRunner) -> None:
    run = task_runner(make(prompts="{{ 'a prompt' }}"))
    assert "must be a list of rows, not str" in str(run.execute().error)


@contextmanager
def _dying_at(number: int, when: str) -> Iterator[None]:
    """Let this process kill itself at its n-th request to S3 or the API, before it is sent or when it is answered."""
    requests = itertools.count()

    def counted(send: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            mine = next(requests) == number
            if mine and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = send(*args)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    with (
        mock.patch.object(
            botocore.httpsession.URLLib3Session, "send", counted(botocore.httpsession.URLLib3Session.send)
        ),
        mock.patch.object(httpx.HTTPTransport, "handle_request", counted(httpx.HTTPTransport.handle_request)),
    ):
        yield


def _kill(run_slice: Callable[[], Slice], number: int, when: str) -> bool:
    """Run a slice in a child that dies at its n-th request, or when it is done; return whether it died before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside the servers' threads, from 3.12 on
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            with _dying_at(number, when):
                run_slice()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


KILLED = [
    ("first", 0), ("first", 7), ("first", 14), ("first", 21), ("first", 28), ("first", 35), ("first", 42),
    ("second", 1), ("second", 4), ("second", 8), ("second", 12), ("second", 16), ("second", 20), ("second", 26),
    ("last", 0), ("last", 3), ("last", 6), ("last", 9), ("last", 11), ("last", 13), ("last", 15), ("last", 99),
]  # fmt: skip


@pytest.mark.parametrize(
    ("slice_", "number", "when"), [(*point, ("before", "after")[turn % 2]) for turn, point in enumerate(KILLED)]
)
def test_worker_that_is_killed_costs_nothing_and_loses_nothing(
    slice_: str, number: int, when: str, make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit"))
    act: Callable[[], Slice] = run.execute
    for _ in range({"first": 0, "second": 1, "last": 2}[slice_]):
        assert act().state == "deferred"
        act = partial(run.resume, run.fire())

    _kill(act, number, when)
    world.later(1)
    result = world.to_end(run, run.retry())

    world.assert_books_agree(run, result)
    assert world.charged() == len(ROWS)


def test_workers_that_are_killed_one_after_the_other(make: Make, task_runner: TaskRunner, world: World) -> None:
    run = task_runner(make(max_in_flight=3, on_unknown_submit="resubmit", retries=9))
    act: Callable[[], Slice] = run.execute
    died = 0
    for number in (33, 12, 20, 9, 5):
        died += _kill(act, number, "after")
        world.later(2)
        result = run.retry()
        if result.state != "deferred":
            break
        act = partial(run.resume, run.fire())

    world.assert_books_agree(run, world.to_end(run, run.retry()))
    assert died > 0
    assert world.charged() == len(ROWS)


def test_worker_that_died_after_storing_and_was_away_for_hours(
    make: Make, task_runner: TaskRunner, world: World
) -> None:
    run = task_runner(make(max_in_flight=5))
    run.execute()
    event = run.fire()
    with mock.patch.object(Workspace, "write", side_effect=SystemExit):  # the state of the slice is not written
        run.resume(event)
    assert len(world.keys(PREFIX)) == 5
    world.later(7200)

    xcom = world.assert_books_agree(run, world.to_end(run, run.retry()))

    assert (world.charged(), xcom["generated"], xcom["cost_usd"]) == (5, 5, 0.25)
