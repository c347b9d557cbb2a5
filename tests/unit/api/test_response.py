from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from tests.support.hostile import KEY, check_words

#: Error bodies that the API and gateways send, with the message that is shown.
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


@pytest.mark.parametrize("body", BODIES)
def test_message(body: str) -> None:
    raw, text = BODIES[body]
    assert ApiResponse(400, {}, raw).message == text


_json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "detail", "msg"]) | st.text(), inner)
    ),
    max_leaves=8,
)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_message_of_any_body_is_a_short_printable_line(body: bytes) -> None:
    check_words(ApiResponse(500, {}, body).message)
    check_words(ApiResponse(500, {}, b"<html>" + body).message)


@given(_json_values)
def test_message_of_any_json_is_a_short_printable_line(value: Any) -> None:
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
def test_key_is_redacted(body: str, text: str, encoding: str) -> None:
    response = ApiResponse(401, {}, body.encode(encoding), Redactor(KEY))
    if encoding == "utf-8" or response.json() is not None:
        assert response.message == text
    assert KEY not in response.message.replace(" ", "").upper()
    assert KEY not in repr(response.json())


def test_compressed_body_is_named_and_not_decompressed() -> None:
    response = ApiResponse(502, {"content-encoding": f"gzip\n{KEY}"}, b"\x1f\x8b\x08", Redactor(KEY))
    assert response.message == "a body in the content-encoding gzip ***, which was not asked for"
    assert ApiResponse(400, {"content-encoding": "br"}, b'{"error": "no"}').message == "no"


@pytest.mark.parametrize("unit", [b"<script", b"<", b"< ", b"<style></style ", b"<html", b"&lt;", b"<!--"])
def test_only_the_beginning_of_a_page_is_examined(unit: bytes) -> None:
    """A poll's response is read on the triggerer's event loop."""
    page = b"<html>" + unit * (20_000 // len(unit))
    assert ApiResponse(502, {}, page + b"<p>end</p>" * 1000).message == ApiResponse(502, {}, page[:20_000]).message


@pytest.mark.parametrize("body", [b"[]", b"{},", b"0,", b'"",'])
def test_json_with_too_many_values_is_not_parsed(body: bytes) -> None:
    response = ApiResponse(200, {}, b'{"output": [' + body * 1_500_000 + b"0]}")
    tracemalloc.start()
    try:
        assert response.json() is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"1" * 5_000, b"\xff", b"\x1f\x8b"])
def test_invalid_json_is_none(body: bytes) -> None:
    assert ApiResponse(200, {}, body, Redactor(KEY)).json() is None
