from __future__ import annotations

import gzip
import io
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from PIL import Image

from airflow_provider_ideogram.api.image_source import ImageBytes, ImageUrl
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from airflow_provider_ideogram.exceptions import (
    IdeogramInvalidImage,
    IdeogramServerUnavailable,
    IdeogramStorageError,
)
from airflow_provider_ideogram.hooks import download
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.download import check_address, download_image, is_public
from tests.support import hostile
from tests.support.hostile import KEY

SETTINGS = ConnectionSettings(KEY, image_hosts=("10.0.0.7", "cdn.example.com"))
URL = "https://images.segmind.com/a.png"
PUBLIC, PUBLIC_6, PRIVATE = "93.184.216.34", "2606:2800:220:1::1", "10.1.2.3"

Handler = Callable[[httpx.Request], httpx.Response]


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time; and no proxy, whatever the machine has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    waited: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    return waited


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What each name resolves to; a name that is not there has no address."""
    known: dict[str, list[str]] = {"images.segmind.com": [PUBLIC]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(download.socket, "getaddrinfo", getaddrinfo)
    return known


class Internet:
    """What the addresses that were connected to answer, one handler a request; the last one goes on."""

    def __init__(self) -> None:
        self.handlers: list[Handler] = []
        self.requests: list[httpx.Request] = []

    def says(self, *answers: httpx.Response | Exception) -> None:
        def handler(answer: httpx.Response | Exception) -> Handler:
            def handle(_: httpx.Request) -> httpx.Response:
                if isinstance(answer, Exception):
                    raise answer
                return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)  # not yet read

            return handle

        self.handlers = [handler(answer) for answer in answers]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return (self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0])(request)


@pytest.fixture
def internet(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Internet:
    made = Internet()
    made.says(httpx.Response(200, content=PNG))
    monkeypatch.setattr(download.httpx, "HTTPTransport", lambda *_, **__: httpx.MockTransport(made))
    return made


def _download(url: str = URL, settings: ConnectionSettings = SETTINGS) -> bytes:
    with download_image(ImageUrl(url), settings) as image:
        return image.file.read()


def test_image_that_came_inside_the_answer_needs_no_request() -> None:
    with download_image(ImageBytes(PNG), SETTINGS) as image:
        assert (image.file.read(), image.width, image.height) == (PNG, 8, 4)
    with pytest.raises(IdeogramInvalidImage, match="not a complete image"):
        download_image(ImageBytes(b""), SETTINGS)


def test_connection_goes_to_the_address_that_was_checked(internet: Internet) -> None:
    assert _download() == PNG
    (request,) = internet.requests
    assert request.url.host == PUBLIC
    assert request.headers["host"] == "images.segmind.com"
    assert request.extensions["sni_hostname"] == "images.segmind.com"


def test_no_request_carries_the_key(internet: Internet, names: dict[str, list[str]]) -> None:
    names["api.segmind.com"] = [PUBLIC]
    internet.says(
        httpx.Response(503),
        httpx.Response(302, headers={"location": "https://api.segmind.com/v1/x"}),
        httpx.Response(200, content=PNG),
    )
    assert _download() == PNG
    assert len(internet.requests) == 3
    for request in internet.requests:
        assert KEY not in f"{request.url} {request.headers.raw}"
        assert "x-api-key" not in request.headers
        assert request.headers["user-agent"].startswith("airflow-provider-ideogram/")


@pytest.mark.parametrize(
    "url",
    [
        "https://segmind.com/a",
        "https://images.segmind.com/a",
        "HTTPS://IMAGES.SEGMIND.COM:444/a",
        "https://a.b.segmind.com./a",
        "https://images\u3002segmind\u3002com/a",
        "https://api.segmind.com/a",
        "https://cdn.example.com/a",
        "https://10.0.0.7/a",
    ],
)
def test_permitted_addresses(url: str) -> None:
    check_address(httpx.URL(url), SETTINGS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://images.segmind.com/a", "is not https but 'http'"),
        ("ftp://images.segmind.com/a", "is not https but 'ftp'"),
        ("https://user@images.segmind.com/a", "holds credentials"),
        ("https://images.segmind.com:x@example.com/a", "holds credentials"),
        ("https://example.com/a", "'example.com', which is not one of the vendor's hosts"),
        ("https://segmind.com.example.com/a", "not one of the vendor's hosts"),
        ("https://notsegmind.com/a", "not one of the vendor's hosts"),
        ("https://segmind.com.evil.example./a", "not one of the vendor's hosts"),
        ("https://segm\u0131nd.com/a", "'xn--segmnd-s9a.com', which is not one of the vendor's hosts"),
        ("https://evil.example\\.segmind.com/a", "not one of the vendor's hosts"),
        ("https://evil.example%2f.segmind.com/a", "not one of the vendor's hosts"),
        ("https://.segmind.com/a", "not one of the vendor's hosts"),
        (f"https://{KEY}.example/a", r"'\*\*\*.example', which is not"),
        ("https://example.com/images.segmind.com", "not one of the vendor's hosts"),
        ("https://127.0.0.1/a", "add it to image_hosts"),
        ("https://[::ffff:127.0.0.1]/a", "add it to image_hosts"),
        ("https://169.254.169.254/latest/meta-data", "add it to image_hosts"),
        ("https://[fd00:ec2::254]/latest/meta-data", "add it to image_hosts"),
        ("https://a.cdn.example.com/a", "add it to image_hosts"),
    ],
)
def test_addresses_that_are_not_permitted(url: str, said: str, internet: Internet) -> None:
    for settings in (SETTINGS, replace(SETTINGS, history_url="http://127.0.0.1/history")):
        with pytest.raises(IdeogramInvalidImage, match=said):
            check_address(httpx.URL(url), settings)
    with pytest.raises(IdeogramInvalidImage, match=said):
        _download(url)
    internet.says(httpx.Response(302, headers={"location": url.encode()}))
    with pytest.raises(IdeogramInvalidImage, match=said):
        _download()
    assert len(internet.requests) == 1


def test_plain_http_is_permitted_where_the_api_itself_is_plain_http() -> None:
    local = replace(SETTINGS, base_url="http://127.0.0.1:8700")
    for url in ("http://127.0.0.1:8701/a", "http://images.segmind.com/a", "https://127.0.0.1/a"):
        check_address(httpx.URL(url), local)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://images.segmind.com/a",
        "data:image/png;base64,iVBORw0KGgo=",
        "gopher://images.segmind.com/a",
        "/a",
        "",
        "https://images.segmind.com:x/",
        "https://[::1/",
        "https://a\x00b/",
        "https://\u2024/",
        "https://images.segmind.com/\ud800",
    ],
)
def test_address_that_is_none_is_refused(url: str, internet: Internet) -> None:
    with pytest.raises(IdeogramInvalidImage, match="the image's address"):
        _download(url)
    assert internet.requests == []


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PRIVATE], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]]
)
def test_name_that_leads_into_a_private_network_is_refused(
    addresses: list[str], internet: Internet, names: dict[str, list[str]], waits: list[float]
) -> None:
    names["images.segmind.com"] = addresses
    with pytest.raises(IdeogramInvalidImage, match="is inside a private network"):
        _download()
    assert internet.requests == []
    assert waits == []


def test_name_that_changes_its_meaning_is_looked_up_once_a_connection(
    internet: Internet, names: dict[str, list[str]]
) -> None:
    def answer_and_rebind(_: httpx.Request) -> httpx.Response:
        names["images.segmind.com"] = ["169.254.169.254"]
        return httpx.Response(503)

    internet.handlers = [answer_and_rebind]
    with pytest.raises(IdeogramInvalidImage, match="is inside a private network"):
        _download()
    assert [request.url.host for request in internet.requests] == [PUBLIC]


def test_name_in_other_letters_is_looked_up_as_it_was_checked(internet: Internet, names: dict[str, list[str]]) -> None:
    """Python's own encoding of such names is an older one, to which this is the name fussball.example."""
    names["xn--fuball-cta.example"] = [PUBLIC]
    settings = replace(SETTINGS, image_hosts=("xn--fuball-cta.example",))
    for url in ("https://fu\u00dfball.example/a", "https://xn--fuball-cta.example/a"):
        assert _download(url, settings) == PNG
    assert {request.extensions["sni_hostname"] for request in internet.requests} == {"xn--fuball-cta.example"}


