from __future__ import annotations

import gzip
import io
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from airflow_provider_ideogram.exceptions import (
    IdeogramImageGone,
    IdeogramInvalidImage,
    IdeogramServerUnavailable,
    IdeogramStorageError,
)
from airflow_provider_ideogram.hooks import download
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.download import download_image
from tests.support import hostile
from tests.support.hostile import KEY
from tests.unit.hooks.conftest import PNG, PUBLIC, Internet

SETTINGS = ConnectionSettings(KEY)
URL = "https://images.segmind.com/a.png"
pytestmark = pytest.mark.usefixtures("no_proxy", "waits")


def _download(url: str = URL, settings: ConnectionSettings = SETTINGS) -> bytes:
    with download_image(ImageUrl(url), settings) as image:
        return image.file.read()


def test_image_inside_the_response_needs_no_request() -> None:
    with download_image(ImageBytes(PNG), SETTINGS) as image:
        assert (image.file.read(), image.width, image.height) == (PNG, 8, 4)
    with pytest.raises(IdeogramInvalidImage, match="not a complete image"):
        download_image(ImageBytes(b""), SETTINGS)


def test_no_request_carries_the_key(internet: Internet, names: dict[str, list[str]]) -> None:
    names["api.segmind.com"] = [PUBLIC]
    internet.script(
        httpx.Response(503),
        httpx.Response(302, headers={"location": "https://api.segmind.com/v1/x"}),
        httpx.Response(200, content=PNG),
    )
    assert _download() == PNG
    assert len(internet.requests) == 3
    for request in internet.requests:
        assert KEY not in f"{request.url} {request.headers.raw!r}"
        assert "x-api-key" not in request.headers
        assert request.headers["user-agent"].startswith("airflow-provider-ideogram/")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://images.segmind.com/a",
        "data:image/png;base64,iVBORw0KGgo=",
        "gopher://images.segmind.com/a",
        "https://images.segmind.com:x/",
        f"https://images.segmind.com:{KEY}/",
        "https://[::1/",
        "https://a\x00b/",
        "https://\u2024/",
        "https://images.segmind.com/\ud800",
    ],
)
def test_invalid_address_is_refused(url: str, internet: Internet) -> None:
    with pytest.raises(IdeogramInvalidImage, match="the image's address") as caught:
        _download(url)
    assert internet.requests == []
    hostile.check_key_is_not_in(str(caught.value))


@pytest.mark.parametrize("addresses", [None, []])
def test_name_that_does_not_resolve_is_resolved_again(
    addresses: list[str] | None, internet: Internet, names: dict[str, list[str]], waits: list[float]
) -> None:
    if addresses is None:
        del names["images.segmind.com"]
    else:
        names["images.segmind.com"] = addresses
    with pytest.raises(IdeogramServerUnavailable, match="has no address"):
        _download()
    assert len(waits) == MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("30 s"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(500),
        httpx.Response(503, headers={"retry-after": "99999"}),
        httpx.Response(429),
        httpx.Response(408),
    ],
    ids=str,
)
def test_temporary_error_is_tried_again(error: Any, internet: Internet, waits: list[float]) -> None:
    internet.script(error, httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.script(error)
    with pytest.raises(IdeogramServerUnavailable, match="the image's host") as caught:
        _download()
    assert (caught.value.charged, caught.value.advice) == (True, "The image is paid.")
    assert caught.value.status_code == getattr(error, "status_code", None)
    assert len(internet.requests) == 2 + MAX_ATTEMPTS
    assert all(0 < wait < 5 for wait in waits)


def test_endless_redirects_are_a_temporary_error(internet: Internet) -> None:
    internet.script(httpx.Response(302, headers={"location": URL}))
    with pytest.raises(IdeogramServerUnavailable, match="more than 5 redirects"):
        _download()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401])
