"""What rendering, native rendering and mapping make of arguments: valid ones are used, others fail before a call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator
from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from tests.support.task_runner import DAG_ID
from tests.support.world import KEY, PROMPT, assert_error

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRun, TaskRunner
    from tests.support.world import World

pytestmark = pytest.mark.usefixtures("ideogram_connection")

RETURN = "{{ params.value }}"


def _run(runner: TaskRunner, operator: Any, *, native: bool = True, **params: Any) -> TaskRun:
    dag = DAG(DAG_ID, schedule=None, render_template_as_native_obj=native, params=params)
    dag.add_task(operator)
    return runner(operator)


def _image(world: World, **arguments: Any) -> IdeogramGenerateImageOperator:
    defaults: dict[str, Any] = {"task_id": "generate", "prompt": PROMPT, "s3_key": world.uri(), "retries": 3}
    return IdeogramGenerateImageOperator(**(defaults | arguments))


@pytest.mark.parametrize("prompt", ['"OPEN"', "1984", "None of them", "[1, 2]", "a\n", "(a cat)"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_literal_is_sent_unchanged(prompt: str, native: bool, task_runner: TaskRunner, world: World) -> None:
    run = _run(task_runner, _image(world, prompt=prompt), native=native)

    assert run.to_end().state == "success"

    [request] = world.emulator.requests()
    assert request.inputs["prompt"] == prompt


def test_literals_of_a_mapping_are_sent_unchanged(task_runner: TaskRunner, world: World) -> None:
    operator = _image(world, model_params={"title": "1984", "year": "{{ params.year }}"})

    assert _run(task_runner, operator, year=1984).to_end().state == "success"

    [request] = world.emulator.requests()
    assert (request.inputs["title"], request.inputs["year"]) == ("1984", 1984)


@pytest.mark.parametrize(
    ("arguments", "value", "problem"),
    [
        ({"prompt": RETURN}, None, "prompt: must be text, not NoneType"),
        ({"prompt": RETURN}, [1], "prompt: must be text, not list"),
        ({"resolution": RETURN}, 7, "resolution: must be text, not int"),
        ({"seed": RETURN}, [7], "seed: a value of type list is not an integer"),
        ({"s3_key": RETURN}, None, "s3_key: must be a key"),
        ({"s3_bucket": RETURN, "s3_key": KEY}, 7, "s3_bucket: 7 is not a bucket's name"),
        ({"ideogram_conn_id": RETURN}, None, "ideogram_conn_id: None is not the id of a connection"),
        ({"aws_conn_id": RETURN}, [1], "aws_conn_id: a value of type list is not the id"),
        ({"s3_extra_args": RETURN}, [1], "s3_extra_args: must be a mapping"),
        ({"s3_extra_args": RETURN}, {"1": 2, "ACL": "private"}, "s3_extra_args: "),
        ({"model_params": RETURN}, "x", "model_params: must be a mapping"),
    ],
)
def test_rendered_value_of_another_type_fails_before_a_call(
    arguments: dict[str, Any], value: Any, problem: str, task_runner: TaskRunner, world: World
) -> None:
    run = _run(task_runner, _image(world, **arguments), value=value)

    result = run.execute()

    assert result.state == "failed"
    assert_error(result, problem, "Nothing was sent or charged")
    assert run.xcom("failure")["reason"] == "invalid_input"
    assert world.emulator.stats().calls == {}


@pytest.mark.parametrize("value", [None, float("nan")], ids=["None", "nan"])
def test_prompt_that_is_rendered_from_nothing_fails(value: Any, task_runner: TaskRunner, world: World) -> None:
    result = _run(task_runner, _image(world, prompt="{{ params.value }}"), native=False, value=value).execute()

    assert result.state == "failed"
    assert_error(result, "which a template renders for a missing value", "Nothing was sent or charged")
    assert world.emulator.stats().calls == {}


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_rendered_whole_number_is_a_seed(value: Any, task_runner: TaskRunner, world: World) -> None:
    run = _run(task_runner, _image(world, seed=RETURN), value=value)

    assert run.to_end().state == "success"

    assert run.xcom()["seed"] == 7


def _expanded(partial: Any, **values: Iterable[Any]) -> Any:
    with DAG(DAG_ID, schedule=None):
        return partial.expand(**values)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("prompt", None, "prompt: must be text, not NoneType"),
        ("resolution", "832x1217", "resolution: '832x1217' is not one of the model's 78 resolutions. The nearest is"),
        ("timeout", "soon", "timeout: 'soon' is not a number of seconds"),
        ("if_exists", "overwrit", "Did you mean 'overwrite'?"),
        ("durable", "no", "durable: 'no' is neither True nor False"),
    ],
)
def test_invalid_mapped_value_fails_without_a_retry(
    name: str, value: Any, problem: str, task_runner: TaskRunner, world: World
) -> None:
    arguments = {"prompt": PROMPT, "s3_key": world.uri(), "retries": 3, "task_id": "generate"}
    arguments.pop(name, None)
    run = task_runner(_expanded(IdeogramGenerateImageOperator.partial(**arguments), **{name: [value]}), map_index=0)

    result = run.execute()

    assert result.state == "failed"
    assert_error(result, "Task 'generate': ", problem, "Nothing was sent or charged")
    assert run.xcom("failure")["reason"] == "invalid_input"
    assert world.emulator.stats().calls == {}


def test_valid_mapped_values_are_read(task_runner: TaskRunner, world: World) -> None:
    partial = IdeogramGenerateImageOperator.partial(task_id="generate", prompt=PROMPT, s3_key=world.uri())
    mapped = _expanded(partial, seed=[Decimal(7)], timeout=[timedelta(minutes=5)])

    run = task_runner(mapped, map_index=0)

    assert run.to_end().state == "success"
    assert run.xcom()["seed"] == 7


def test_mapped_dataset_with_invalid_values_fails(task_runner: TaskRunner, world: World) -> None:
    partial = IdeogramGenerateDatasetOperator.partial(task_id="generate", s3_prefix=world.uri("day"), retries=3)
    run = task_runner(_expanded(partial, prompts=["a cat"], max_failures=["few"]), map_index=0)

    result = run.execute()

    assert result.state == "failed"
    assert_error(result, "Task 'generate': 2 problems", "must be a list of rows", "max_failures: 'few' is not a number")
    assert world.emulator.stats().calls == {}


@pytest.mark.parametrize("name", ["poke_interval", "timeout"])
def test_mapped_sensor_with_an_invalid_duration_fails(name: str, task_runner: TaskRunner, world: World) -> None:
    partial = IdeogramRequestSensor.partial(task_id="wait", request="r-1", s3_key=world.uri(), retries=3)
    run = task_runner(_expanded(partial, **{name: ["soon"]}), map_index=0)

    result = run.execute()

    assert result.state == "failed"
    assert_error(result, f"Task 'wait': {name}: 'soon' is not a number of seconds")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"prompts": RETURN, "s3_prefix": "s3://bucket/a"},
            "prompts, prompts_path: give one of them; neither",
        ),
        ({"prompts": ["a cat"], "s3_prefix": RETURN}, "s3_prefix: must be a key"),
        ({"prompts_path": RETURN, "s3_prefix": "s3://bucket/a"}, "give one of them"),
    ],
)
def test_dataset_from_nothing_fails(
    arguments: dict[str, Any], problem: str, task_runner: TaskRunner, world: World
) -> None:
    operator = IdeogramGenerateDatasetOperator(task_id="generate", retries=3, **arguments)

    result = _run(task_runner, operator, value=None).execute()

    assert result.state == "failed"
    assert_error(result, "Task 'generate': ", problem)
    assert world.emulator.stats().calls == {}
