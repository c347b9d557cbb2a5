"""What a task reports to other systems: asset events, lineage and metrics."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import statsd  # type: ignore[import-untyped]
from airflow.listeners import hookimpl
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from airflow_provider_ideogram import metrics
from airflow_provider_ideogram.datasets import settling, waiting
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator
from tests.support.world import KEY

try:
    from airflow.sdk._shared.observability.metrics.statsd_logger import SafeStatsdLogger
    from airflow.sdk.listener import get_listener_manager
except ImportError:  # before Airflow 3.2
    from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    from airflow.metrics.statsd_logger import SafeStatsdLogger  # type: ignore[import-not-found,no-redef]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.task_runner import TaskRunner
    from tests.support.world import Generate


@pytest.fixture
def dataset(
    ideogram_connection: str, s3_bucket: str, s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> IdeogramGenerateDatasetOperator:
    """Return a dataset of three prompts in a file, of which one may fail."""
    monkeypatch.setattr(settling, "EXPECTED_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "MIN_WAIT_SECONDS", 0.05)
    rows = [{"id": str(number), "prompt": f"lighthouse {number}"} for number in range(3)]
    s3.put_object(Bucket=s3_bucket, Key="prompts.jsonl", Body="\n".join(map(json.dumps, rows)).encode())
    return IdeogramGenerateDatasetOperator(
        task_id="assets",
        prompts_path=f"s3://{s3_bucket}/prompts.jsonl",
        s3_prefix=f"s3://{s3_bucket}/assets",
        key_template="{id}.png",
        max_failures=1,
        deferrable=False,
    )


class TestAssets:
    def test_event_of_an_asset_has_the_images_xcom(self, generate: Generate, task_runner: TaskRunner) -> None:
        with DAG("outlets", schedule=None):
            operator = generate(outlets=[Asset("s3://posters")])
        run = task_runner(operator)

        assert run.to_end().state == "success"

        assert run.asset_events == [run.xcom()]

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            (KEY, KEY),
            ("posters/C# and ?b=1&a=2 at 5%23.png", "posters/C%23 and %3Fb=1&a=2 at 5%2523.png"),
        ],
    )
    def test_alias_becomes_the_asset_of_the_image(
        self, key: str, path: str, generate: Generate, task_runner: TaskRunner, s3_bucket: str
    ) -> None:
        with DAG("outlets", schedule=None):
            operator = generate(s3_key=key, outlets=[AssetAlias("posters")])
        run = task_runner(operator)

        assert run.to_end().state == "success"

        assert run.asset_events == [run.xcom()]
        assert run.asset_uris == [f"s3://{s3_bucket}/{path}"]
        assert run.xcom()["uri"] == f"s3://{s3_bucket}/{key}"

    def test_reused_image_is_an_event_too(self, generate: Generate, task_runner: TaskRunner) -> None:
        task_runner(generate()).to_end()
        with DAG("outlets", schedule=None):
            operator = generate(outlets=[Asset("s3://posters")])
        run = task_runner(operator, run_id="later")

        assert run.execute().state == "success"

        assert [extra["reused"] for extra in run.asset_events] == [True]


class SuccessListener:
    """Keeps the operator of the task that succeeded, as the listener of the openlineage provider does."""

    def __init__(self) -> None:
        self.operator: Any = None

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        self.operator = task_instance.task


def _extract(operator: Any) -> Any:
    """Return the lineage that the openlineage provider extracts."""
    return DefaultExtractor(operator).extract_on_complete(None)


class TestLineage:
    @pytest.fixture
    def listener(self) -> Iterator[SuccessListener]:
        manager, listener = get_listener_manager(), SuccessListener()
        manager.add_listener(listener)
        try:
            yield listener
        finally:
            manager.pm.unregister(listener)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_image_is_an_output(
        self, deferrable: bool, generate: Generate, task_runner: TaskRunner, listener: SuccessListener, s3_bucket: str
    ) -> None:
        run = task_runner(generate(deferrable=deferrable))
        run.to_end()

        found = _extract(listener.operator)

        [output] = found.outputs
        assert (output.namespace, output.name) == (f"s3://{s3_bucket}", KEY)
        statistics = output.outputFacets["outputStatistics"]
        assert (statistics.fileCount, statistics.size) == (1, run.xcom()["size_bytes"])
        assert found.inputs == []

    def test_task_without_an_image_has_no_output(self, generate: Generate) -> None:
        assert _extract(generate()).outputs == []

    def test_dataset_has_prompts_as_input_and_images_as_output(
        self,
        dataset: IdeogramGenerateDatasetOperator,
        task_runner: TaskRunner,
        listener: SuccessListener,
        s3_bucket: str,
    ) -> None:
        result = task_runner(dataset).to_end()
        assert result.state == "success", result.log_text

        found = _extract(listener.operator)

        namespace = f"s3://{s3_bucket}"
        assert [(one.namespace, one.name) for one in found.inputs] == [(namespace, "prompts.jsonl")]
        assert [(one.namespace, one.name, one.outputFacets["outputStatistics"].fileCount) for one in found.outputs] == [
            (namespace, "assets", 3),
            (namespace, "assets/manifest.jsonl", 1),
        ]

    def test_local_prompts_are_a_file_input(self, s3_bucket: str) -> None:
        operator = IdeogramGenerateDatasetOperator(
            task_id="assets", prompts_path="/data/prompts.csv", s3_prefix=f"s3://{s3_bucket}/assets"
        )

        [prompts] = _extract(operator).inputs

        assert (prompts.namespace, prompts.name) == ("file", "/data/prompts.csv")


class RecordedStats:
    """Stands in for Airflow's Stats and keeps what is reported."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.times: dict[str, list[float]] = {}
        self.tags: dict[str, Any] = {}

    def incr(self, name: str, count: int = 1, *, tags: dict[str, str] | None = None) -> None:
        self.counts[name] += count
        self.tags[name] = tags

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def timing(self, name: str, milliseconds: float, *, tags: dict[str, str] | None = None) -> None:
        self.times.setdefault(name, []).append(milliseconds)