def test_unexpected_status_is_requested_again(status: int, internet: Internet, waits: list[float]) -> None:
    internet.script(httpx.Response(status, content=PNG), httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.script(httpx.Response(status, content=PNG))
    with pytest.raises(IdeogramInvalidImage, match=f"answered HTTP {status} instead of an image") as caught:
        _download()
    assert caught.value.status_code == status
    assert len(waits) == 1 + MAX_ATTEMPTS - 1


@pytest.mark.parametrize("status", [403, 404, 410])
def test_image_that_is_gone_is_requested_again(status: int, internet: Internet, waits: list[float]) -> None:
    internet.script(httpx.Response(status), httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.script(httpx.Response(status))
    with pytest.raises(IdeogramImageGone, match=f"answered HTTP {status}") as caught:
        _download()
    assert caught.value.status_code == status
    assert len(waits) == 1 + MAX_ATTEMPTS - 1


def test_truncated_image_is_requested_again(internet: Internet, waits: list[float]) -> None:
    internet.script(httpx.Response(200, content=PNG[:-20]), httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.script(httpx.Response(200, content=PNG[:-20]))
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _download()
    assert len(waits) == 1 + MAX_ATTEMPTS - 1


def test_full_disk_is_a_storage_error(internet: Internet, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    class FullDisk(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: FullDisk())
    with pytest.raises(IdeogramStorageError, match=r"temporary directory .*No space left.* is paid") as caught:
        _download()
    assert caught.value.charged is True
    assert (len(internet.requests), waits) == (1, [])


def _endless_body(chunks: list[int]) -> Iterator[bytes]:
    """Yield chunks of 1,000 bytes for ever, and count them."""
    while True:
        chunks.append(1000)
        yield b"x" * 1000


def test_body_of_a_redirect_is_not_read(internet: Internet) -> None:
    chunks: list[int] = []
    redirect = httpx.Response(302, headers={"location": "/b"}, content=_endless_body(chunks))
    internet.script(redirect, httpx.Response(200, content=PNG))
    assert _download() == PNG
    assert [request.url.path for request in internet.requests] == ["/a.png", "/b"]
    assert len(chunks) < 2


def test_slow_download_is_a_temporary_error(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_SECONDS", -1.0)
    with pytest.raises(IdeogramServerUnavailable, match="was not complete after"):
        _download()


def test_too_large_image_is_not_read_to_its_end(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[int] = []
    monkeypatch.setattr("airflow_provider_ideogram.hooks.image.MAX_IMAGE_BYTES", 10_000)
    internet.script(httpx.Response(200, content=_endless_body(chunks)))
    with pytest.raises(IdeogramInvalidImage, match="more than 10,000 bytes"):
        _download()
    assert len(chunks) == 11


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/a.png", "https://api.segmind.com/a.png"),
        ("files/a.png?x=1", "https://api.segmind.com/files/a.png?x=1"),
        ("//images.segmind.com/a", "https://images.segmind.com/a"),
    ],
)
def test_address_may_be_relative_to_the_base_url(
    address: str, expected: str, internet: Internet, names: dict[str, list[str]]
) -> None:
    names["api.segmind.com"] = [PUBLIC]
    assert _download(address) == PNG
    (request,) = internet.requests
    assert str(request.url) == expected
    assert "x-api-key" not in request.headers
    with pytest.raises(IdeogramInvalidImage, match=r"'evil\.example', which is not a permitted host"):
        _download("//evil.example/a.png")


@pytest.mark.parametrize("encoding", [{"content-encoding": "gzip"}, {}], ids=["gzip", "no header"])
def test_compressed_image_is_decompressed(encoding: dict[str, str], internet: Internet) -> None:
    chunks = [bytes([byte]) for byte in gzip.compress(PNG) + b"more bytes"]
    internet.script(httpx.Response(200, headers=encoding, content=chunks))
    assert _download() == PNG


def test_compression_bomb_is_not_unpacked(internet: Internet) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    internet.script(httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb)))
    tracemalloc.start()
    try:
        with pytest.raises(IdeogramInvalidImage, match="more than 33,554,432 bytes"):
            _download()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_damaged_compression_is_requested_again(internet: Internet, waits: list[float]) -> None:
    damaged = bytearray(gzip.compress(PNG))
    damaged[12] ^= 0xFF
    internet.script(httpx.Response(200, content=bytes(damaged)), httpx.Response(200, content=PNG))
    assert _download() == PNG
    assert len(waits) == 1


@pytest.mark.parametrize("content", [PNG, bytes(64 << 20)], ids=["PNG", "bomb"])
def test_image_is_decompressed_once_at_most(content: bytes, internet: Internet) -> None:
    body = gzip.compress(gzip.compress(content, 9), 9)
    internet.script(httpx.Response(200, headers={"content-encoding": "gzip, gzip"}, stream=httpx.ByteStream(body)))
    tracemalloc.start()
    try:
        with pytest.raises(
            IdeogramInvalidImage,
            match=r"of no known kind \(content-encoding gzip, gzip, which was not",
        ):
            _download()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"", b"GIF89a", b"%PDF-1.7"],
)
def test_other_content_with_an_image_type_is_refused(body: bytes, internet: Internet) -> None:
    internet.script(httpx.Response(200, headers={"content-type": "image/png"}, content=body))
    with pytest.raises(IdeogramInvalidImage, match="it is of no known kind"):
        _download()


def test_content_type_follows_from_the_bytes(internet: Internet) -> None:
    internet.script(httpx.Response(200, headers={"content-type": "text/html", "content-encoding": "x"}, content=PNG))
    with download_image(ImageUrl(URL), SETTINGS) as image:
        assert image.content_type == "image/png"


@contextmanager
def _listening(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that sends one answer to each connection; yield its address and what it receives."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    received.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", received
        thread.join()


def test_malformed_response_is_reported_without_the_key() -> None:
    malformed = f"HTTP/1.1 {KEY}\x1b[31m {'x' * 9_000}\r\n\r\n".encode()
    with (
        _listening(*[malformed] * MAX_ATTEMPTS) as (url, _),
        pytest.raises(IdeogramServerUnavailable, match="RemoteProtocolError") as caught,
    ):
        _download(f"{url}/a.png", replace(SETTINGS, base_url=url))
    hostile.check_message(str(caught.value))
    hostile.check_key_is_not_in(str(caught.value))


RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(PNG) + PNG


def test_body_shorter_than_announced_is_requested_again(waits: list[float]) -> None:
    with _listening(RESPONSE[:-1], RESPONSE) as (url, _):
        assert _download(f"{url}/a.png", replace(SETTINGS, base_url=url)) == PNG
    assert len(waits) == 1


def test_proxy_resolves_names(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(SETTINGS, base_url="http://127.0.0.1:1")
    with _listening(RESPONSE) as (url, received):
        monkeypatch.setenv("http_proxy", url)
        assert _download("http://images.segmind.com/a.png", plain) == PNG
        with pytest.raises(IdeogramInvalidImage, match="not a permitted host"):
            _download("http://169.254.169.254/a", plain)
    assert received[0].startswith(b"GET http://images.segmind.com/a.png HTTP/1.1\r\n")
