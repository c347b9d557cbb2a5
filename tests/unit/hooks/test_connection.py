from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.hooks.connection import (
    DEFAULT_BASE_URL,
    DEFAULT_HISTORY_URL,
    EXTRA_FIELDS,
    UI_FIELD_BEHAVIOUR,
    ConnectionSettings,
)
from tests.support import hostile
from tests.support.hostile import KEY


def _settings(extra_fields: dict[str, Any] | None = None, **fields: Any) -> ConnectionSettings:
    connection = {"conn_id": "my_conn", "password": KEY, "host": None, "schema": None, "port": None, "extra": None}
    return ConnectionSettings.of(SimpleNamespace(**connection | fields), extra_fields or {})


def _refusal(extra_fields: dict[str, Any] | None = None, **fields: Any) -> str:
    """Return the message with which a connection is refused; check that it names the connection, but not the key."""
    with pytest.raises(IdeogramInvalidInput) as caught:
        _settings(extra_fields, **fields)
    assert KEY not in repr(caught.value)
    assert "connection 'my_conn': " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({}, DEFAULT_BASE_URL),
        ({"host": "  "}, DEFAULT_BASE_URL),
        ({"host": "https://api.segmind.com/"}, DEFAULT_BASE_URL),
        ({"host": " https://api.segmind.com "}, DEFAULT_BASE_URL),
        ({"host": "https://api.segmind.com/v1"}, DEFAULT_BASE_URL),
        ({"host": "https://api.segmind.com/v2/"}, DEFAULT_BASE_URL),
        ({"host": "api.segmind.com"}, DEFAULT_BASE_URL),
        ({"host": "api.segmind.com/v1"}, DEFAULT_BASE_URL),
        ({"host": "HTTP://localhost:8700"}, "http://localhost:8700"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8700}, "http://127.0.0.1:8700"),
        ({"host": "localhost", "port": 8700}, "https://localhost:8700"),
        ({"host": "localhost:8700", "schema": "http", "port": 9}, "http://localhost:8700"),
        ({"host": "http://localhost", "port": 8700}, "http://localhost:8700"),
        ({"host": "http://[::1]", "port": 8700}, "http://[::1]:8700"),
        ({"host": "::1", "schema": "http", "port": 8700}, "http://[::1]:8700"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]"),
        ({"port": 443}, "https://api.segmind.com"),
        ({"host": "http://localhost:80"}, "http://localhost"),
        ({"host": "http://[::1]:8700", "port": 9}, "http://[::1]:8700"),
    ],
)
def test_base_url_is_read_in_every_form(fields: dict[str, Any], base_url: str) -> None:
    assert _settings(**fields).base_url == base_url


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("ftp://api.segmind.com", "is not an http or https address"),
        ("https://", "is not an http or https address"),
        ("https://api.segmind.com:99999", "is not an http or https address"),
        ("https://api.segmind.com:x", "is not an http or https address"),
        ("http://[", "is not an http or https address"),
        ("[::1", "is not an http or https address"),
        ("http://[::1]x", "is not an http or https address"),
        ("https://a b", "is not an http or https address"),
        ("https://a,b", "is not an http or https address"),
        ("https://999.1.1.1", "is not an http or https address"),
        ("file:///etc/passwd", "is not an http or https address"),
        ("javascript:alert(1)", "is not an http or https address"),
        ("https://api.segmind.com\\.evil.example", "is not an http or https address"),
        ("https://api.segmind.com\\@evil.example", "must not contain credentials"),
        ("https://api.segmind.com\r\nx-evil: 1", "has characters that are not valid in an address"),
        ("https://segm\u0131nd.com", "in its xn-- form"),
        ("https://a\x00b", "has characters that are not valid in an address"),
        ("https://exa\u2024mple.com", "has characters that are not valid in an address"),
        ("https://\ud800", "has characters that are not valid in an address"),
        (f"https://{KEY}@api.segmind.com", "must not contain credentials; enter the key in the field 'API key'"),
        (f"https://user:{KEY}@api.segmind.com", "must not contain credentials"),
        (f"https://api.segmind.com?api_key={KEY}", "must not have a query or a fragment"),
        ("https://api.segmind.com/v1?", "must not have a query or a fragment"),
        (f"https://api.segmind.com/{KEY}", "must have no path, not '/***'"),
        ("https://api.segmind.com#x", "must not have a query or a fragment"),
        ("https://api.segmind.com/v3", "must have no path, not '/v3'"),
        ("https://api.segmind.com/v1/models", "must have no path"),
    ],
)
def test_invalid_base_url_is_refused(host: str, message: str) -> None:
    refusal = _refusal(host=host)
    assert "Base URL: " in refusal
    assert message in refusal


