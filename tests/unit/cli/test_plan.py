"""``ideogram plan`` and the operators' ``dry_run()``, on a local API and a local S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, task

from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.cli import plan as plan_module
from airflow_provider_ideogram.cli.main import main
from airflow_provider_ideogram.cli.rendering import runs_of
from airflow_provider_ideogram.jobs import preview
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.record import Intent
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.account import Account, account
from tests.support.airflow_version import AIRFLOW
from tests.support.s3 import calls_recorded
from tests.support.task_logs import captured_logs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator

__all__ = ["account"]
_INTERVALS = "airflow.sdk" if AIRFLOW >= (3, 2) else "airflow.timetables.interval"
CronDataIntervalTimetable: Any = import_module(_INTERVALS).CronDataIntervalTimetable
DAY = date(2026, 11, 25)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_is_submitted(s3: S3Client, ideogram_emulator: RunningEmulator, ideogram_connection: str) -> Iterator[None]:
    """No test submits."""
    yield
    assert ideogram_emulator.stats().calls.get("submit", 0) == 0
    assert ideogram_emulator.stats().charged_usd == 0


@pytest.fixture
def dag() -> DAG:
    return DAG("posters", schedule="@daily", start_date=START, catchup=False)


def store(s3: S3Client, bucket: str, key: str, **inputs: Any) -> None:
    """Store an image made from these inputs."""
    metadata = {"ideogram-fingerprint": GenerationRequest(**inputs).fingerprint, "ideogram-request-id": "r"}
    s3.put_object(Bucket=bucket, Key=key, Body=b"image", Metadata=metadata)


def record(
    s3: S3Client,
    bucket: str,
    key: str,
    owner: str = "posters/run/image/-1",
    request_id: str | None = "request-1",
    **inputs: Any,
) -> None:
    """Write a ledger record of a running request, or of a submit without a response."""
    request, target = GenerationRequest(**inputs), Target(bucket, key)
    ledger = Ledger(ObjectStore(s3), bucket)
    intent = Intent(replace(request, seed=7), request.fingerprint, target.uri, 1.0, owner, 0)
    written = ledger.write_intent(ledger.key_of(target, owner), intent)
    if request_id is not None:
        ledger.record_request(written, request_id)


def rows(dag: DAG, first: date = DAY, last: date = DAY, **conf: Any) -> list[dict[str, Any]]:
    """Return the rows of a plan, and check that S3 is only read."""
    with calls_recorded() as calls:
        found = plan_module.plan(dag, first, last, conf)
    assert {call.split()[0] for call in calls} <= {"GetObject", "HeadObject", "HeadBucket", "ListObjectsV2"}
    return found


def plan(dag: DAG, first: date = DAY, last: date = DAY, **conf: Any) -> list[tuple[str, str, int, str]]:
    """Return task, verdict, number of images and cost of each row."""
    found = rows(dag, first, last, **conf)
    return [(row["task_id"], row["plan"], row["images"], row["usd_at_most"]) for row in found]


def details(dag: DAG) -> list[str]:
    """Return the details of the rows."""
    return [row["detail"] for row in rows(dag)]


class TestImages:
    def test_each_kind_of_image_is_a_row(self, dag: DAG, s3: S3Client, s3_bucket: str) -> None:
        prompts = ["new", "stored", "running", "others", " "]
        with dag:
            IdeogramGenerateImageOperator.partial(
                task_id="image", s3_bucket=s3_bucket, s3_key="{{ ds }}/{{ ti.map_index }}.png"
            ).expand(prompt=prompts)
        store(s3, s3_bucket, "2026-11-25/1.png", prompt="stored")
        record(s3, s3_bucket, "2026-11-25/2.png", prompt="running")
        record(s3, s3_bucket, "2026-11-25/3.png", prompt="another one")

        assert plan(dag) == [
            ("image", "generate", 1, "0.05"),
            ("image", "continue", 1, "0.05"),
            ("image", "reuse", 1, "0.00"),
            ("image", "refuse", 1, "0.00"),
            ("image", "refuse", 1, "0.00"),
            ("ideogram_default", "total", 2, "0.10"),
        ]
        assert any("with other inputs has the target" in detail for detail in details(dag))
        assert any("prompt: must not be empty" in detail for detail in details(dag))

    @pytest.mark.parametrize(
        ("request_id", "what"),
        [("request-1", "the running request of {}"), (None, "the submit of {} without a response")],
    )
    def test_own_request_with_other_inputs_is_abandoned(
        self, request_id: str | None, what: str, dag: DAG, s3: S3Client, s3_bucket: str
    ) -> None:
        with dag:
            IdeogramGenerateImageOperator(task_id="image", prompt="new", s3_bucket=s3_bucket, s3_key="1.png")
        owner = "posters/scheduled__2026-11-25T00:00:00+00:00/image/-1"
        record(s3, s3_bucket, "1.png", owner, request_id, prompt="old")
        assert plan(dag)[0] == ("image", "generate", 1, "0.05")
        assert details(dag)[0] == f"{what.format(owner)} is abandoned"

    def test_object_that_must_not_be_replaced_is_refused(self, dag: DAG, s3: S3Client, s3_bucket: str) -> None:
        with dag:
            IdeogramGenerateImageOperator(
                task_id="image", prompt="new", s3_bucket=s3_bucket, s3_key="1.png", if_exists="fail"
            )
        store(s3, s3_bucket, "1.png", prompt="old")
        assert plan(dag)[0] == ("image", "refuse", 1, "0.00")

    def test_bucket_that_is_missing_is_refused(self, dag: DAG) -> None:
        with dag:
            IdeogramGenerateImageOperator(task_id="image", prompt="new", s3_key="s3://missing-bucket/1.png")
        assert plan(dag)[0] == ("image", "refuse", 1, "0.00")
        assert "missing-bucket" in details(dag)[0]

    def test_argument_that_is_not_valid_is_refused(self, dag: DAG, account: Account, s3_bucket: str) -> None:
        account(requests_per_minute=10)
        with dag:
            IdeogramGenerateImageOperator.partial(task_id="image", prompt="new").expand(
                s3_key=["no-bucket.png", f"s3://{s3_bucket}/1.png"]
            )
        assert [row[1:3] for row in plan(dag)] == [("generate", 1), ("refuse", 1), ("total", 1)]
        assert "names no bucket" in details(dag)[1]

    def test_folder_is_listed_once_it_is_large(
        self, dag: DAG, s3: S3Client, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preview, "_SINGLE_READS", 2)
        with dag:
            IdeogramGenerateImageOperator.partial(
                task_id="image", s3_bucket=s3_bucket, s3_key="set/{{ ti.map_index }}.png"
            ).expand(prompt=[f"number {number}" for number in range(9)])
        store(s3, s3_bucket, "set/8.png", prompt="number 8")
        record(s3, s3_bucket, "set/7.png", prompt="number 7")
        assert [row[1:3] for row in plan(dag)] == [("generate", 7), ("continue", 1), ("reuse", 1), ("total", 8)]

    def test_decorated_function_is_not_called(self, dag: DAG, s3_bucket: str) -> None:
        with dag:

            @task.ideogram(s3_bucket=s3_bucket, s3_key="{{ ds }}.png")
            def image() -> str:
                raise AssertionError("it is called")

            image()
        assert plan(dag) == [("image", "generate", 1, "0.05"), ("ideogram_default", "total", 1, "0.05")]

    def test_output_of_another_task_is_unknown(self, dag: DAG, s3_bucket: str) -> None:
        with dag:

            @task
            def prompts() -> list[str]:
                raise AssertionError("it is called")

            IdeogramGenerateImageOperator.partial(
                task_id="mapped", s3_bucket=s3_bucket, s3_key="{{ ti.map_index }}.png"
            ).expand(prompt=prompts())
            IdeogramGenerateImageOperator(
                task_id="single", prompt="{{ ti.xcom_pull('prompts') }}", s3_bucket=s3_bucket, s3_key="1.png"
            )
            IdeogramGenerateImageOperator(task_id="known", prompt="a cat", s3_bucket=s3_bucket, s3_key="2.png")
        assert sorted(plan(dag)) == [
            ("ideogram_default", "total", 3, "unknown"),
            ("known", "generate", 1, "0.05"),
            ("mapped", "unknown", 1, "unknown"),
            ("single", "unknown", 1, "unknown"),
        ]


class TestDatasets:
    ROWS = ({"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two"}, {"id": "c", "prompt": "two"})

    def dataset(self, dag: DAG, bucket: str, **arguments: Any) -> None:
        defaults: dict[str, Any] = {"task_id": "set", "prompts": [*self.ROWS], "s3_prefix": f"s3://{bucket}/set"}
        with dag:
            IdeogramGenerateDatasetOperator(**{**defaults, **arguments})

    def test_rows_are_planned(self, dag: DAG, s3: S3Client, s3_bucket: str) -> None:
        self.dataset(dag, s3_bucket, dedupe=True, price_usd=0.07)
        store(s3, s3_bucket, "set/a", prompt="one")
        assert plan(dag) == [
            ("set", "generate", 1, "0.07"),
            ("set", "reuse", 1, "0.00"),
            ("set", "reuse", 1, "0.00"),
            ("ideogram_default", "total", 1, "0.07"),
        ]

    def test_bad_row_refuses_all(self, dag: DAG, s3: S3Client, s3_bucket: str) -> None:
        self.dataset(dag, s3_bucket, prompts=[*self.ROWS, {"id": "d", "prompt": ""}, {"id": "e", "style_type": "X"}])
        store(s3, s3_bucket, "set/a", prompt="one")
        assert [row[1:3] for row in plan(dag)] == [
            ("reuse", 1),
            ("refuse", 1),
            ("refuse", 1),
            ("refuse", 2),
            ("total", 0),
        ]
        assert "has no prompt" in details(dag)[1]
        assert "submits nothing" in details(dag)[3]

    def test_cost_above_the_tasks_limit_refuses_all(self, dag: DAG, s3_bucket: str) -> None:
        self.dataset(dag, s3_bucket, max_cost_usd=0.10)
        assert plan(dag)[0] == ("set", "refuse", 3, "0.00")
        assert "0.15 USD, and 0.10 may be spent" in details(dag)[0]

    def test_file_that_is_missing_is_refused(self, dag: DAG, s3_bucket: str) -> None:
        self.dataset(dag, s3_bucket, prompts=None, prompts_path=f"s3://{s3_bucket}/none.jsonl")
        assert plan(dag)[0][1] == "refuse"


class TestRuns:
    def image(self, dag: DAG, bucket: str, prompt: str = "a cat on {{ ds }}") -> None:
        with dag:
            IdeogramGenerateImageOperator(task_id="image", prompt=prompt, s3_bucket=bucket, s3_key="{{ run_id }}.png")
            BaseOperator(task_id="other")

    def test_scheduled_runs_between_the_days(self, dag: DAG, s3_bucket: str) -> None:
        self.image(dag, s3_bucket)
        found = plan_module.plan(dag, date(2026, 11, 24), date(2026, 11, 26), {})
        assert [row["run"][:10] for row in found] == ["2026-11-24", "2026-11-25", "2026-11-26", "total"]

    def test_run_has_the_id_that_the_scheduler_gives_it(self) -> None:
        schedule = CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Berlin")
        [run] = runs_of(DAG("posters", schedule=schedule, start_date=START), DAY, DAY, {})
        assert run.logical_date.isoformat() == "2026-11-25T05:00:00+00:00"
        day = 26 if AIRFLOW >= (3, 2) else 25  # of the end of the interval, or of the logical date
        assert run.run_id == f"scheduled__2026-11-{day}T05:00:00+00:00"

    @pytest.mark.parametrize("native", [False, True])
    @pytest.mark.parametrize("schedule", ["@daily", None])
    @pytest.mark.parametrize(
        ("prompt", "verdict"),
        [
            ("{{ task_instance_key_str }}", "generate"),
            ("{{ logical_date.to_date_string() }}", "generate"),
            ("{{ prev_data_interval_end_success }}", "unknown"),
            ("{{ dag_run.start_date.year }}", "unknown"),
            ("{{ 'a' + 1 }}", "refuse"),
        ],
    )
    def test_template_is_rendered_or_unknown(
        self, native: bool, schedule: str | None, prompt: str, verdict: str, s3_bucket: str
    ) -> None:
        dag = DAG("posters", schedule=schedule, start_date=START, render_template_as_native_obj=native)
        self.image(dag, s3_bucket, prompt)
        assert plan(dag)[0][1] == verdict

    @pytest.mark.skipif(AIRFLOW >= (3, 0), reason="Airflow 3 renders a mapped task without a session")
    def test_mapped_task_leaves_no_session_open(self, dag: DAG, s3_bucket: str) -> None:
        sessions = import_module("airflow.utils.task_instance_session")
        with dag:
            IdeogramGenerateImageOperator.partial(task_id="image", s3_bucket=s3_bucket, s3_key="1.png").expand(
                prompt=["a cat"]
            )
        assert plan(dag)[0][1] == "generate"
        with sessions.set_current_task_instance_session(object()):  # fails if one is open
            pass

    def test_dag_without_a_schedule_has_one_run(self, s3_bucket: str) -> None:
        dag = DAG("by_hand", schedule=None, start_date=START, params={"theme": "cats"})
        self.image(dag, s3_bucket, "{{ params.theme }} {{ dag_run.conf['theme'] }}")
        assert plan(dag, last=date(2026, 11, 30), theme="dogs") == [
            ("image", "generate", 1, "0.05"),
            ("ideogram_default", "total", 1, "0.05"),
        ]

    def test_time_and_budgets_of_the_account(self, dag: DAG, s3_bucket: str, account: Account) -> None:
        account(requests_per_minute=5, max_cost_usd_per_day=0.25, max_cost_usd_per_month=100)
        with dag:
            IdeogramGenerateImageOperator.partial(
                task_id="image", s3_bucket=s3_bucket, s3_key="{{ ti.map_index }}.png"
            ).expand(prompt=[f"number {number}" for number in range(10)])
        assert plan(dag)[-1] == ("ideogram_default", "total", 10, "0.50")
        assert details(dag)[-1] == "about 2 min at 5 a minute; max_cost_usd_per_day has 0.25 USD left"


class TestCommand:
    def test_prints_json_and_tells_refusals_by_its_exit_code(
        self, dag: DAG, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        with dag:
            IdeogramGenerateImageOperator(task_id="image", prompt="new", s3_key="s3://missing-bucket/1.png")
        monkeypatch.setattr(plan_module, "load_dag", {"posters": dag}.__getitem__)

        assert main(["plan", "posters", "--from", "2026-11-25", "-o", "json"]) == 1

        assert [row["plan"] for row in json.loads(capsys.readouterr().out)] == ["refuse", "total"]

    def test_dag_that_is_missing_is_an_error(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow.utils.cli.get_bagged_dag", {}.__getitem__, raising=False)
        monkeypatch.setattr("airflow.utils.cli.get_dag", {}.__getitem__, raising=False)
        assert main(["plan", "none"]) == 1
        assert "DAG 'none' can't be read" in capsys.readouterr().err


class TestDryRun:
    def log_of(self, operator: Any) -> str:
        """Return what the operator's dry run logs, and check that S3 is only read."""
        lines: list[str] = []
        with captured_logs(lines), calls_recorded() as calls:
            operator.dry_run()
        assert not [call for call in calls if call.startswith(("Put", "Delete"))]
        return "\n".join(lines)

    def test_dataset(self, s3_bucket: str, account: Account) -> None:
        account(requests_per_minute=60)
        prefix = f"s3://{s3_bucket}/set"
        log = self.log_of(IdeogramGenerateDatasetOperator(task_id="set", prompts=["one", "two"], s3_prefix=prefix))
        assert "generate: 2 images for 0.10 USD at most" in log
        assert "Submits at most: 2, for 0.10 USD at most; about 2 s at 60 a minute" in log

    def test_image_that_is_stored(self, s3: S3Client, s3_bucket: str) -> None:
        store(s3, s3_bucket, "1.png", prompt="a cat")
        arguments: dict[str, Any] = {"prompt": "a cat", "s3_key": "1.png", "s3_bucket": s3_bucket}
        log = self.log_of(IdeogramGenerateImageOperator(task_id="image", **arguments))
        assert "reuse: 1 images" in log
        assert "Submits at most: 0, for 0.00 USD at most; no rate is known" in log

    def test_decorated_function_is_not_called(self, dag: DAG, s3_bucket: str) -> None:
        with dag:

            @task.ideogram(s3_bucket=s3_bucket, s3_key="1.png")
            def image() -> str:
                raise AssertionError("it is called")

            image()
        assert "generate: 1 images for 0.05 USD at most" in self.log_of(dag.get_task("image"))

    def test_argument_that_is_not_valid(self, s3_bucket: str) -> None:
        arguments: dict[str, Any] = {"prompt": "{{ '' }}", "s3_key": "1.png", "s3_bucket": s3_bucket}
        operator = IdeogramGenerateImageOperator(task_id="image", **arguments)
        operator.prompt = ""
        assert "refuse: 1 images (Task 'image': prompt: must not be empty" in self.log_of(operator)
