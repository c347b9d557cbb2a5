from __future__ import annotations

import inspect
import logging
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, Self

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, task

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.polling import RESULT_LIFETIME
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramInvalidInput,
    IdeogramJobFailed,
    IdeogramJobUnreachable,
    IdeogramNotFound,
    IdeogramResultExpired,
    IdeogramServerUnavailable,
)
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from airflow_provider_ideogram.operators.base import IdeogramBaseOperator

TEMPLATED = set(IdeogramGenerateImageOperator.template_fields)


def _operator(**arguments: Any) -> IdeogramGenerateImageOperator:
    return IdeogramGenerateImageOperator(
        **{"task_id": "image", "prompt": "a cat", "s3_key": "s3://my-bucket/cat.png", **arguments}
    )


def test_defaults_are_those_of_the_model() -> None:
    operator = _operator()
    assert (operator.resolution, operator.magic_prompt_option, operator.style_type, operator.seed) == (
        "RESOLUTION_1024_1024",
        "AUTO",
        "GENERAL",
        None,
    )
    assert (operator.deferrable, operator.durable, operator.if_exists) == (True, True, "reuse")


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolution": "512x1536", "seed": "7", "style_type": None, "model_params": {"guidance": 3}},
        {"s3_key": "a/", "s3_bucket": "my-bucket", "s3_extra_args": {"ACL": "private"}},
        {"if_exists": "fail", "on_content_blocked": "skip", "on_unknown_submit": "resubmit"},
        {"poll_interval": 0.5, "timeout": 1},
    ],
)
def test_valid_arguments(arguments: dict[str, Any]) -> None:
    operator = _operator(**arguments)
    assert {name: getattr(operator, name) for name in arguments} == arguments