def test_redirect_to_a_name_in_a_private_network_is_refused(internet: Internet, names: dict[str, list[str]]) -> None:
    names["internal.segmind.com"] = [PRIVATE]
    internet.says(httpx.Response(301, headers={"location": "https://internal.segmind.com/a"}))
    with pytest.raises(IdeogramInvalidImage, match=f"is inside a private network .{PRIVATE}."):
        _download()
    assert [request.url.host for request in internet.requests] == [PUBLIC]


def test_the_apis_own_host_and_listed_addresses_may_be_private(internet: Internet, names: dict[str, list[str]]) -> None:
    names |= {"api.internal": [PRIVATE], "10.0.0.7": ["10.0.0.7"]}
    assert _download("https://api.internal/a", replace(SETTINGS, base_url="https://api.internal")) == PNG
    assert _download("https://10.0.0.7/a") == PNG
    assert [request.url.host for request in internet.requests] == [PRIVATE, "10.0.0.7"]


def test_next_address_is_tried_where_one_cannot_be_reached(internet: Internet, names: dict[str, list[str]]) -> None:
    names["images.segmind.com"] = [PUBLIC_6, PUBLIC, PUBLIC]
    internet.says(httpx.ConnectError("no route"), httpx.Response(200, content=PNG))
    assert _download() == PNG
    assert [request.url.host for request in internet.requests] == [PUBLIC_6, PUBLIC]


