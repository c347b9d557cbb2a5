"""
Properties that hold for any data of an attacker, for the property tests and for `make fuzz`.

Invariant: a check that returns has found no violation.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from airflow_provider_ideogram.api import history, parsing
from airflow_provider_ideogram.api.calls import Call
from airflow_provider_ideogram.api.response import ApiResponse
from airflow_provider_ideogram.datasets.row_files import read_rows
from airflow_provider_ideogram.datasets.rows import RowChecker
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramInvalidImage, IdeogramInvalidInput
from airflow_provider_ideogram.hooks.client import ResponseBody
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.image import MAX_PIXELS, ImageSpool
from airflow_provider_ideogram.hooks.image_hosts import absolute_address, check_address
from airflow_provider_ideogram.storage.target import Target, check_key
from tests.support.s3 import NO_S3

KEY = "SG_0123456789abcdef"
PARSERS: tuple[Callable[[ApiResponse], Any], ...] = (
    parsing.parse_submission,
    parsing.parse_status,
    lambda answer: parsing.parse_result(answer, "r-1"),
    parsing.parse_generated,
    parsing.parse_credits,
    history.parse_history,
)
#: The most characters of a line of an error message, which quotes a text of the server.
MAX_LINE = 1_000


def _ways_to_say(text: str) -> list[str]:
    """Return a text, and the forms that JSON, HTML or logs give it."""
    escapes = "".join(f"\\u{ord(character):04x}" for character in text)
    entities = "".join(f"&#{ord(character)};" for character in text)
    middle = len(text) // 2
    splits = [f"{text[:middle]}{between}{text[middle:]}" for between in ("\n", "\0", "<wbr>", "\u200b", " ")]
    return [text, escapes, entities, html.escape(entities), text.upper(), *splits]


_SAID = [
    *_ways_to_say(KEY),
    "\x1b[31m",
    "\r\nERROR",
    "<html>",
    "<script",
    "\u202e",
    "\ud800",
    "{{ ds }}",
    "..",
    "/",
    "%2e",
    "x" * 400,
]
_WORDS = st.text() | st.lists(st.sampled_from(_SAID) | st.text(max_size=5), max_size=5).map("".join)
_NAMES = st.sampled_from(
    [
        "status",
        "error",
        "message",
        "detail",
        "request_id",
        "metrics",
        "inference_time",
        "output",
        "image",
        "images",
        "url",
        "data",
        "b64_json",
        "credits",
        "free-credits",
        "request_body",
        "created_at",
        "model_created",
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _WORDS
    | st.sampled_from(
        ["FAILED", "COMPLETED", "QUEUED", "r-1", "https://images.segmind.com/a", "data:,x", "iVBORw0KGgo="]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES | st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
_TEXTS = (
    _VALUES.map(json.dumps)
    | _VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
    | _VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).replace("\\\\u00", "\\u00"))
    | _WORDS
    | _WORDS.map("<html>{}".format)
)
_ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
_BODIES = st.binary() | st.builds(lambda text, encoding: text.encode(encoding, "surrogatepass"), _TEXTS, _ENCODINGS)
#: Arguments of :func:`check_response`.
RESPONSES: dict[str, st.SearchStrategy[Any]] = {
    "status": st.integers(100, 999) | st.sampled_from([200, 200, 422, 401, 429, 503]),
    "headers": st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "retry-after", "date", "x-remaining-credits"]),
        _WORDS | st.sampled_from(["image/png", "gzip", "7", "1e999", "Mon, 23 Nov 2026 06:00:30 GMT"]),
    ),
    "body": _BODIES,
}

_HOSTS = st.sampled_from(
    [
        "api.segmind.com",
        "images.segmind.com",
        "segmind.com.evil.example",
        "evilsegmind.com",
        "segmind.com.",
        ".segmind.com",
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "xn--segmnd-s9a.com",
        "segm\u0131nd.com",
        "user@segmind.com",
        "segmind.com@evil.example",
        "a\\.segmind.com",
        "a:0",
        "a:99999",
        "*.segmind.com",
    ]
)
_ADDRESSES = _WORDS | st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://", "http://", "HTTPS://", "file://", "//", "javascript:", ""]),
    _HOSTS | _WORDS,
    st.sampled_from(["", "/", "/v1", "/v2/", "/v3", "?", "#", "/a?b", ":8700", "/\r\nx: y", f"/{KEY}"]),
)
_OPTIONS = st.none() | st.booleans() | st.integers() | st.floats() | _ADDRESSES | st.lists(_ADDRESSES, max_size=3)
#: Arguments of :func:`check_connection`.
CONNECTIONS: dict[str, st.SearchStrategy[Any]] = {
    "fields": st.fixed_dictionaries(
        {},
        optional={
            "host": st.none() | _ADDRESSES,
            "schema": st.none() | st.sampled_from(["http", "https", "file", "https://evil.example/?"]),
            "port": st.none() | st.integers(-1, 70_000),
            "password": st.none() | _WORDS | st.just(f" {KEY}\r\n") | st.just(f"{KEY}\r\nx-evil: 1"),
        },
    ),
    "extra": st.dictionaries(
        st.sampled_from(["requests_per_minute", "timeout", "history_url", "image_hosts"]) | _WORDS, _OPTIONS, max_size=4
    )
    | st.lists(_WORDS, max_size=1)
    | st.none(),
}
#: Arguments of :func:`check_image_address`.
IMAGE_ADDRESSES: dict[str, st.SearchStrategy[Any]] = {"address": _ADDRESSES}


def _images() -> list[bytes]:
    """Return images of all kinds, with any metadata."""
    picture, made = Image.effect_noise((12, 8), 50), []
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b", zip=True)
    for name, data in {b"eXIf": b"MM\0*\0\0\0\x08\0\0\0\0", b"pHYs": b"\0\0\0\1\0\0\0\1\1", b"cHRM": bytes(32)}.items():
        text.add(name, data, after_idat=True)
    more = {"save_all": True, "append_images": [Image.new("RGB", (12, 8))]}
    for kind, mode, options in (
        ("PNG", "RGB", {"pnginfo": text}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "RGB", more),
        ("JPEG", "RGB", {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0", "icc_profile": bytes(300)}),
        ("JPEG", "CMYK", {}),
        ("MPO", "RGB", more),
        ("WEBP", "RGB", {"lossless": True, "exif": b"Exif\0\0MM"}),
        ("WEBP", "RGB", more),
        ("GIF", "P", {}),
    ):
        file = io.BytesIO()
        picture.convert(mode).save(file, kind, **options)
        made.append(file.getvalue())
    return [*made, b"<html>", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]


def _changed(data: bytes, changes: list[tuple[int, int, bytes]], end: bytes) -> bytes:
    """Return data with some bytes removed, replaced and appended."""
    changed = bytearray(data)
    for place, removed, put in changes:
        at = place % (len(changed) + 1)
        changed[at : at + removed] = put
    return bytes(changed) + end


_CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 8), st.binary(max_size=8)), max_size=4)
_ENDS = st.sampled_from([b"", b"", b"<script>", b"PK\3\4"]) | st.binary(max_size=20)
#: Arguments of :func:`check_image`.
IMAGES: dict[str, st.SearchStrategy[Any]] = {"data": st.builds(_changed, st.sampled_from(_images()), _CHANGES, _ENDS)}


def _parquet() -> bytes:
    rows = [{"prompt": f"p {number}", "id": str(number), "seed": 1.0, "mine": {"a": [1]}} for number in range(20)]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="snappy")
    return file.getvalue()


_IDS = [
    "\u00e9",
    "e\u0301",
    "\u00c9",
    "..",
    "a\\..\\b",
    "CON",
    "\u200b",
    "\ufb01",
    "manifest.jsonl",
    "Manifest.jsonl",
    "=1+1",
]
_CELLS = _WORDS | st.sampled_from([*_IDS, "a cat", "1e999", "NaN", '"', ",", "\0", "1" * 5000])
_ROWS = st.fixed_dictionaries(
    {"prompt": _CELLS}, optional={"id": _CELLS | _VALUES, "seed": _VALUES, "model_params": _VALUES}
)
_LINES = st.lists((_ROWS | _VALUES).map(json.dumps) | _WORDS | st.just("[" * 5000), max_size=5).map("\n".join)
_TABLES = st.lists(st.lists(_CELLS, max_size=4).map(",".join), max_size=5).map(
    lambda rows: "\n".join(["id,prompt,seed", *rows])
)
_FILES = st.builds(lambda text, encoding: text.encode(encoding, "surrogatepass"), _LINES | _TABLES, _ENCODINGS)
_TEXT_FILES = st.sampled_from(["a.jsonl", "a.csv"])
_ZIPPED = st.builds(_changed, _FILES.map(lambda data: gzip.compress(data, mtime=0)), _CHANGES, _ENDS)
#: Arguments of :func:`check_rows`.
FILES: dict[str, st.SearchStrategy[Any]] = {
    "file": st.tuples(_TEXT_FILES, _FILES | st.binary())
    | st.tuples(_TEXT_FILES.map("{}.gz".format), _ZIPPED | st.binary())
    | st.tuples(st.just("a.parquet"), st.builds(_changed, st.just(_parquet()), _CHANGES, _ENDS) | st.binary())
}


def received(status: int, headers: Mapping[str, str], body: bytes) -> ApiResponse:
    """Return a response as the hook does; the server repeats the key in it."""
    whole = ResponseBody(Call("GET", "/", lambda answer: answer), ConnectionSettings(KEY))
    for start in range(0, len(body), 7):
        whole.add(body[start : start + 7])
    return whole.response(status, headers)


def check_response(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Each parser returns a value or raises an error of the provider, without harmful text."""
    answer = received(status, headers, body)
    check_words(answer.message)
    for parse in PARSERS:
        try:
            meaning = parse(answer)
        except IdeogramError as error:
            check_message(str(error))
            check_key_is_not_in(str(error))
        else:
            assert meaning is not None
            failed = isinstance(meaning, parsing.RequestStatus) and meaning.state == "FAILED"
            assert 200 <= status < 300 or (status == 422 and failed)
            check_meaning(meaning)


