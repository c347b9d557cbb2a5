"""What is refused before anything is paid: arguments, connection, key, credits, model, bucket and server."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.httpsession
import pytest

from airflow_provider_ideogram.emulator.running import RunningEmulator, connection_to, run_emulator
from airflow_provider_ideogram.emulator.settings import DEFAULT_FORBIDDEN_KEY, EmulatorSettings
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from tests.support.s3 import s3_response
from tests.support.world import KEY, assert_error

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRun
    from tests.support.world import ImageTask, World


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"prompt": " "}, "prompt: must not be empty"),
        ({"resolution": "1000x1000"}, "The nearest is"),
        ({"style_type": "REALISTC"}, "'REALISTIC'"),
        ({"magic_prompt_option": "on"}, "'ON'"),
        ({"seed": -1}, "seed: -1"),
        ({"s3_key": "no-bucket.png", "s3_bucket": None}, "names no bucket"),
        ({"if_exists": "overwite"}, "if_exists"),
        ({"timeout": 0}, "timeout"),
        ({"s3_extra_args": {"Body": "the image"}}, "s3_extra_args"),
    ],
)
def test_invalid_argument_fails_while_the_dag_is_parsed(wrong: dict[str, Any], problem: str) -> None:
    arguments = {"task_id": "generate", "prompt": "a lighthouse", "s3_key": KEY, "s3_bucket": "bucket", **wrong}

    with pytest.raises(IdeogramInvalidInput, match="Nothing was sent or charged") as raised:
        IdeogramGenerateImageOperator(**arguments)

    assert problem in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": "{{ dag_run.conf.get('size', 'huge') }}"},
        {"seed": "{{ ds }}"},
        {"s3_key": "{{ '' }}"},
        {"s3_extra_args": {"ServerSideEncription": "{{ ds }}"}},
    ],
)
def test_invalid_rendered_template_fails_before_a_call(
    wrong: dict[str, Any], image_task: ImageTask, world: World
) -> None:
    result = image_task(retries=3, **wrong).execute()

    assert result.state == "failed"
    assert_error(result, "Nothing was sent or charged")
    assert world.emulator.stats().calls == {}


@pytest.mark.parametrize(
    ("key", "reason", "advice"),
    [
        ("wrong-key", "authentication", "Check the connection's API key"),
        (DEFAULT_FORBIDDEN_KEY, "permission", "Check the account's plan"),
    ],
)
def test_refused_key_is_not_tried_again(
    key: str, reason: str, advice: str, image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(world.emulator.url, key))
    run = image_task(retries=3)

    result = run.execute()

    assert result.state == "failed"
    assert run.xcom("failure")["reason"] == reason
    assert_error(result, "Nothing was charged", advice)
    assert key not in str(result.error)
    assert world.emulator.stats().calls == {"submit": 1}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("credits_402", "insufficient_credits"),
        ("credits_406", "insufficient_credits"),
        ("spend_limit", "spend_limit"),
        ("parameter_refused", "invalid_input"),
        ("model_retired", "model_retired"),
        ("model_forbidden", "permission"),
    ],
)
def test_refused_submit_is_not_tried_again(kind: str, reason: str, image_task: ImageTask, world: World) -> None:
    world.emulator.fault("submit", kind)
    run = image_task(retries=3)

    result = run.execute()

    assert result.state == "failed"
    assert_error(result, "Nothing was charged")
    failure = run.xcom("failure")
    assert (failure["reason"], failure["charged"]) == (reason, False)
    assert (world.emulator.stats().calls, world.object_keys()) == ({"submit": 1}, [])


def test_low_balance_asks_for_credits(image_task: ImageTask, world: World) -> None:
    world.emulator.configure(credits=0.01)
    run = image_task(retries=3)

    result = run.execute()

    assert result.state == "failed"
    assert run.xcom("failure")["reason"] == "insufficient_credits"
    assert_error(result, "Nothing was charged", "Add credits at Segmind")
    assert world.emulator.stats().calls == {"submit": 1}


def test_unknown_model_is_not_tried_again(image_task: ImageTask, world: World) -> None:
    run = image_task(retries=3, model="ideogram-0")

    result = run.execute()

    assert result.state == "failed"
    assert run.xcom("failure")["reason"] == "not_found"
    assert_error(result, "Nothing was charged", "Check the model")
    assert world.emulator.stats().calls == {"submit": 1}


def test_invalid_connection_is_not_tried_again(image_task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ideogram", "password": "secret", "extra": {"requests_per_minut": 5}}
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))

    result = image_task(retries=3).execute()

    assert result.state == "failed"
    assert_error(result, "Nothing was sent or charged", "'requests_per_minute'")


class TestErrorsOfOthers:
    """An error before the submit that is not the provider's leaves no intent, which would pass for a submit."""

    def _assert_fails_without_a_trace(self, run: TaskRun, world: World) -> None:
        """The attempt fails, and neither the ledger nor the vendor has anything."""
        result = run.execute()
        assert result.state == "up_for_retry", result.log_text
        assert (world.object_keys(), world.emulator.stats().calls) == ([], {})

    @pytest.mark.parametrize("connection", [None, "{not JSON", "http://[::1"], ids=["missing", "JSON", "URI"])
    def test_connection_that_cannot_be_read(
        self, connection: str | None, image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = image_task(retries=1)
        with monkeypatch.context() as patch:
            if connection is None:
                patch.delenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT")
            else:
                patch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection)
            self._assert_fails_without_a_trace(run, world)
        assert run.retry().state == "deferred"

    @pytest.mark.parametrize(
        ("place", "error"),
        [
            ("airflow_provider_ideogram.hooks.ideogram.IdeogramHook.get_connection", PermissionError("no secrets")),
            ("airflow_provider_ideogram.hooks.client.httpx.Client", FileNotFoundError("no CA file")),
        ],
        ids=["secrets backend", "HTTP client"],
    )
    def test_backend_or_client_that_raises(
        self, place: str, error: Exception, image_task: ImageTask, world: World
    ) -> None:
        run = image_task(retries=1)
        with mock.patch(place, side_effect=error):
            self._assert_fails_without_a_trace(run, world)
        assert run.retry().state == "deferred"


