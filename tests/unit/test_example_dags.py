from __future__ import annotations

from pathlib import Path

import pytest

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag

from dev import demo
from tests.support.airflow_version import AIRFLOW, need_airflow

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
TASKS = {
    "ideogram_one_image": {"generate"},
    "ideogram_downstream": {"generate", "make_thumbnail"},
    "ideogram_nightly_set": {"generate", "make_contact_sheet"},
    "ideogram_daily_dataset": {"make_images"},
    "ideogram_on_manifest": {"summarize"},
    "ideogram_approval": {"draft", "approve", "publish"},
    "ideogram_submit_and_wait": {"submit", "wait"},
}


def parse(name: str) -> DagBag:
    return DagBag(dag_folder=str(EXAMPLES / f"{name}.py"))


def test_every_example_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_example_is_imported_with_its_tasks(name):
    if name == "ideogram_approval":
        need_airflow("3.1", "approval by a person")
    bag = parse(name)

    assert bag.import_errors == {}
    assert set(bag.dags) == {name}
    assert set(bag.dags[name].task_ids) == TASKS[name]


@pytest.mark.parametrize("name", ["ideogram_downstream", "ideogram_nightly_set"])
def test_images_go_to_the_task_that_reads_them(name):
    generate = parse(name).dags[name].get_task("generate")

    assert len(generate.downstream_task_ids) == 1


def test_nightly_set_is_what_the_demonstration_announces():
    dag = parse(demo.DAG_ID).dags[demo.DAG_ID]

    images = dag.get_task(demo.IMAGE_TASK).expand_input.value
    assert len(images) == demo.IMAGES
    assert len({image["s3_key"] for image in images}) == demo.IMAGES
    assert dag.get_task(demo.SHEET_TASK).upstream_task_ids == {demo.IMAGE_TASK}


def test_what_comes_after_a_dataset_is_scheduled_on_its_asset():
    [made] = parse("ideogram_daily_dataset").dags["ideogram_daily_dataset"].get_task("make_images").outlets
    timetable = parse("ideogram_on_manifest").dags["ideogram_on_manifest"].timetable

    condition = timetable.asset_condition if AIRFLOW >= (3, 0) else timetable.dataset_condition
    assert [asset.uri for asset in condition.objects] == [made.uri]