def test_next_address_is_checked_too(internet: Internet, names: dict[str, list[str]]) -> None:
    names["images.segmind.com"] = [PUBLIC, PRIVATE]
    internet.says(httpx.ConnectTimeout("30 s"))
    with pytest.raises(IdeogramInvalidImage, match="is inside a private network"):
        _download()
    assert len(internet.requests) == 1


@pytest.mark.parametrize("found", [None, []])
def test_name_without_an_address_may_have_one_later(
    found: list[str] | None, internet: Internet, names: dict[str, list[str]], waits: list[float]
) -> None:
    if found is None:
        del names["images.segmind.com"]
    else:
        names["images.segmind.com"] = found
    with pytest.raises(IdeogramServerUnavailable, match="has no address"):
        _download()
    assert len(waits) == MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "trouble",
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
def test_what_may_pass_is_tried_again(trouble: Any, internet: Internet, waits: list[float]) -> None:
    internet.says(trouble, httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.says(trouble)
    with pytest.raises(IdeogramServerUnavailable, match="the image's host"):
        _download()
    assert len(internet.requests) == 2 + MAX_ATTEMPTS
    assert all(0 < wait < 5 for wait in waits)


def test_redirects_without_an_end(internet: Internet) -> None:
    internet.says(httpx.Response(302, headers={"location": URL}))
    with pytest.raises(IdeogramServerUnavailable, match="redirects"):
        _download()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
def test_image_may_be_there_a_moment_later(status: int, internet: Internet, waits: list[float]) -> None:
    internet.says(httpx.Response(status, content=PNG), httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.says(httpx.Response(status, content=PNG))
    with pytest.raises(IdeogramInvalidImage, match=f"answered HTTP {status} instead of an image"):
        _download()
    assert len(waits) == 1 + MAX_ATTEMPTS - 1


def test_image_that_was_cut_unseen_is_fetched_again(internet: Internet, waits: list[float]) -> None:
    internet.says(httpx.Response(200, content=PNG[:-20]), httpx.Response(200, content=PNG))
    assert _download() == PNG
    internet.says(httpx.Response(200, content=PNG[:-20]))
    with pytest.raises(IdeogramInvalidImage, match="is not a complete image"):
        _download()
    assert len(waits) == 1 + MAX_ATTEMPTS - 1


def test_full_disk_is_not_the_hosts_fault(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    class FullDisk(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_provider_ideogram.hooks.image.tempfile.SpooledTemporaryFile", lambda **_: FullDisk())
    with pytest.raises(IdeogramStorageError, match=r"temporary directory .*No space left.* The image is paid"):
        _download()
    assert (len(internet.requests), waits) == (1, [])


def test_body_of_a_redirect_is_not_read(internet: Internet) -> None:
    given_out: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            given_out.append(1)
            yield b"x" * 1000

    internet.says(httpx.Response(302, headers={"location": "/b"}, content=endless()), httpx.Response(200, content=PNG))
    assert _download() == PNG
    assert [request.url.path for request in internet.requests] == ["/a.png", "/b"]
    assert len(given_out) < 2


def test_image_that_trickles_is_given_up(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_SECONDS", -1.0)
    with pytest.raises(IdeogramServerUnavailable, match="not whole after"):
        _download()


def test_more_than_any_image_is_not_read_to_its_end(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    given_out: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            given_out.append(1)
            yield b"x" * 1000

    monkeypatch.setattr("airflow_provider_ideogram.hooks.image.MAX_IMAGE_BYTES", 10_000)
    internet.says(httpx.Response(200, content=endless()))
    with pytest.raises(IdeogramInvalidImage, match="more than 10,000 bytes"):
        _download()
    assert len(given_out) == 11


BOMB = gzip.compress(gzip.compress(bytes(64 << 20), 9), 9)


@pytest.mark.parametrize("body", [gzip.compress(PNG), BOMB], ids=["PNG", "bomb"])
def test_compressed_image_is_not_unfolded(body: bytes, internet: Internet) -> None:
    internet.says(httpx.Response(200, headers={"content-encoding": "gzip, gzip"}, stream=httpx.ByteStream(body)))
    tracemalloc.start()
    try:
        with pytest.raises(
            IdeogramInvalidImage, match=r"no PNG, JPEG or WebP \(content-encoding gzip, gzip, which was"
        ):
            _download()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"", b"GIF89a", b"%PDF-1.7"],
)
def test_what_is_only_called_an_image_is_refused(body: bytes, internet: Internet) -> None:
    internet.says(httpx.Response(200, headers={"content-type": "image/png"}, content=body))
    with pytest.raises(IdeogramInvalidImage, match="is no PNG, JPEG or WebP"):
        _download()


def test_image_is_what_its_bytes_are_whatever_its_host_calls_it(internet: Internet) -> None:
    internet.says(httpx.Response(200, headers={"content-type": "text/html", "content-encoding": "x"}, content=PNG))
    with download_image(ImageUrl(URL), SETTINGS) as image:
        assert image.content_type == "image/png"


def test_hosts_broken_answer_is_told_in_a_short_line_without_the_key(waits: list[float]) -> None:
    broken = f"HTTP/1.1 {KEY}\x1b[31m {'x' * 9_000}\r\n\r\n".encode()
    with (
        _listening(*[broken] * MAX_ATTEMPTS) as (url, _),
        pytest.raises(IdeogramServerUnavailable, match="RemoteProtocolError") as caught,
    ):
        _download(f"{url}/a.png", replace(SETTINGS, base_url=url))
    hostile.check_message(str(caught.value))
    hostile.check_key_is_not_in(str(caught.value))


@contextmanager
def _listening(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a server that gives each answer to one connection, and what it was sent."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    received.append(connection.recv(65536))
                    connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", received
        serving.join()


WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(PNG) + PNG


def test_image_that_is_shorter_than_announced_is_fetched_again(waits: list[float]) -> None:
    with _listening(WHOLE[:-1], WHOLE) as (url, _):
        assert _download(f"{url}/a.png", replace(SETTINGS, base_url=url)) == PNG
    assert len(waits) == 1


def test_behind_a_proxy_names_are_the_proxys(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(SETTINGS, base_url="http://127.0.0.1:1")
    with _listening(WHOLE) as (url, received):
        monkeypatch.setenv("http_proxy", url)
        assert _download("http://images.segmind.com/a.png", plain) == PNG
        with pytest.raises(IdeogramInvalidImage, match="not one of the vendor's hosts"):
            _download("http://169.254.169.254/a", plain)
    assert received[0].startswith(b"GET http://images.segmind.com/a.png HTTP/1.1\r\n")


def test_host_that_is_exempt_from_the_proxy_is_checked(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(SETTINGS, base_url="http://127.0.0.1:1")
    names["images.segmind.com"] = ["127.0.0.1"]
    for proxies in ({}, {"all_proxy": "127.0.0.1:1"}, {"http_proxy": "http://127.0.0.1:1"}):
        for name, value in {"no_proxy": "localhost,images.segmind.com", **proxies}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(IdeogramInvalidImage, match="is inside a private network"):
            _download("http://images.segmind.com/a.png", plain)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        (PUBLIC_6, True),
        ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("2002:7f00:1::", False),
        ("2001:db8::1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::5db8:d822", False),
        ("::7f00:1", False),
        ("::5db8:d822", False),
        ("fec0::1", False),
        ("2002:5db8:d822::", True),
        ("2002:a9fe:a9fe::", False),
        ("::ffff:0:a9fe:a9fe", False),
        ("2001:0:a9fe:a9fe::", False),
        ("64:ff9b::c000:c0", False),
        ("192.0.0.192", False),
        ("168.63.129.16", False),
        ("100.100.100.200", False),
        ("fd20:ce::254", False),
        ("5f00::1", False),
        ("4000::1", False),
    ],
)
def test_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@given(**hostile.IMAGE_ADDRESSES)
def test_whatever_an_address_is_it_is_on_a_permitted_host_or_refused(address: str) -> None:
    hostile.check_image_address(address)
