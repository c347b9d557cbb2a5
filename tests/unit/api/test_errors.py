from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.api.errors import raise_for_status, retry_after
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from tests.support.hostile import KEY, check_words

# Bodies of an error as they were seen, or may come from a gateway, with what a person is to read of them.
BODIES: dict[str, tuple[bytes, str]] = {
    "error": (b'{"error": "that is wrong"}', "that is wrong"),
    "message": (b'{"message": "that is wrong"}', "that is wrong"),
    "detail": (b'{"detail": "that is wrong", "error": ""}', "that is wrong"),
    "nested": (b'{"error": {"code": 7, "message": "that is wrong"}}', "that is wrong"),
    "list": (b'{"detail": [{"msg": "a is wrong"}, {"loc": ["b"], "msg": "b is wrong"}]}', "a is wrong; b is wrong"),
    "list of texts": (b'["a is wrong", 1]', '["a is wrong", 1]'),
    "other keys": (b'{"reason": "\xc3\xa4rger"}', '{"reason": "ärger"}'),
    "JSON text": (b'"that is wrong"', "that is wrong"),
    "JSON number": (b"7", "7"),
    "HTML": (
        b"<!DOCTYPE html><html><head><title>502</title><style>p {color: red}</style><script>alert('x')</script></head>"
        b"<body><h1>Bad   Gateway</h1><p>a &amp; b</p></body></html>",
        "502 Bad Gateway a & b",
    ),
    "plain": (
        b"upstream connect error\r\n\tor a reset <before> headers",
        "upstream connect error or a reset <before> headers",
    ),
    "empty": (b"", "no text"),
    "spaces": (b" \r\n ", "no text"),
    "not UTF-8": (b"M\xfcller \xff\xfe", "M\ufffdller \ufffd\ufffd"),
    "forged line": (b'{"error": "x\\nERROR - all is lost\\u001b[31m \\u202e \\ud800"}', "x ERROR - all is lost [31m"),
    "ANSI": (b"\x1b[2Jgone\x00\x07", "[2Jgone"),
    "cut JSON": (b'{"error": "that', '{"error": "that'),
    "deep": (b"[" * 5000, "[" * 299 + "…"),
    "script that is not closed": (b"<html>Bad<script>alert('x')", "Bad"),
    "huge number": (b"9" * 5000, "9" * 299 + "…"),
    "huge": (b'{"error": "' + b"x" * 100_000 + b'"}', "x" * 299 + "…"),
    "as large as an image": (b'{"error": "' + b"x" * 10_000_000 + b'"}', '{"error": "' + "x" * 288 + "…"),
    "full stop": (b'{"error": "no credits left."}', "no credits left"),
    "deep errors": (b'{"error":' * 7 + b'"no"' + b"}" * 7, '{"error": {"error": "no"}}'),
}
KINDS: dict[int, type[exceptions.IdeogramError]] = {
    300: exceptions.IdeogramInvalidInput,
    302: exceptions.IdeogramInvalidInput,
    400: exceptions.IdeogramInvalidInput,
    401: exceptions.IdeogramAuthenticationError,
    402: exceptions.IdeogramInsufficientCredits,
    403: exceptions.IdeogramPermissionError,
    404: exceptions.IdeogramNotFound,
    405: exceptions.IdeogramNotFound,
    406: exceptions.IdeogramInsufficientCredits,
    408: exceptions.IdeogramServerUnavailable,
    409: exceptions.IdeogramInvalidInput,
    413: exceptions.IdeogramInvalidInput,
    422: exceptions.IdeogramInvalidInput,
    429: exceptions.IdeogramRateLimited,
    500: exceptions.IdeogramServerUnavailable,
    502: exceptions.IdeogramServerUnavailable,
    503: exceptions.IdeogramServerUnavailable,
    504: exceptions.IdeogramServerUnavailable,
    599: exceptions.IdeogramServerUnavailable,
}


@pytest.mark.parametrize("body", BODIES)
def test_readable(body: str) -> None:
    raw, text = BODIES[body]
    assert ApiResponse(400, {}, raw).message == text


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", KINDS)
def test_status_alone_says_which_error_an_answer_is(status: int, body: str) -> None:
    raw, text = BODIES[body]
    with pytest.raises(exceptions.IdeogramError) as caught:
        raise_for_status(ApiResponse(status, {}, raw))
    assert type(caught.value) is KINDS[status]
    assert f"HTTP {status}: {text}" in str(caught.value)
    assert "Nothing was charged" in str(caught.value)


