"""The example DAGs: they can be imported, and have the tasks and assets that the documentation describes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_ideogram.datasets.expansion import Expansion
from airflow_provider_ideogram.datasets.prompt_template import PromptTemplate
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.storage.target import Target
from dev import demo
from tests.support.airflow_version import AIRFLOW, DagBag, need_airflow

if TYPE_CHECKING:
    from airflow.sdk import DAG
    from mypy_boto3_s3 import S3Client

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
TASKS = {
    "ideogram_one_image": {"generate"},
    "ideogram_downstream": {"generate", "make_thumbnail"},
    "ideogram_nightly_set": {"generate", "make_contact_sheet"},
    "ideogram_daily_dataset": {"make_images"},
    "ideogram_campaign": {"read_products", "make_images"},
    "ideogram_on_manifest": {"summarize"},
    "ideogram_approval": {"draft", "approve", "publish"},
    "ideogram_submit_and_wait": {"submit", "wait"},
    "ideogram_sister_model": {"generate"},
}


def _dag(name: str) -> DAG:
    bag = DagBag(dag_folder=str(EXAMPLES / f"{name}.py"))
    assert bag.import_errors == {}
    assert set(bag.dags) == {name}
    dag: Any = bag.dags[name]
    return dag  # type: ignore[no-any-return]


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_example_is_imported_with_its_tasks(name: str) -> None:
    if name == "ideogram_approval":
        need_airflow("3.1", "approval by a person")

    assert set(_dag(name).task_ids) == TASKS[name]


@pytest.mark.parametrize("name", ["ideogram_downstream", "ideogram_nightly_set"])
def test_images_go_to_the_task_that_reads_them(name: str) -> None:
    assert len(_dag(name).get_task("generate").downstream_task_ids) == 1


def test_nightly_set_has_the_images_of_the_demonstration() -> None:
    dag = _dag(demo.NIGHTLY.dag_id)
    generate: Any = dag.get_task(demo.IMAGE_TASK)

    images = generate.expand_input.value
    assert len(images) == demo.NIGHTLY.images
    assert len({image["s3_key"] for image in images}) == demo.NIGHTLY.images
    assert dag.get_task(demo.SHEET_TASK).upstream_task_ids == {demo.IMAGE_TASK}


def test_campaign_has_the_images_of_the_demonstration() -> None:
    dag = _dag(demo.CAMPAIGN.dag_id)
    products: Any = dag.get_task("read_products")
    make_images: Any = dag.get_task(demo.DATASET_TASK)
    rows = products.python_callable()
    checker = RowChecker(
        {},
        Target("b", "campaign/"),
        make_images.key_template,
        expansion=Expansion(make_images.variants, make_images.matrix),
        prompt_template=PromptTemplate(make_images.prompt_template),
    )

    items = list(checker.items((row["id"], row) for row in rows))

    assert checker.problems == []
    assert len(items) == demo.CAMPAIGN.images
    assert items[0].id == "mug-1024x1024-REALISTIC-1"
    assert items[0].request.prompt.endswith("that says 14.50")


def test_dag_after_a_dataset_is_scheduled_on_its_asset() -> None:
    make_images: Any = _dag("ideogram_daily_dataset").get_task("make_images")
    [asset] = make_images.outlets
    timetable: Any = _dag("ideogram_on_manifest").timetable

    condition = timetable.asset_condition if AIRFLOW >= (3, 0) else timetable.dataset_condition
    assert [scheduled.uri for scheduled in condition.objects] == [asset.uri]


@pytest.mark.parametrize(
    ("name", "asset"),
    [
        ("triggering_asset_events", Asset("ideogram_daily_images")),
        ("triggering_dataset_events", Asset("ideogram_daily_images").uri),  # Airflow 2.11
    ],
    ids=["asset", "dataset"],
)
def test_manifests_of_the_triggering_events_are_read(name: str, asset: Any, s3: S3Client) -> None:
    bucket, lines = "on-manifest", [("generated", "1024x1024"), ("reused", "1024x1024"), ("failed", "832x1216")]
    manifest = "\n".join(json.dumps({"status": status, "resolution": size}) for status, size in lines)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="images/manifest.jsonl", Body=manifest.encode())
    event = SimpleNamespace(extra={"manifest_uri": f"s3://{bucket}/images/manifest.jsonl"})
    summarize: Any = _dag("ideogram_on_manifest").get_task("summarize")

    class Events(dict[Any, Any]):
        """The events by asset, which Airflow finds without a hash: assets of 3.1 have none."""

        def __getitem__(self, asked: Any) -> Any:
            return [event] if asked == asset else []

    assert summarize.python_callable(**{name: Events()}) == {"1024x1024": 2}
