from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeAlias

import jsonschema
import pytest

from airflow_provider_ideogram import hooks
from airflow_provider_ideogram.api.history import PER_PAGE
from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.exceptions import (
    IdeogramError,
    IdeogramInvalidImage,
    IdeogramInvalidInput,
    IdeogramServerUnavailable,
)
from airflow_provider_ideogram.get_provider_info import get_provider_info
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from tests.support.airflow_version import AIRFLOW
from tests.unit.hooks.conftest import Reply, ScriptedServer

KEY = "SG_0123456789abcdef"
REQUEST = GenerationRequest("a cat", seed=7)
URL = "https://images.segmind.com/a.png"


Connect: TypeAlias = Callable[..., None]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a function that sets the connection ``ideogram_default``."""

    def connect(host: str, **extra: Any) -> None:
        connection = {"conn_type": "ideogram", "password": KEY, "host": host, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))

    return connect


@pytest.fixture
def hook(server: ScriptedServer, connect: Connect) -> IdeogramHook:
    connect(server.url, history_url=f"{server.url}/history")
    return IdeogramHook()


def test_package_exports_the_hook_only() -> None:
    assert hooks.IdeogramHook is IdeogramHook
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hooks.nothing


@pytest.mark.parametrize("budget", ["max_cost_usd_per_day", "max_cost_usd_per_month", "max_cost_usd_per_dag_and_day"])
@pytest.mark.parametrize("name", ["submit", "generate_sync"])
def test_call_that_no_budget_admits_is_refused(
    name: str, budget: str, server: ScriptedServer, connect: Connect
) -> None:
    connect(server.url, **{budget: 10})
    with pytest.raises(IdeogramInvalidInput, match="the connection has a budget"):
        getattr(IdeogramHook(), name)(REQUEST)
    assert server.received == []


@pytest.mark.parametrize(
    ("call", "request_line", "body", "response", "result"),
    [
        (
            lambda hook: hook.submit(REQUEST).request_id,
            ("POST", "/v2/ideogram-2a-txt-2-img"),
            REQUEST.body(),
            {"request_id": "r-1"},
            "r-1",
        ),
        (
            lambda hook: hook.generate_sync(REQUEST).image,
            ("POST", "/v1/ideogram-2a-txt-2-img"),
            REQUEST.body(),
            {"image": URL},
            ImageUrl(URL),
        ),
        (
            lambda hook: hook.get_status("r-1").state,
            ("GET", "/v2/requests/r-1/status"),
            None,
            {"status": "QUEUED"},
            "QUEUED",
        ),
        (
            lambda hook: hook.get_result("r-1").image,
            ("GET", "/v2/requests/r-1"),
            None,
            {"status": "COMPLETED", "output": URL},
            ImageUrl(URL),
        ),
        (
            lambda hook: hook.get_credits().total,
            ("GET", "/v1/get-user-credits"),
            None,
            {"credits": 1.5, "free-credits": 0.25},
            1.75,
        ),
    ],
    ids=["submit", "generate_sync", "get_status", "get_result", "get_credits"],
)
def test_method_sends_one_call(
    hook: IdeogramHook,
    server: ScriptedServer,
    reply: Reply,
    call: Callable[[IdeogramHook], Any],
    request_line: tuple[str, str],
    body: Any,
    response: Any,
    result: Any,
) -> None:
    server.script(reply(response))
    with hook:
        assert call(hook) == result
    (received,) = server.received
    assert (received.method, received.path) == request_line
    assert (received.json if received.body else None) == body
    assert received.headers["x-api-key"] == KEY


def test_max_attempts_limits_the_attempts(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(status=503))
    with hook, pytest.raises(Exception, match="HTTP 503"):
        hook.get_status("r-1", max_attempts=1)
    assert len(server.received) == 1


AT = 1795392000.0  # 2026-11-23T00:00:00Z


def _row(request_id: str, created_at: str = "2026-11-23T00:00:01Z", **fields: Any) -> dict[str, Any]:
    """Return a row of the history: of a completed request with the inputs of ``REQUEST``, unless fields differ."""
    return {
        "request_id": request_id,
        "model_name": REQUEST.model,
        "model_status": "COMPLETED",
        "request_body": REQUEST.body(),
        "generation_url": URL,
        "credits_deduction": 0.05,
        "model_created": created_at,
        **fields,
    }


def _others(count: int, created_at: str) -> list[dict[str, Any]]:
    """Return rows of requests with other inputs."""
    return [_row(f"x-{number}", created_at, request_body={}) for number in range(count)]


def _paths(server: ScriptedServer) -> list[str]:
    return [received.path.partition("&")[0] for received in server.received]


def test_history_is_read_back_to_the_submit(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    newer, older = _others(PER_PAGE, "2026-11-23T02:00:00Z"), _others(PER_PAGE - 1, "2026-11-22T20:00:00Z")
    server.script(reply(newer), reply([_row("r-1"), *older]), reply(_row("r-1")))
    with hook:
        assert hook.find_submitted(REQUEST, AT) == {"r-1"}
    assert _paths(server) == ["/history?page=1", "/history?page=2", "/history/r-1"]
    assert {received.headers["x-api-key"] for received in server.received} == {KEY}


def test_history_is_read_to_its_end(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(_others(PER_PAGE, "2026-11-23T00:00:00Z")), reply([]))
    with hook:
        assert hook.find_submitted(REQUEST, AT) == set()
    assert len(server.received) == 2


def test_unreadable_row_does_not_end_the_search(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    rows = _others(PER_PAGE - 1, "2026-11-23T00:01:00Z")
    server.script(reply([*rows, {"odd": 1}]), reply([_row("r-1")]), reply(_row("r-1")))
    with hook:
        assert hook.find_submitted(REQUEST, AT) == {"r-1"}


def test_request_of_a_teammate_is_not_found(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply([_row("r-1")]), reply({"error": "Not found"}, 404))
    with hook:
        assert hook.find_submitted(REQUEST, AT) == set()
    assert _paths(server) == ["/history?page=1", "/history/r-1"]


def test_request_with_two_rows_is_found_once(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply([_row("r-1"), _row("r-1")]), reply(_row("r-1")))
    with hook:
        assert hook.find_submitted(REQUEST, AT) == {"r-1"}
    assert _paths(server) == ["/history?page=1", "/history/r-1"]


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("status", [405, 500])
def test_unanswered_confirmation_is_an_error(
    status: int, hook: IdeogramHook, server: ScriptedServer, reply: Reply
) -> None:
    server.script(reply([_row("r-1")]), reply(status=status))
    with hook, pytest.raises(IdeogramError, match=f"HTTP {status}"):
        hook.find_submitted(REQUEST, AT)


def test_too_long_history_is_an_error(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_ideogram.hooks.ideogram._MAX_HISTORY_PAGES", 3)
    server.script(reply(_others(PER_PAGE, "2026-11-23T00:00:00Z")))
    with hook:
        with pytest.raises(IdeogramServerUnavailable, match="more than 300 newer requests"):
            hook.find_submitted(REQUEST, AT)
        assert len(server.received) == 3
        with pytest.raises(IdeogramServerUnavailable, match="more than 300 newer requests"):
            hook.find_in_list("r-1", REQUEST.model, AT)
        assert hook.find_in_list("x-7", REQUEST.model, AT) is not None


def test_request_is_found_by_its_id(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(_row("r-1")), reply({"error": "Not found"}, 404))
    with hook:
        row = hook.find_in_history("r-1")
        assert row is not None
        assert (row.request_id, row.state, row.image_url, row.cost_usd) == ("r-1", "COMPLETED", URL, 0.05)
        assert hook.find_in_history("r-2") is None
    assert _paths(server) == ["/history/r-1", "/history/r-2"]
    assert {received.headers["x-api-key"] for received in server.received} == {KEY}


def test_gateway_without_a_history_url_has_no_history(connect: Connect, server: ScriptedServer) -> None:
    connect(server.url)
    with IdeogramHook() as hook:
        assert not hook.has_history
        with pytest.raises(IdeogramInvalidInput, match="has no history_url"):
            hook.find_in_history("r-1")
        with pytest.raises(IdeogramInvalidInput, match="has no history_url"):
            hook.find_submitted(REQUEST, AT)
    assert server.received == []


def test_download_follows_the_connection(hook: IdeogramHook) -> None:
    with pytest.raises(IdeogramInvalidImage, match="not a permitted host"):
        hook.download_image(ImageUrl("https://example.com/a.png"))
    with pytest.raises(IdeogramInvalidImage, match="not a complete image"):
        hook.download_image(ImageBytes(b"GIF89a"))


def test_image_url_of_the_history_has_the_same_host_rules(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply
) -> None:
    server.script(reply(_row("r-1", generation_url="https://169.254.169.254/latest/meta-data")))
    with hook:
        row = hook.find_in_history("r-1")
        assert row is not None
        assert row.image_url is not None
        with pytest.raises(IdeogramInvalidImage, match="not a permitted host"):
            hook.download_image(ImageUrl(row.image_url))
    assert len(server.received) == 1


def test_client_is_made_once_and_closed_with_the_hook(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"status": "QUEUED"}))
    with hook:
        client = hook.get_conn()
        assert hook.get_conn() is client
        hook.get_status("r-1")
    assert client._client.is_closed
    with hook:
        assert hook.get_conn() is not client
        assert hook.get_status("r-1") == RequestStatus("QUEUED")
    with hook:
        pass  # no client was made


def test_invalid_connection_is_refused_before_a_call(connect: Connect) -> None:
    connect("ftp://x", timout=3)
    with pytest.raises(IdeogramInvalidInput, match=r"(?s)Base URL: .*Did you mean 'timeout'\?") as caught:
        IdeogramHook().get_credits()
    assert KEY not in str(caught.value)


def test_test_connection_shows_the_balance(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"credits": 1.5, "free-credits": 0.018}))
    assert hook.test_connection() == (True, "credits: 1.52")
    assert [received.path for received in server.received] == ["/v1/get-user-credits"]


def test_test_connection_accepts_a_missing_balance_record(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply
) -> None:
    server.script(reply({"error": "No credits found for the user"}, 404))
    assert hook.test_connection() == (True, "The API key is valid; the account has no balance record")


def test_test_connection_shows_another_404(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"error": "Not found"}, 404))
    ok, message = hook.test_connection()
    assert not ok
    assert "Check the model and the connection's base URL" in message


def test_test_connection_shows_that_the_key_is_refused(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply
) -> None:
    server.script(reply({"error": f"{KEY} is not valid"}, 401))
    said = "The API rejected the key (HTTP 401: *** is not valid). Nothing was charged. Check the connection's API key."
    assert hook.test_connection() == (False, said)


def test_test_connection_names_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's form gives the connection that it tests a random id."""
    monkeypatch.setenv("AIRFLOW_CONN_RANDOM", '{"conn_type": "ideogram", "extra": {"requests_per_minut": 5}}')
    ok, message = IdeogramHook("random").test_connection()
    assert not ok
    assert "random" not in message
    assert "extra 'requests_per_minut' is unknown. Did you mean 'requests_per_minute'?" in message


