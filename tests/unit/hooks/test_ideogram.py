from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jsonschema
import pytest

from airflow_provider_ideogram import hooks
from airflow_provider_ideogram.api.history import PER_PAGE
from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramInvalidInput, IdeogramServerUnavailable
from airflow_provider_ideogram.get_provider_info import get_provider_info
from airflow_provider_ideogram.hooks import client
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from tests.support.airflow_version import AIRFLOW

KEY = "SG_0123456789abcdef"
REQUEST = GenerationRequest("a cat", seed=7)
URL = "https://images.segmind.com/a.png"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the connection ``ideogram_default``."""

    def connect(host: str, **extra: Any) -> None:
        connection = {"conn_type": "ideogram", "password": KEY, "host": host, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_DEFAULT", json.dumps(connection))

    return connect


@pytest.fixture
def hook(server: Any, connect: Callable[..., None]) -> IdeogramHook:
    connect(server.url, history_url=f"{server.url}/history")
    return IdeogramHook()


def test_package_offers_the_hook_and_nothing_else() -> None:
    assert hooks.IdeogramHook is IdeogramHook
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hooks.nothing


@pytest.mark.parametrize(
    ("ask", "request_line", "sent", "said", "meaning"),
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
def test_methods(
    hook: IdeogramHook,
    server: Any,
    reply: Callable[..., bytes],
    ask: Callable[[IdeogramHook], Any],
    request_line: tuple[str, str],
    sent: Any,
    said: Any,
    meaning: Any,
) -> None:
    server.script(reply(said))
    with hook:
        assert ask(hook) == meaning
    (received,) = server.received
    assert (received.method, received.path) == request_line
    assert (received.json if received.body else None) == sent
    assert received.headers["x-api-key"] == KEY


def test_caller_may_leave_no_second_attempt(hook: IdeogramHook, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply(status=503))
    with hook, pytest.raises(Exception, match="HTTP 503"):
        hook.get_status("r-1", max_attempts=1)
    assert len(server.received) == 1


def _rows(count: int, created_at: str, **more: Any) -> list[dict[str, Any]]:
    return [{"request_id": f"x-{n}", "request_body": {}, "created_at": created_at, **more} for n in range(count)]


def test_history_is_searched_until_it_is_older_than_the_submit(
    hook: IdeogramHook, server: Any, reply: Callable[..., bytes]
) -> None:
    at = 1795392000.0  # 2026-11-23T00:00:00Z
    ours = {"request_id": "r-1", "request_body": REQUEST.body(), "created_at": "2026-11-23T00:00:01Z"}
    newer, older = _rows(PER_PAGE, "2026-11-23T02:00:00Z"), _rows(PER_PAGE - 1, "2026-11-22T20:00:00Z")
    server.script(reply(newer), reply([ours, *older]), reply([]))
    with hook:
        assert hook.find_submitted(REQUEST, at) == {"r-1"}
    assert [received.path.split("&")[0] for received in server.received] == ["/history?page=1", "/history?page=2"]
    assert {received.headers["x-api-key"] for received in server.received} == {KEY}


def test_history_is_searched_to_its_end(hook: IdeogramHook, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply(_rows(PER_PAGE, "2026-11-23T00:00:00Z")), reply([]))
    with hook:
        assert hook.find_submitted(REQUEST, 1795392000.0) == set()
    assert len(server.received) == 2


def test_row_that_cannot_be_read_does_not_end_the_search(
    hook: IdeogramHook, server: Any, reply: Callable[..., bytes]
) -> None:
    rows = _rows(PER_PAGE, "2026-11-23T00:01:00Z")
    ours = {**rows[0], "request_id": "r-1", "request_body": REQUEST.body()}
    server.script(reply([*rows[1:], {"odd": 1}]), reply([ours]))
    with hook:
        assert hook.find_submitted(REQUEST, 1795392000.0) == {"r-1"}


def test_history_without_an_end_is_left_and_not_taken_for_one_without_the_request(
    hook: IdeogramHook, server: Any, reply: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
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


def test_image_is_brought_by_the_connections_rules(hook: IdeogramHook) -> None:
    with pytest.raises(IdeogramInvalidImage, match="not one of the vendor's hosts"):
        hook.download_image(ImageUrl("https://example.com/a.png"))
    with pytest.raises(IdeogramInvalidImage, match="not a complete image"):
        hook.download_image(ImageBytes(b"GIF89a"))


def test_connection_is_read_once_and_closed_with_the_hook(
    hook: IdeogramHook, server: Any, reply: Callable[..., bytes]
) -> None:
    server.script(reply({"status": "QUEUED"}))
    with hook:
        driver = hook.get_conn()
        assert hook.get_conn() is driver
        hook.get_status("r-1")
    assert driver._client.is_closed
    with hook:
        assert hook.get_conn() is not driver
        assert hook.get_status("r-1") == RequestStatus("QUEUED")
    with hook:
        pass  # closing what was never opened


def test_invalid_connection_is_said_before_anything_is_sent(connect: Callable[..., None]) -> None:
    connect("ftp://x", timout=3)
    with pytest.raises(IdeogramInvalidInput, match=r"(?s)base_url: .*Did you mean 'timeout'\?") as caught:
        IdeogramHook().get_credits()
    assert KEY not in str(caught.value)


def test_test_connection_shows_the_balance(hook: IdeogramHook, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply({"credits": 1.5, "free-credits": 0.018}))
    assert hook.test_connection() == (True, "credits: 1.52")
    assert [received.path for received in server.received] == ["/v1/get-user-credits"]


def test_test_connection_says_what_is_wrong_with_the_key(
    hook: IdeogramHook, server: Any, reply: Callable[..., bytes]
) -> None:
    server.script(reply({"error": f"{KEY} is not valid"}, 401))
    ok, message = hook.test_connection()
    assert not ok
    assert "HTTP 401: *** is not valid" in message
    assert "Check the connection's password" in message


def test_test_connection_says_that_the_api_cannot_be_reached(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    connect("http://127.0.0.1:1")
    ok, message = IdeogramHook().test_connection()
    assert not ok
    assert "can't be reached" in message


def test_test_connection_says_that_there_is_no_connection() -> None:
    ok, message = IdeogramHook("nobody_made_this").test_connection()
    assert not ok
    assert "nobody_made_this" in message


async def test_async_status_inside_async_with(hook: IdeogramHook, server: Any, reply: Callable[..., bytes]) -> None:
    server.script(reply({"status": "COMPLETED", "metrics": {"inference_time": 13.06}}))
    async with hook:
        assert await hook.aget_status("r-1") == RequestStatus("COMPLETED", 13.06)
    (received,) = server.received
    assert (received.method, received.path) == ("GET", "/v2/requests/r-1/status")
    assert received.headers["x-api-key"] == KEY


async def test_async_methods_outside_async_with_are_a_mistake(hook: IdeogramHook) -> None:
    with pytest.raises(RuntimeError, match="inside 'async with'"):
        await hook.aget_status("r-1")
    async with hook:
        pass
    with pytest.raises(RuntimeError, match="inside 'async with'"):
        await hook.aget_status("r-1")


async def test_async_hook_refuses_an_invalid_connection(connect: Callable[..., None]) -> None:
    connect("http://127.0.0.1:1", timeout=0)
    with pytest.raises(IdeogramInvalidInput, match="timeout: "):
        await IdeogramHook().__aenter__()


def test_older_forms_description_is_the_metadatas(monkeypatch: pytest.MonkeyPatch) -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    behaviour = IdeogramHook.get_ui_field_behaviour()
    assert {name.replace("_", "-"): value for name, value in behaviour.items()} == connection_type["ui-field-behaviour"]
    assert (connection_type["connection-type"], connection_type["hook-name"]) == (
        IdeogramHook.conn_type,
        IdeogramHook.hook_name,
    )


def test_older_forms_description_is_valid() -> None:
    from importlib.resources import files

    schema = json.loads(files("airflow").joinpath("customized_form_field_behaviours.schema.json").read_text())
    jsonschema.validate(IdeogramHook.get_ui_field_behaviour(), schema)


# What each version's web server asks to show the form.
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
    """In a process of its own: to show it, some versions put mocks in place of what they don't have."""
    script = f"{_FORM_OF_AIRFLOW_3 if AIRFLOW >= (3, 0) else _FORM_OF_AIRFLOW_2}\nprint(); print([fields, password])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)

    # Airflow 3.0 has no fields of any provider's without the fab provider, which brings WTForms.
    bare = AIRFLOW == (3, 0) and find_spec("wtforms") is None
    expected = [[], None] if bare else [list(EXTRA_FIELDS), "API key"]
    assert done.stdout.splitlines()[-1] == str(expected), done.stdout