def test_missing_bucket_is_found_before_a_call(image_task: ImageTask, world: World) -> None:
    result = image_task(retries=3, s3_bucket="no-such-bucket").execute()

    assert result.state == "failed"
    assert_error(result, "Bucket 'no-such-bucket' does not exist. Nothing was charged. Create it")
    assert world.emulator.stats().calls == {}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_unreachable_server_is_left_to_a_retry(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connection_to(f"http://127.0.0.1:{_free_port()}", world.emulator.api_key)
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection)

    result = image_task(retries=1).execute()

    assert result.state == "up_for_retry"
    assert_error(result, "Nothing was sent or charged")
    assert world.object_keys() == []


def test_submit_without_a_connection_is_repeated(image_task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _free_port()
    settings = EmulatorSettings(port=port, queue_seconds=0.05, job_seconds=0.15)
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", connection_to(f"http://127.0.0.1:{port}", settings.keys[0]))
    started: list[RunningEmulator] = []
    with ExitStack() as servers, monkeypatch.context() as until_started:

        def start_server(_: float) -> None:
            until_started.undo()
            started.append(servers.enter_context(run_emulator(settings)))

        until_started.setattr(time, "sleep", start_server)  # the wait between two attempts

        assert image_task().execute().state == "deferred"

        assert started[0].stats().accepted == 1


def test_argument_that_the_bucket_refuses_fails_before_a_call(
    image_task: ImageTask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = botocore.httpsession.URLLib3Session.send

    def refuse_acl(session: Any, request: Any) -> Any:
        if request.method == "PUT" and "x-amz-acl" in request.headers:
            return s3_response(request, 400, "AccessControlListNotSupported")
        return put(session, request)

    monkeypatch.setattr(botocore.httpsession.URLLib3Session, "send", refuse_acl)

    result = image_task(retries=3, s3_extra_args={"ACL": "private", "Tagging": "team=art"}).execute()

    assert result.state == "failed"
    assert_error(result, "Nothing was sent or charged", "s3_extra_args: the bucket", "refuses ACL (")
    assert (world.emulator.stats().calls, world.object_keys()) == ({}, [])