class TestMetrics:
    @pytest.fixture
    def stats(self, monkeypatch: pytest.MonkeyPatch) -> RecordedStats:
        stats = RecordedStats()
        monkeypatch.setattr(metrics, "Stats", stats)
        return stats

    def test_image_is_counted_once_with_its_cost(
        self, generate: Generate, task_runner: TaskRunner, stats: RecordedStats
    ) -> None:
        task_runner(generate()).to_end()
        task_runner(generate(), run_id="later").to_end()

        assert stats.counts == {
            "ideogram.submitted": 1,
            "ideogram.cost_micros": 50_000,
            "ideogram.completed": 1,
            "ideogram.reused": 1,
        }
        assert stats.tags["ideogram.cost_micros"] == {"model": "ideogram-2a-txt-2-img"}
        assert stats.gauges == {"ideogram.remaining_credits": pytest.approx(999.95)}
        assert stats.times["ideogram.inference"] == [150.0]
        assert len(stats.times["ideogram.noticed_delay"]) == 1

    @pytest.mark.parametrize(
        ("fault", "arguments", "reason"),
        [
            ({"on": "job", "kind": "failed"}, {}, "request_failed"),
            ({"on": "job", "kind": "blocked"}, {}, "content_blocked"),
            ({"on": "job", "kind": "blocked"}, {"on_content_blocked": "skip"}, "content_blocked"),
            ({"on": "submit", "kind": "credits_402"}, {}, "insufficient_credits"),
            ({"on": "submit", "kind": "credits_406"}, {}, "insufficient_credits"),
            ({"on": "submit", "kind": "spend_limit"}, {}, "spend_limit"),
            ({"on": "submit", "kind": "parameter_refused"}, {}, "invalid_input"),
        ],
    )
    def test_failure_is_counted_by_its_reason(
        self,
        fault: dict[str, Any],
        arguments: dict[str, Any],
        reason: str,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        stats: RecordedStats,
    ) -> None:
        ideogram_emulator.fault(**fault)

        task_runner(generate(**arguments)).to_end()

        assert {name: n for name, n in stats.counts.items() if "failed" in name} == {
            "ideogram.failed": 1,
            f"ideogram.failed.{reason}": 1,
        }
        assert stats.tags["ideogram.failed"] == {"reason": reason}
        assert stats.counts["ideogram.cost_micros"] == 0

    def test_items_of_a_dataset_are_counted(
        self,
        dataset: IdeogramGenerateDatasetOperator,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        stats: RecordedStats,
    ) -> None:
        ideogram_emulator.fault("job", "blocked")

        assert task_runner(dataset).to_end().state == "success"
        assert task_runner(dataset, run_id="later").to_end().state == "success"

        assert stats.counts == {
            "ideogram.submitted": 4,
            "ideogram.cost_micros": 150_000,
            "ideogram.completed": 3,
            "ideogram.failed": 1,
            "ideogram.failed.content_blocked": 1,
            "ideogram.reused": 2,
        }

    def test_statsd_receives_the_documented_names(
        self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            client = statsd.StatsClient("127.0.0.1", server.getsockname()[1], prefix="airflow")
            request.addfinalizer(client.close)
            monkeypatch.setattr(metrics, "Stats", SafeStatsdLogger(client))
            record = mock.Mock(model="ideogram-2a-txt-2-img", cost_usd=0.05, inference_seconds=None)
            metrics.submitted("ideogram-2a-txt-2-img")
            metrics.completed(mock.Mock(), record, None)
            metrics.remaining_credits(12.5)
            metrics.failed("content_blocked")

            server.settimeout(5)
            sent = [server.recv(1024).decode() for _ in range(6)]
        assert sent == [
            "airflow.ideogram.submitted:1|c",
            "airflow.ideogram.completed:1|c",
            "airflow.ideogram.cost_micros:50000|c",
            "airflow.ideogram.remaining_credits:12.5|g",
            "airflow.ideogram.failed:1|c",
            "airflow.ideogram.failed.content_blocked:1|c",
        ]