@pytest.mark.parametrize("status", KINDS)
def test_where_a_charged_call_may_have_been_accepted_the_error_says_so(status: int) -> None:
    with pytest.raises(exceptions.IdeogramError) as caught:
        raise_for_status(ApiResponse(status, {}, b""), charges=True)
    if KINDS[status] is exceptions.IdeogramServerUnavailable:
        assert type(caught.value) is exceptions.IdeogramUnknownSubmit
        assert "may have been accepted and charged" in str(caught.value)
    else:
        assert type(caught.value) is KINDS[status]
        assert "Nothing was charged" in str(caught.value)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_no_error(status: int) -> None:
    raise_for_status(ApiResponse(status), charges=True)


DATE = "Mon, 23 Nov 2026 06:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "1e300"}, 3600.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 05:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2099 05:00:00 GMT", "date": DATE}, 3600.0),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30", "date": DATE}, None),
        ({"retry-after": "Mon, 99 Nov 99999 06:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": "yesterday"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(ApiResponse(429, headers)) == seconds
    for status in (429, 503):
        with pytest.raises(exceptions.IdeogramTemporaryError) as caught:
            raise_for_status(ApiResponse(status, headers))
        assert caught.value.retry_after == seconds


@given(st.text(), st.text())
@example("Mon, 23 Nov 2026 06:00:30 +9999", "Mon, 23 Nov 2026 06:00:30 -9999")
def test_retry_after_is_none_or_within_bounds(value: str, date: str) -> None:
    seconds = retry_after(ApiResponse(429, {"retry-after": value, "date": date}))
    assert seconds is None or 0.0 <= seconds <= 3600.0


_said = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "detail", "msg"]) | st.text(), inner)
    ),
    max_leaves=8,
)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_readable_of_any_body_is_one_short_printable_line(body: bytes) -> None:
    check_words(ApiResponse(500, {}, body).message)
    check_words(ApiResponse(500, {}, b"<html>" + body).message)


@given(_said)
def test_readable_of_any_json_is_one_short_printable_line(value: Any) -> None:
    check_words(sanitize_text(value))
    check_words(ApiResponse(500, {}, json.dumps(value).encode()).message)


ENTITIES = "".join(f"&#{ord(character)};" for character in KEY)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (json.dumps({"error": f"unknown key {KEY}"}), "unknown key ***"),
        (
            '{"error": "unknown key ' + "".join(f"\\u{ord(character):04x}" for character in KEY) + '"}',
            "unknown key ***",
        ),
        (json.dumps({"error": f"unknown key {KEY[:9]}\r\n{KEY[9:]}"}), "unknown key ***"),
        (json.dumps({KEY: [KEY, {"a": KEY}]}).replace("S", "\\u0053"), '{"***": ["***", {"a": "***"}]}'),
        (f"<html>unknown key {ENTITIES}", "unknown key ***"),
        (f"<html>unknown key {KEY[:9]}<wbr>{KEY[9:]}", "unknown key ***"),
        (f"unknown key {KEY.upper()}", "unknown key ***"),
        (f"unknown key {KEY[:4]}\0{KEY[4:]}", "unknown key ***"),
        ("x" * 290 + KEY, "x" * 290 + "***"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_key_that_the_server_says_again_is_left_out(body: str, text: str, encoding: str) -> None:
    answer = ApiResponse(401, {}, body.encode(encoding), Redactor(KEY))
    if encoding == "utf-8" or answer.json() is not None:
        assert answer.message == text
    assert KEY not in answer.message.replace(" ", "").upper()
    assert KEY not in repr(answer.json())


def test_compressed_body_is_named_and_not_unfolded() -> None:
    answer = ApiResponse(502, {"content-encoding": f"gzip\n{KEY}"}, b"\x1f\x8b\x08", Redactor(KEY))
    assert answer.message == "a body in the content-encoding gzip ***, which was not asked for"
    assert ApiResponse(400, {"content-encoding": "br"}, b'{"error": "no"}').message == "no"


@pytest.mark.parametrize("unit", [b"<script", b"<", b"< ", b"<style></style ", b"<html", b"&lt;", b"<!--"])
def test_no_page_takes_long_to_read(unit: bytes) -> None:
    """A poll's answer is read on the triggerer's loop."""
    started = time.process_time()
    assert ApiResponse(502, {}, b"<html>" + unit * (20_000 // len(unit))).message
    assert time.process_time() - started < 0.1  # some 3 ms; a quarter of a second where it is quadratic


@pytest.mark.parametrize("body", [b"[]", b"{},", b"0,", b'"",'])
def test_json_of_more_values_than_any_answer_has_is_not_unfolded(body: bytes) -> None:
    answer = ApiResponse(200, {}, b'{"output": [' + body * 1_500_000 + b"0]}")
    tracemalloc.start()
    try:
        assert answer.json() is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"1" * 5_000, b"\xff", b"\x1f\x8b"])
def test_what_is_no_json_is_none(body: bytes) -> None:
    assert ApiResponse(200, {}, body, Redactor(KEY)).json() is None