def test_line_break_in_a_host_with_a_port_is_refused() -> None:
    assert "has characters that are not valid in an address" in _refusal(
        host="api.segmind.com\n.evil.example", port=443
    )


@pytest.mark.parametrize("password", [None, "", "  "])
def test_missing_key_is_refused(password: str | None) -> None:
    assert "API key: is missing" in _refusal(password=password)


def test_short_key_is_refused() -> None:
    assert "API key: has fewer than 8 characters" in _refusal(password="1234567")


@pytest.mark.parametrize("character", [" ", "\n", "\r\nx-evil: ", "é", "\x00"])
def test_key_that_is_not_valid_in_a_header_is_refused(character: str) -> None:
    message = _refusal(password=f"{KEY}{character}{KEY}")
    assert "API key: has characters that are not valid in a key" in message


def test_key_is_stripped_and_not_in_the_repr() -> None:
    settings = _settings(password=f" {KEY}\n")
    assert settings.api_key == KEY
    assert KEY not in repr(settings) + str(settings)


def test_extra_is_typed() -> None:
    settings = _settings(
        {
            "requests_per_minute": "50",
            "polls_per_minute": "300",
            "timeout": "12.5",
            "history_url": " http://127.0.0.1:8700/history/ ",
            "image_hosts": "CDN.example.com., 10.0.0.7  cdn.example.com",
            "max_cost_usd_per_day": "40",
            "max_cost_usd_per_month": 600,
            "max_cost_usd_per_dag_and_day": 0,
            "account_url": "s3://bucket/prefix",
        }
    )
    hosts = ("10.0.0.7", "cdn.example.com")
    assert settings == ConnectionSettings(
        *(KEY, DEFAULT_BASE_URL, 50.0, 300.0, 12.5, "http://127.0.0.1:8700/history", hosts),
        max_cost_usd_per_day=40.0,
        max_cost_usd_per_month=600.0,
        max_cost_usd_per_dag_and_day=0.0,
        account_url="s3://bucket/prefix/",
    )
    assert _settings({"image_hosts": ["b.example", "::1", "a.example"]}).image_hosts == (
        "::1",
        "a.example",
        "b.example",
    )


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_field_has_the_default(empty: str | None) -> None:
    assert _settings(dict.fromkeys(EXTRA_FIELDS, empty)) == _settings() == ConnectionSettings(KEY)


def test_form_shows_the_true_defaults() -> None:
    shown = {name: extra.default for name, extra in EXTRA_FIELDS.items() if extra.default is not None}
    assert _settings(shown) == _settings()