def check_words(text: str) -> None:
    """A text of the server is one printable line of bounded length, without the key."""
    assert 0 < len(text) <= 300
    assert text.isprintable()
    assert text == text.strip()
    check_key_is_not_in(text)


def check_message(message: str) -> None:
    """An error message has bounded length, and the server can't add lines to it."""
    lines = message.split("\n")
    assert all(0 < len(line) <= MAX_LINE and line.isprintable() for line in lines)
    assert all(line.startswith("  - ") for line in lines[1:])


def check_key_is_not_in(text: str) -> None:
    """A text does not contain the key, also not with spaces in it."""
    assert KEY not in text.replace(" ", "")


def check_meaning(meaning: Any) -> None:
    """A parsed response does not contain the key, and its ids are valid."""
    check_key_is_not_in(repr(meaning))
    if isinstance(meaning, parsing.Submission):
        check_request_id(meaning.request_id)
    elif isinstance(meaning, history.HistoryPage):
        for row in meaning.rows:
            check_request_id(row.request_id)
    elif isinstance(meaning, parsing.RequestStatus) and meaning.error is not None:
        check_words(meaning.error)


def check_request_id(request_id: str) -> None:
    """A request id does not change the rest of an address or of a key."""
    url = httpx.URL("https://api.segmind.com").join(f"/v2/requests/{request_id}/status")
    assert url.raw_path == b"/v2/requests/%s/status" % request_id.encode("ascii")
    key = Target("my-bucket", "images/").named(request_id, "png", "").key
    assert check_key(key, with_bucket=True) == []
    assert key.split("/") == ["images", f"{request_id}.png"]