BAD = {
    "prompt": (" ", "must not be empty"),
    "magic_prompt_option": ("on", "Did you mean 'ON'?"),
    "resolution": ("1000x1000", "The nearest is "),
    "style_type": ("GENRAL", "Did you mean 'GENERAL'?"),
    "seed": (-1, "is not within"),
    "model": ("a/b", "is not a model's slug"),
    "model_params": ({"seed": 1}, "must be given as parameters of their own"),
    "s3_key": ("cat.png", "names no bucket"),
    "s3_bucket": ("a bucket", "is not a bucket's name"),
    "s3_extra_args": ({"Key": "x"}, "are decided by the provider"),
    "if_exists": ("replace", "'replace' is not valid. Valid are reuse, overwrite, fail"),
    "on_unknown_submit": ("retry", "'retry' is not valid. Valid are fail, resubmit"),
    "on_content_blocked": ("retry", "'retry' is not valid. Valid are fail, skip"),
    "timeout": (0, "0 is not a number of seconds above 0"),
    "poll_interval": ("1", "'1' is not a number of seconds above 0"),
    "ideogram_conn_id": ("", "'' is not the id of a connection"),
    "aws_conn_id": (7, "7 is not the id of a connection"),
    "deferrable": ("false", "'false' is neither True nor False"),
    "durable": (None, "None is neither True nor False"),
    "wait_for_completion": (0, "0 is neither True nor False"),
    "ledger_prefix": ("a" * 65, "is not printable text of at most 64 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistake_shows_while_the_dag_is_parsed(name: str) -> None:
    value, said = BAD[name]
    with pytest.raises(IdeogramInvalidInput) as caught:
        _operator(**{name: value})
    assert f"{name}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("duration", [True, 0, -1, float("nan"), float("inf"), 1e9, "1", timedelta(0), object()])
@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
def test_invalid_duration_shows_while_the_dag_is_parsed(name: str, duration: Any) -> None:
    with pytest.raises(IdeogramInvalidInput, match=f"{name}: .* is not a number of seconds above 0"):
        _operator(**{name: duration})


@pytest.mark.parametrize("duration", [90, 90.0, Decimal("90.0"), timedelta(minutes=1.5)])
@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
def test_duration_is_a_number_of_seconds_or_a_timedelta(name: str, duration: Any) -> None:
    assert getattr(_operator(**{name: duration}), name) == 90.0


def test_only_the_poll_interval_may_be_left_to_the_operator() -> None:
    assert _operator(poll_interval=None).poll_interval is None
    with pytest.raises(IdeogramInvalidInput, match="timeout: None is not a number"):
        _operator(timeout=None)


def test_path_is_taken_as_its_text() -> None:
    operator = _operator(s3_key=PurePosixPath("day/{{ ds }}.png"), s3_bucket="my-bucket")
    assert operator.s3_key == "day/{{ ds }}.png"


def test_subclass_without_links_keeps_those_of_the_gallery() -> None:
    class Own(IdeogramGenerateImageOperator):
        operator_extra_links = ()

    assert Own.operator_extra_links == IdeogramGenerateImageOperator.operator_extra_links


def test_message_names_the_task() -> None:
    with pytest.raises(IdeogramInvalidInput, match=r"^Task 'image': resolution: '832x1217' .* is 832x1216\. No"):
        _operator(resolution="832x1217")


def test_argument_that_the_provider_sets_is_refused() -> None:
    with pytest.raises(IdeogramInvalidInput, match="Body are decided by the provider"):
        _operator(s3_extra_args={"Body": b""})


def test_all_mistakes_are_in_one_message() -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        _operator(**{name: value for name, (value, _) in BAD.items()})
    lines = str(caught.value).splitlines()[1:]
    assert {line.strip(" -").split(":")[0] for line in lines} == set(BAD) - {"s3_key"}  # it has a bucket now


@pytest.mark.parametrize("name", sorted(TEMPLATED & set(BAD)))
def test_template_is_left_alone(name: str) -> None:
    value: Any = {"a": "{{ ds }}"} if isinstance(BAD[name][0], dict) else "{{ ds }}"
    assert getattr(_operator(**{name: value}), name) == value


@pytest.mark.parametrize("name", sorted(TEMPLATED & set(BAD)))
def test_output_of_another_task_is_left_alone(name: str) -> None:
    with DAG("dag", schedule=None):

        @task
        def upstream() -> str:
            return ""

        output = upstream()
        operator = _operator(**{name: output})
    assert getattr(operator, name) is output
    assert operator.upstream_task_ids == {"upstream"}


def test_bucket_of_a_templated_key_is_not_guessed() -> None:
    assert _operator(s3_key="{{ ds }}.png").s3_bucket is None
    assert _operator(s3_key="cat.png", s3_bucket="{{ var.value.bucket }}").s3_key == "cat.png"


def test_mapped_task_takes_every_argument() -> None:
    with DAG("dag", schedule=None):
        mapped = IdeogramGenerateImageOperator.partial(task_id="images", s3_key="s3://my-bucket/a/").expand(
            prompt=["a cat", "a dog"]
        )
    assert mapped.task_id == "images"


def test_every_request_parameter_is_a_template_field() -> None:
    classes = (IdeogramGenerateImageOperator, IdeogramBaseOperator)
    arguments = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}
    assert set(CHECKS) <= TEMPLATED <= arguments


def test_killed_task_logs_that_its_request_continues(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IdeogramGenerateImageOperator, "log", logging.getLogger("operator"))
    operator = _operator()
    operator.on_kill()
    assert caplog.text == ""
    operator._job = Job("r-1", 0.0, GenerationRequest("a cat"), "", "")
    operator.on_kill()
    assert "Request r-1 continues at the vendor" in caplog.text


class Vendor:
    """A hook without a history whose API returns one status for every request."""

    has_history = False

    def __init__(self, says: RequestStatus | IdeogramError) -> None:
        self.says = says

    def get_status(self, *_: Any, **__: Any) -> RequestStatus:
        if isinstance(self.says, IdeogramError):
            raise self.says
        return self.says

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def _resume(
    operator: IdeogramGenerateImageOperator,
    says: RequestStatus | IdeogramError,
    trigger_error: str | None,
    *,
    age: float = 0.0,
    **job: Any,
) -> dict[str, Any]:
    """Resume the operator after its trigger and return the XComs that it left."""
    xcoms: dict[str, Any] = {}
    pushing = SimpleNamespace(xcom_push=lambda key, value: xcoms.update({key: value}), try_number=1, max_tries=0)
    operator._hook = lambda: Vendor(says)  # type: ignore[method-assign,assignment,return-value]
    submitted_at = time.time() - age
    payload = Job(
        "r-1", submitted_at, GenerationRequest("a cat", seed=7), "", "s3://my-bucket/cat.png", **job
    ).to_json()
    try:
        operator.execute_complete({"ti": pushing}, {"requests": {}, "payload": payload, "error": trigger_error})  # type: ignore[typeddict-item]
    except (IdeogramError, AirflowFailException, AirflowSkipException) as error:
        xcoms["raised"] = error
    return xcoms


FAILED = RequestStatus("FAILED", None, "out of memory")
BLOCKED = RequestStatus("FAILED", None, "NSFW_DETECTED")


@pytest.mark.parametrize("trigger_error", [None, "ValueError()"])
@pytest.mark.parametrize(
    ("says", "kind", "reason"),
    [
        (FAILED, IdeogramJobFailed, "request_failed"),
        (BLOCKED, AirflowFailException, "content_blocked"),
    ],
)
def test_error_of_the_request_precedes_the_triggers(
    says: RequestStatus, kind: type[Exception], reason: str, trigger_error: str | None
) -> None:
    xcoms = _resume(_operator(), says, trigger_error)
    assert type(xcoms["raised"]) is kind
    assert xcoms["failure"]["reason"] == reason
    assert xcoms["failure"]["error"] in str(xcoms["raised"])
    assert f"Request r-1 {'was blocked' if says is BLOCKED else 'failed'}" in xcoms["failure"]["error"]


def test_error_of_the_trigger_is_raised_for_a_pending_request() -> None:
    xcoms = _resume(_operator(), IdeogramServerUnavailable("the API is away", "Nothing was charged."), "ValueError()")
    assert type(xcoms["raised"]) is IdeogramJobUnreachable
    assert (xcoms["failure"]["reason"], xcoms["failure"]["charged"]) == ("unreachable", None)
    assert "can't be fetched or stored: ValueError()" in xcoms["failure"]["error"]


def test_skipped_task_leaves_the_failure_xcom() -> None:
    xcoms = _resume(_operator(on_content_blocked="skip"), BLOCKED, None)
    assert type(xcoms["raised"]) is AirflowSkipException
    failure = xcoms["failure"]
    assert (failure["reason"], failure["charged"], failure["request_id"]) == ("content_blocked", False, "r-1")


@pytest.mark.parametrize(
    ("age", "kind", "reason"),
    [
        (RESULT_LIFETIME, IdeogramResultExpired, "expired"),
        (RESULT_LIFETIME - 1, IdeogramJobUnreachable, "unreachable"),
    ],
)
def test_result_that_is_gone(age: float, kind: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise IdeogramNotFound("HTTP 404", "Nothing was charged.")

    monkeypatch.setattr(Vendor, "get_result", gone, raising=False)
    xcoms = _resume(_operator(), RequestStatus("COMPLETED", 13.0), None, age=age)
    assert type(xcoms["raised"]) is kind
    assert xcoms["failure"]["reason"] == reason
    assert "Nothing was charged" not in str(xcoms["raised"])


def test_failed_request_is_raised_despite_its_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(IdeogramGenerateImageOperator, "log", logging.getLogger("operator"))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_ODD", '{"conn_type": "aws", "extra": {"profile_name": "no-such-profile"}}')
    operator = _operator(aws_conn_id="aws_odd")
    xcoms = _resume(operator, FAILED, None, record_key="_ideogram/cat.png.json", record_etag="etag")
    assert type(xcoms["raised"]) is IdeogramJobFailed
    assert "record _ideogram/cat.png.json could not be deleted: The AWS connection 'aws_odd'" in caplog.text