@pytest.mark.parametrize(
    ("host", "history_url"),
    [
        (None, DEFAULT_HISTORY_URL),
        ("https://api.segmind.com", DEFAULT_HISTORY_URL),
        ("https://eu.api.segmind.com/v2", DEFAULT_HISTORY_URL),
        ("https://gateway.example.com", None),
        ("https://segmind.com.example.com", None),
        ("http://127.0.0.1:8700", None),
    ],
)
def test_gateway_has_no_history_url_by_default(host: str | None, history_url: str | None) -> None:
    assert _settings(host=host).history_url == history_url
    assert _settings({"history_url": "https://h.example.com/x"}, host=host).history_url == "https://h.example.com/x"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("requests_per_minute", "many", "'many' is not a number of 0 or more"),
        ("requests_per_minute", -1, "is not a number of 0 or more"),
        ("requests_per_minute", True, "is not a number of 0 or more"),
        ("requests_per_minute", "inf", "is not a number of 0 or more"),
        ("requests_per_minute", [5], "is not a number of 0 or more"),
        ("requests_per_minute", 10**400, "000"),
        ("requests_per_minute", "1e999", "is not a number of 0 or more"),
        ("max_cost_usd_per_day", "-1", "is not a number of 0 or more"),
        ("account_url", "https://bucket.example.com", "is not an address such as s3://bucket/prefix/"),
        ("account_url", "s3:///prefix", "is not an address such as s3://bucket/prefix/"),
        ("account_url", 7, "is not an address such as s3://bucket/prefix/"),
        ("timeout", KEY, "'***' is not a number"),
        ("timeout", 0, "0 is not within 1..300 seconds"),
        ("timeout", 301, "is not within 1..300 seconds"),
        ("timeout", "soon", "is not a number"),
        ("history_url", "history", "is not an http or https address"),
        ("history_url", 7, "must be an address"),
        ("history_url", "https://[", "is not an http or https address"),
        ("history_url", "https://a:b@history.segmind.com", "must not contain credentials"),
        ("image_hosts", "https://cdn.example.com", "must be full host names"),
        ("image_hosts", "cdn.example.com/path", "must be full host names"),
        ("image_hosts", "*.example.com", "must be full host names"),
        ("image_hosts", "*", "must be full host names"),
        ("image_hosts", ".example.com", "must be full host names"),
        ("image_hosts", "a..b", "must be full host names"),
        ("image_hosts", ".", "must be full host names"),
        ("image_hosts", "user@cdn.example.com", "must be full host names"),
        ("image_hosts", "cdn.example.com:8443", "must be full host names"),
        ("image_hosts", "m\u00fcnchen.example", "in its xn-- form"),
        ("image_hosts", [7], "must be full host names"),
        ("image_hosts", 7, "must be full host names"),
    ],
)
def test_invalid_field_of_the_extra_is_refused(name: str, value: Any, message: str) -> None:
    refusal = _refusal({name: value})
    assert f"extra {name}: " in refusal
    assert message in refusal


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("request_per_minute", "Did you mean 'requests_per_minute'?"),
        ("Timeout", "Did you mean 'timeout'?"),
        ("xyz", "Valid are requests_per_minute, polls_per_minute, max_cost_usd_per_day"),
    ],
)
def test_unknown_field_gets_a_suggestion(name: str, message: str) -> None:
    assert f"extra {name!r} is unknown. {message}" in _refusal({name: 1})


def test_key_in_a_wrong_field_is_redacted() -> None:
    assert "extra '***' is unknown" in _refusal({KEY: 1})


@pytest.mark.parametrize("extra", [["timeout"], "timeout", None])
def test_extra_must_be_an_object(extra: Any) -> None:
    connection = SimpleNamespace(conn_id="my_conn", password=KEY, host=None, schema=None, port=None, extra=None)
    with pytest.raises(IdeogramInvalidInput, match="extra: must be a JSON object"):
        ConnectionSettings.of(connection, extra)


def test_extra_that_is_not_json_is_refused() -> None:
    """Airflow reads it as an empty extra, and the defaults would be used."""
    assert "extra: must be a JSON object" in _refusal(extra="{'timeout': 60}")


@given(**hostile.CONNECTIONS)
def test_any_connection_is_read_as_written_or_refused(fields: dict[str, Any], extra: Any) -> None:
    hostile.check_connection(fields, extra)


def test_all_problems_are_in_one_message() -> None:
    message = _refusal({"timeout": 0, "nonsense": 1}, password="", host="ftp://x")
    assert [part in message for part in ("API key: ", "Base URL: ", "extra timeout: ", "extra 'nonsense'")] == [
        True
    ] * 4


def test_equal_settings_can_share_a_client() -> None:
    assert len({_settings(), _settings(host="https://api.segmind.com"), _settings(password="another-key")}) == 2


def test_form_hides_unused_fields() -> None:
    assert set(UI_FIELD_BEHAVIOUR["hidden-fields"]) == {"login", "schema", "extra"}