def check_rows(file: tuple[str, bytes]) -> None:
    """A dataset's file yields rows or an input error; each row is an item or a problem of bounded length."""
    name, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        _check_rows(path)


def _check_rows(path: Path) -> None:
    checker = RowChecker({}, Target("my-bucket", "day/"), "{id}")
    total = 0
    keys: set[str] = set()
    try:
        rows = list(read_rows(str(path), NO_S3))
        for total, item in enumerate(checker.items(rows), 1):  # noqa: B007
            assert check_key(item.key, with_bucket=True) == []
            assert item.key.rpartition("/")[0] == "day"
            assert item.key not in keys
            keys.add(item.key)
    except IdeogramInvalidInput as error:
        check_message(str(error))
        return
    assert total + checker.bad_rows == len(rows)
    assert all(len(problem) <= MAX_LINE and problem.isprintable() for problem in checker.problems)


def check_image(data: bytes) -> None:
    """Received data is refused, or is an image of a known kind and of limited size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of libraries are no errors on a worker
        try:
            with ImageSpool() as spool:
                spool.write(data)
                image = spool.finish()
        except IdeogramError as error:
            check_message(str(error))
            return
    with image:
        assert image.content_type.startswith("image/")
        assert 0 < image.width * image.height <= MAX_PIXELS
        assert image.file.read() == data


def check_connection(fields: Mapping[str, Any], extra: Any) -> None:
    """A connection yields settings with its own host, or an error without the key."""
    connection = {"conn_id": "c", "password": KEY, "host": None, "schema": None, "port": None, "extra": None, **fields}
    try:
        settings = ConnectionSettings.of(SimpleNamespace(**connection), extra)
    except IdeogramInvalidInput as error:
        check_message(str(error))
        if (connection["password"] or "").strip() == KEY:
            check_key_is_not_in(str(error))
        return
    for address in filter(None, (settings.base_url, settings.history_url)):
        url = httpx.URL(address)
        assert url.scheme in ("http", "https")
        assert url.host
        assert not url.userinfo
        assert not url.query
        assert not url.fragment
    assert httpx.URL(settings.base_url).raw_path == b"/"
    assert settings.api_key.isascii()
    assert settings.api_key.isprintable()
    if KEY not in f"{fields.get('host')} {extra}":  # otherwise it is the name of a host
        check_key_is_not_in(repr(settings))


def check_image_address(address: str) -> None:
    """An image's address is refused, or its host is exactly the vendor's, the API's or a listed one."""
    settings = ConnectionSettings(KEY, image_hosts=("10.0.0.7", "cdn.example.com"))
    try:
        url = absolute_address(address, settings)
        check_address(url, settings)
    except (IdeogramInvalidImage, httpx.InvalidURL, UnicodeError):
        return
    host = url.raw_host.decode().rstrip(".")
    own = (httpx.URL(settings.base_url).raw_host.decode(), *settings.image_hosts)
    assert host in own or host == "segmind.com" or host.endswith(".segmind.com")
    assert url.scheme in ("https", httpx.URL(settings.base_url).scheme)
    assert not url.userinfo
