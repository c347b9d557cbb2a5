"""
The DAGs of a simulation, by profile: which task instances there are, and what their authors chose.

Invariant: a profile draws everything from the simulation's random numbers, and names everything that it draws in the
trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from airflow_provider_ideogram.decorators.ideogram import _IdeogramDecoratedOperator
from airflow_provider_ideogram.operators.dataset import IdeogramGenerateDatasetOperator
from airflow_provider_ideogram.operators.image import IdeogramGenerateImageOperator
from airflow_provider_ideogram.sensors import IdeogramRequestSensor
from tests.simulation.lifecycle import TaskInstance
from tests.simulation.s3 import BUCKET
from tests.simulation.submits import Policy

_PREFIX = "set/"
_PRICE = 0.05
#: How many DAGs have a ledger.
_DURABLE = 0.9


@dataclass
class Dag:
    """
    The tasks of a simulation.

    :param tasks: The task instances.
    :param policies: What they say about money, by name.
    :param excluded: Kinds of faults that would only disturb.
    :param is_durable: Whether the tasks have a ledger.
    """

    tasks: list[TaskInstance] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    is_durable: bool = True

    def add(self, task: TaskInstance, policy: Policy) -> None:
        """Add a task instance."""
        self.tasks.append(task)
        self.policies[task.name] = policy


def _policy(rng: Random, dag: Dag) -> Policy:
    return Policy(
        resubmit=rng.random() < 0.15,
        resubmit_on_5xx=rng.random() < 0.8,
        if_exists=rng.choice(("reuse", "reuse", "reuse", "overwrite", "fail")),
        durable=dag.is_durable,
    )


def _common(rng: Random, policy: Policy) -> dict[str, Any]:
    """Draw the arguments that all operators have."""
    return {
        "retries": 2,
        "if_exists": policy.if_exists,
        "on_unknown_submit": "resubmit" if policy.resubmit else "fail",
        "resubmit_on_5xx": policy.resubmit_on_5xx,
        "durable": policy.durable,
        "timeout": rng.choice((60, 600, 600, 7200)),
        "deferrable": rng.random() < 0.85,
    }


def _task(rng: Random, name: str, make: Callable[[TaskInstance], Any]) -> TaskInstance:
    begins_at = rng.choice((0.0, rng.uniform(0.0, 60.0), rng.uniform(0.0, 4000.0)))
    return TaskInstance(
        name, make, retries=rng.choice((0, 2, 2, 3)), clears_left=rng.choice((0, 0, 1, 2)), begins_at=begins_at
    )


def image(rng: Random) -> Dag:
    """One to three tasks generate an image at one target, or at two."""
    dag = Dag(is_durable=rng.random() < _DURABLE)
    keys = [rng.choice(("a.png", "a.png", "a.png", "images/")) for _ in range(1)] + ["b.png"]
    for name in "ABC"[: rng.choice((1, 1, 2, 2, 3))]:
        policy = _policy(rng, dag)
        arguments = {
            **_common(rng, policy),
            "s3_key": f"s3://{BUCKET}/{keys[rng.random() < 0.15]}",
            "wait_for_completion": rng.random() < 0.9,
            "seed": rng.choice((None, None, None, 7)),
        }
        prompt = rng.choice(("a lighthouse", "a lighthouse", f"a harbour of {name}"))
        dag.add(_task(rng, name, _image_of(prompt, arguments)), policy)
    return dag


def _image_of(prompt: str, arguments: dict[str, Any]) -> Callable[[TaskInstance], Any]:
    def make(task: TaskInstance) -> IdeogramGenerateImageOperator:
        text = f"{prompt}, version {task.version}" if task.version else prompt
        waits = {"wait_for_completion": True} if task.must_wait else {}
        return IdeogramGenerateImageOperator(task_id=task.task_id, prompt=text, **arguments | waits)

    return make


def decorator(rng: Random) -> Dag:
    """A function returns the prompt, another one each time that it is called; sometimes of two tasks for one target."""
    dag = Dag(is_durable=rng.random() < _DURABLE, excluded=frozenset({"inputs changed"}))
    key = rng.choice(("a.png", "images/"))
    for name in "AB"[: rng.choice((1, 1, 2))]:
        policy = replace(_policy(rng, dag), is_function=True)
        arguments = {**_common(rng, policy), "s3_key": f"s3://{BUCKET}/{key}"}
        dag.add(_task(rng, name, _decorated_of(name, arguments)), policy)
    return dag


def _decorated_of(name: str, arguments: dict[str, Any]) -> Callable[[TaskInstance], Any]:
    def make(task: TaskInstance) -> Any:
        def draft() -> str:
            task.calls += 1
            return f"a lighthouse of {name}, draft {task.calls}"

        return _IdeogramDecoratedOperator(task_id=task.task_id, python_callable=draft, **arguments)

    return make


def sensor(rng: Random) -> Dag:
    """A task submits a request and ends; a sensor stores its image, at the same target or elsewhere."""
    dag = Dag(is_durable=rng.random() < _DURABLE)
    policy = _policy(rng, dag)
    arguments = {**_common(rng, policy), "s3_key": f"s3://{BUCKET}/a.png", "wait_for_completion": False}
    submitting = _task(rng, "A", _image_of("a lighthouse", arguments))
    dag.add(submitting, policy)
    watching = Policy(if_exists=rng.choice(("reuse", "overwrite")), is_sensor=True)
    own = {
        "s3_key": f"s3://{BUCKET}/{rng.choice(('a.png', 'a.png', 'elsewhere.png', 'elsewhere/'))}",
        "if_exists": watching.if_exists,
        "timeout": rng.choice((60, 3600)),
        "deferrable": rng.random() < 0.85,
    }
    task = _task(rng, "S", _sensor_of(submitting, own, takes_id=rng.random() < 0.2))
    task.after = submitting
    dag.add(task, watching)
    if rng.random() < 0.3:
        policy = _policy(rng, dag)
        arguments = {**_common(rng, policy), "s3_key": f"s3://{BUCKET}/a.png"}
        dag.add(_task(rng, "B", _image_of("a lighthouse", arguments)), policy)
    return dag


def _sensor_of(submitting: TaskInstance, arguments: dict[str, Any], *, takes_id: bool) -> Callable[[TaskInstance], Any]:
    def make(task: TaskInstance) -> IdeogramRequestSensor:
        result = submitting.last_result
        request = result["request_id"] if takes_id else result
        return IdeogramRequestSensor(task_id=task.task_id, request=request, **arguments)

    return make


def dataset(rng: Random) -> Dag:
    """One or two tasks generate the same dataset, whose chunks are small."""
    dag = Dag(is_durable=rng.random() < _DURABLE)
    rows = rng.choice((2, 4, 7))
    for name in "DE"[: rng.choice((1, 1, 2))]:
        dag.add(*_dataset_task(rng, name, rows, dag))
    return dag


def mixed(rng: Random) -> Dag:
    """A dataset, and single images at some of its keys."""
    dag = Dag(is_durable=rng.random() < _DURABLE)
    rows = rng.choice((2, 4))
    dag.add(*_dataset_task(rng, "D", rows, dag))
    for number, name in enumerate("AB"[: rng.choice((1, 2))]):
        policy = _policy(rng, dag)
        arguments = {**_common(rng, policy), "s3_key": f"s3://{BUCKET}/{_PREFIX}r{number}"}
        dag.add(_task(rng, name, _image_of(_prompt(number, 0), arguments)), policy)
    return dag


def _dataset_task(rng: Random, name: str, rows: int, dag: Dag) -> tuple[TaskInstance, Policy]:
    policy = _policy(rng, dag)
    if rng.random() < 0.4:
        policy = replace(policy, max_cost_usd=round(_PRICE * (rows + rng.choice((0, 0, 1))), 2))
    arguments = {
        **_common(rng, policy),
        "deferrable": True,
        "s3_prefix": f"s3://{BUCKET}/{_PREFIX}",
        "max_in_flight": rng.choice((1, 2, 3, 50)),
        "max_failures": rng.choice((0, 0, 1)),
        "requests_per_minute": rng.choice((None, None, 20)),
        "dedupe": rng.random() < 0.2,
    }
    return _task(rng, name, _dataset_of(rows, arguments, policy)), policy


def _dataset_of(rows: int, arguments: dict[str, Any], policy: Policy) -> Callable[[TaskInstance], Any]:
    def make(task: TaskInstance) -> IdeogramGenerateDatasetOperator:
        prompts = [{"id": f"r{row}", "prompt": _prompt(row, task.version)} for row in range(rows)]
        if arguments["dedupe"]:
            prompts.append({"id": "copy", "prompt": _prompt(0, task.version)})
        limit = None if task.is_limit_raised else policy.max_cost_usd
        return IdeogramGenerateDatasetOperator(task_id=task.task_id, prompts=prompts, max_cost_usd=limit, **arguments)

    return make


def _prompt(row: int, version: int) -> str:
    """Return a row's prompt: a change of the inputs mends one row."""
    return f"row {row}, version {version}" if version and row == version % 2 else f"row {row}"


PROFILES: dict[str, Callable[[Random], Dag]] = {
    "image": image,
    "sensor": sensor,
    "decorator": decorator,
    "dataset": dataset,
    "mixed": mixed,
}
