"""Run the slices of a task in the task runner of Airflow 3, without a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

from airflow.models.trigger import Trigger
from airflow.sdk import DAG
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels import _generated as datamodels
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, run_task_in_process

from tests.support.airflow_version import sdk_httpx
from tests.support.execution_api import ExecutionApi, StoredTask
from tests.support.task_runner import DAG_ID, RUN_ID, TaskRun, TaskRunner

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

try:
    from airflow.sdk.serde import deserialize, serialize
    from airflow.serialization.decoders import smart_decode_trigger_kwargs
except ImportError:  # before Airflow 3.2
    from airflow.serialization.serialized_objects import (  # type: ignore[attr-defined,no-redef]
        BaseSerialization,
        smart_decode_trigger_kwargs,
    )

    deserialize, serialize = BaseSerialization.deserialize, BaseSerialization.serialize  # type: ignore[assignment]


@contextmanager
def task_runner() -> Iterator[TaskRunner]:
    """Yield the function that makes the task instances of a test."""
    yield partial(SdkTaskRun, ExecutionApi())


class SdkTaskRun(TaskRun):
    """
    One task instance.

    :param api: Keeps what Airflow's database would.
    """

    def __init__(
        self,
        api: ExecutionApi,
        operator: BaseOperator | MappedOperator,
        *,
        run_id: str = RUN_ID,
        map_index: int = -1,
        conf: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(operator)
        if not operator.has_dag():
            DAG(DAG_ID, schedule=None).add_task(operator)
        self.api = api
        key = (operator.dag_id, run_id, operator.task_id, map_index)
        self._task = StoredTask(key, max_tries=operator.retries or 0, conf=conf or {})
        api.tasks.append(self._task)

    @property
    def state(self) -> str:
        """The task's state."""
        return self._task.state

    @property
    def xcoms(self) -> dict[str, Any]:
        """All XComs of the task as they are stored."""
        return self.api.xcoms.get(self._task.key, {})

    @property
    def deferral(self) -> dict[str, Any] | None:
        """The stored data of the last deferral, with the trigger's arguments as the triggerer reads them."""
        if self._task.deferral is None:
            return None
        stored = json.dumps(self._task.deferral["trigger_kwargs"])
        kwargs = {name: smart_decode_trigger_kwargs(value) for name, value in Trigger._decrypt_kwargs(stored).items()}
        return self._task.deferral | {"trigger_kwargs": kwargs}

    @property
    def rendered_fields(self) -> dict[str, Any]:
        """The template fields as rendered for the last slice."""
        return self._task.rendered_fields

    @property
    def asset_events(self) -> list[dict[str, Any]]:
        """The extras of the asset events that came with the task's success."""
        return [event["extra"] for event in self._task.outlet_events]

    @property
    def asset_uris(self) -> list[str]:
        """The assets of those events."""
        return [event["dest_asset_key"]["uri"] for event in self._task.outlet_events]

    def link(self, name: str) -> str:
        """Return the address of a link, which the task runner stores as an XCom."""
        [link] = [link for link in self.operator.operator_extra_links if link.name == name]
        address: str = self.xcoms[link.xcom_key]
        return address

    def _run(self) -> BaseException | None:
        dag_id, run_id, task_id, map_index = self._task.key
        of_version: dict[str, Any] = {}
        if "dag_version_id" in datamodels.TaskInstance.model_fields:
            of_version["dag_version_id"] = uuid4()
        instance = datamodels.TaskInstance(
            id=self._task.id,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            try_number=self._task.try_number,
            **of_version,
        )
        with (
            Client(base_url=None, token="", dry_run=True, transport=sdk_httpx.MockTransport(self.api)) as client,
            # From Airflow 3.3 on it could be passed as an argument.
            mock.patch.object(InProcessTestSupervisor, "_api_client", return_value=client),
        ):
            client.base_url = "http://execution-api.invalid/"
            return run_task_in_process(instance, self.operator).error

    def _take_event(self, event: Any) -> None:
        kwargs: Any = deserialize(self._task.next_kwargs or {})
        self._resume_with({**kwargs, "event": event})

    def _take_timeout(self) -> None:
        self._task.next_method = TRIGGER_FAIL_REPR
        self._resume_with({"error": TriggerFailureReason.TRIGGER_TIMEOUT.value})

    def _resume_with(self, next_kwargs: dict[str, Any]) -> None:
        self._task.next_kwargs = json.loads(json.dumps(serialize(next_kwargs)))
        self._task.state = "queued"

    def _next_try(self, *, cleared: bool) -> None:
        if cleared:
            self._task.max_tries = self._task.try_number + self.operator.retries
        self._task.next_try()

    def _stored(self) -> list[str]:
        return [*self.api.received, repr(self.api.tasks), repr(self.api.xcoms)]
