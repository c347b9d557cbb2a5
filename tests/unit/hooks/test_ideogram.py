from __future__ import annotations

import json
import subprocess
import sys
import time
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
from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramInvalidInput, IdeogramServerUnavailable
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


def _rows(count: int, created_at: str, **more: Any) -> list[dict[str, Any]]:
    return [{"request_id": f"x-{n}", "request_body": {}, "created_at": created_at, **more} for n in range(count)]


def test_history_is_read_back_to_the_submit(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    at = 1795392000.0  # 2026-11-23T00:00:00Z
    row = {"request_id": "r-1", "request_body": REQUEST.body(), "created_at": "2026-11-23T00:00:01Z"}
    newer, older = _rows(PER_PAGE, "2026-11-23T02:00:00Z"), _rows(PER_PAGE - 1, "2026-11-22T20:00:00Z")
    server.script(reply(newer), reply([row, *older]), reply([]))
    with hook:
        assert hook.find_submitted(REQUEST, at) == {"r-1"}
    assert [received.path.split("&")[0] for received in server.received] == ["/history?page=1", "/history?page=2"]
    assert {received.headers["x-api-key"] for received in server.received} == {KEY}


def test_history_is_read_to_its_end(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply(_rows(PER_PAGE, "2026-11-23T00:00:00Z")), reply([]))
    with hook:
        assert hook.find_submitted(REQUEST, 1795392000.0) == set()
    assert len(server.received) == 2


def test_unreadable_row_does_not_end_the_search(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    rows = _rows(PER_PAGE, "2026-11-23T00:01:00Z")
    row = {**rows[0], "request_id": "r-1", "request_body": REQUEST.body()}
    server.script(reply([*rows[1:], {"odd": 1}]), reply([row]))
    with hook:
        assert hook.find_submitted(REQUEST, 1795392000.0) == {"r-1"}


def test_too_long_history_is_an_error(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_ideogram.hooks.ideogram._MAX_HISTORY_PAGES", 3)
    server.script(reply(_rows(PER_PAGE, "2026-11-23T00:00:00Z")))
    with hook:
        with pytest.raises(IdeogramServerUnavailable, match="more than 300 newer requests"):
            hook.find_submitted(REQUEST, 1795392000.0)
        assert len(server.received) == 3
        with pytest.raises(IdeogramServerUnavailable, match="more than 300 newer requests"):
            hook.find_request("r-1", "m", 1795392000.0)
        assert hook.find_request("x-7", "m", 1795392000.0) is not None


def test_download_follows_the_connection(hook: IdeogramHook) -> None:
    with pytest.raises(IdeogramInvalidImage, match="not a permitted host"):
        hook.download_image(ImageUrl("https://example.com/a.png"))
    with pytest.raises(IdeogramInvalidImage, match="not a complete image"):
        hook.download_image(ImageBytes(b"GIF89a"))


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
    with pytest.raises(IdeogramInvalidInput, match=r"(?s)base_url: .*Did you mean 'timeout'\?") as caught:
        IdeogramHook().get_credits()
    assert KEY not in str(caught.value)


def test_test_connection_shows_the_balance(hook: IdeogramHook, server: ScriptedServer, reply: Reply) -> None:
    server.script(reply({"credits": 1.5, "free-credits": 0.018}))
    assert hook.test_connection() == (True, "credits: 1.52")
    assert [received.path for received in server.received] == ["/v1/get-user-credits"]


def test_test_connection_shows_that_the_key_is_refused(
    hook: IdeogramHook, server: ScriptedServer, reply: Reply
) -> None:
    server.script(reply({"error": f"{KEY} is not valid"}, 401))
    ok, message = hook.test_connection()
    assert not ok
    assert "HTTP 401: *** is not valid" in message
    assert "Check the connection's password" in message


def test_test_connection_shows_that_the_api_is_unreachable(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
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


def test_airflow_shows_the_connections_form() -> None:
    """In its own process, since some versions of Airflow replace missing modules with mocks to show the form."""
    script = f"{_FORM_OF_AIRFLOW_3 if AIRFLOW >= (3, 0) else _FORM_OF_AIRFLOW_2}\nprint(); print([fields, password])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)

    # Airflow 3.0 shows fields of providers only with WTForms, which the fab provider installs.
    bare = AIRFLOW == (3, 0) and find_spec("wtforms") is None
    expected: list[object] = [[], None] if bare else [list(EXTRA_FIELDS), "API key"]
    assert done.stdout.splitlines()[-1] == str(expected), done.stdout