@pytest.mark.usefixtures("waits")
def test_test_connection_shows_that_the_api_is_unreachable(connect: Connect) -> None:
    connect("http://127.0.0.1:1")
    ok, message = IdeogramHook().test_connection()
    assert not ok
    assert "can't be reached" in message


def test_test_connection_shows_a_missing_connection() -> None:
    ok, message = IdeogramHook("missing_connection").test_connection()
    assert not ok
    assert "missing_connection" in message


async def test_async_status_inside_async_with(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"status": "COMPLETED", "metrics": {"inference_time": 13.06}}))
    async with hook:
        assert await hook.aget_status("r-1") == RequestStatus("COMPLETED", 13.06)
    (received,) = server.received
    assert (received.method, received.path) == ("GET", "/v2/requests/r-1/status")
    assert received.headers["x-api-key"] == KEY


async def test_async_status_outside_async_with_is_an_error(hook: IdeogramHook) -> None:
    with pytest.raises(RuntimeError, match="inside 'async with'"):
        await hook.aget_status("r-1")
    async with hook:
        pass
    with pytest.raises(RuntimeError, match="inside 'async with'"):
        await hook.aget_status("r-1")


async def test_async_hook_refuses_an_invalid_connection(connect: Connect) -> None:
    connect("http://127.0.0.1:1", timeout=0)
    with pytest.raises(IdeogramInvalidInput, match="timeout: "):
        await IdeogramHook().__aenter__()


def test_form_of_older_airflow_is_that_of_the_metadata() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    behaviour = IdeogramHook.get_ui_field_behaviour()
    assert {name.replace("_", "-"): value for name, value in behaviour.items()} == connection_type["ui-field-behaviour"]
    assert (connection_type["connection-type"], connection_type["hook-name"]) == (
        IdeogramHook.conn_type,
        IdeogramHook.hook_name,
    )


def test_form_of_older_airflow_is_valid() -> None:
    from importlib.resources import files

    schema = json.loads(files("airflow").joinpath("customized_form_field_behaviours.schema.json").read_text())
    jsonschema.validate(IdeogramHook.get_ui_field_behaviour(), schema)


# How the web server of each version reads the form.
_FORM_OF_AIRFLOW_2 = """
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
assert manager.hooks["ideogram"]
names = [name for name in manager.connection_form_widgets if name.startswith("extra__ideogram__")]
fields = [name.removeprefix("extra__ideogram__") for name in names]
password = manager.field_behaviours["ideogram"]["relabeling"]["password"]
"""
_FORM_OF_AIRFLOW_3 = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[form] = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "ideogram"]
fields = list(form.extra_fields or [])
password = form.standard_fields and form.standard_fields.password.title
"""


@pytest.mark.slow
def test_airflow_shows_the_connections_form() -> None:
    """In its own process, since some versions of Airflow replace missing modules with mocks to show the form."""
    script = f"{_FORM_OF_AIRFLOW_3 if AIRFLOW >= (3, 0) else _FORM_OF_AIRFLOW_2}\nprint(); print([fields, password])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)

    # Airflow 3.0 shows fields of providers only with WTForms, which the fab provider installs.
    bare = AIRFLOW == (3, 0) and find_spec("wtforms") is None
    expected: list[object] = [[], None] if bare else [list(EXTRA_FIELDS), "API key"]
    assert done.stdout.splitlines()[-1] == str(expected), done.stdout
