from __future__ import annotations

from dataclasses import replace

import httpcore
import httpx
import pytest
from hypothesis import given

from airflow_provider_ideogram.api.image_source import ImageUrl
from airflow_provider_ideogram.exceptions import IdeogramInvalidImage
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.download import download_image
from airflow_provider_ideogram.hooks.image_hosts import check_address, is_public
from tests.support import hostile
from tests.support.hostile import KEY
from tests.unit.hooks.conftest import PNG, PUBLIC, Internet

SETTINGS = ConnectionSettings(KEY, image_hosts=("10.0.0.7", "cdn.example.com"))
URL = "https://images.segmind.com/a.png"
PUBLIC_IPV6, PRIVATE = "2606:2800:220:1::1", "10.1.2.3"
IN_PRIVATE_NETWORK = "resolves to .* in a private network"
pytestmark = pytest.mark.usefixtures("no_proxy", "waits")


def _download(url: str = URL, settings: ConnectionSettings = SETTINGS) -> bytes:
    with download_image(ImageUrl(url), settings) as image:
        return image.file.read()


def test_checked_address_is_connected_to(internet: Internet) -> None:
    assert _download() == PNG
    assert internet.connected == [PUBLIC]
    (request,) = internet.requests
    assert (request.url.host, request.headers["host"]) == ("images.segmind.com", "images.segmind.com")


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
    ("url", "message"),
    [
        ("http://images.segmind.com/a", "is not https but 'http'"),
        ("ftp://images.segmind.com/a", "is not https but 'ftp'"),
        ("https://user@images.segmind.com/a", "contains credentials"),
        ("https://images.segmind.com:x@example.com/a", "contains credentials"),
        ("https://example.com/a", "'example.com', which is not a permitted host"),
        ("https://segmind.com.example.com/a", "not a permitted host"),
        ("https://notsegmind.com/a", "not a permitted host"),
        ("https://segmind.com.evil.example./a", "not a permitted host"),
        ("https://segm\u0131nd.com/a", "'xn--segmnd-s9a.com', which is not a permitted host"),
        ("https://evil.example\\.segmind.com/a", "not a permitted host"),
        ("https://evil.example%2f.segmind.com/a", "not a permitted host"),
        ("https://.segmind.com/a", "not a permitted host"),
        (f"https://{KEY}.example/a", r"'\*\*\*.example', which is not"),
        ("https://example.com/images.segmind.com", "not a permitted host"),
        ("https://127.0.0.1/a", "add it to image_hosts"),
        ("https://[::ffff:127.0.0.1]/a", "add it to image_hosts"),
        ("https://169.254.169.254/latest/meta-data", "add it to image_hosts"),
        ("https://[fd00:ec2::254]/latest/meta-data", "add it to image_hosts"),
        ("https://a.cdn.example.com/a", "add it to image_hosts"),
    ],
)
def test_other_addresses_are_refused(url: str, message: str, internet: Internet) -> None:
    for settings in (SETTINGS, replace(SETTINGS, history_url="http://127.0.0.1/history")):
        with pytest.raises(IdeogramInvalidImage, match=message):
            check_address(httpx.URL(url), settings)
    with pytest.raises(IdeogramInvalidImage, match=message):
        _download(url)
    internet.script(httpx.Response(302, headers=[(b"location", url.encode())]))
    with pytest.raises(IdeogramInvalidImage, match=message):
        _download()
    assert len(internet.requests) == 1


def test_plain_http_is_permitted_if_the_api_uses_it() -> None:
    local = replace(SETTINGS, base_url="http://127.0.0.1:8700")
    for url in ("http://127.0.0.1:8701/a", "http://images.segmind.com/a", "https://127.0.0.1/a"):
        check_address(httpx.URL(url), local)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PRIVATE], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]]
)
def test_name_in_a_private_network_is_refused(
    addresses: list[str], internet: Internet, names: dict[str, list[str]], waits: list[float]
) -> None:
    names["images.segmind.com"] = addresses
    with pytest.raises(IdeogramInvalidImage, match=IN_PRIVATE_NETWORK):
        _download()
    assert internet.requests == []
    assert waits == []


def test_each_connection_resolves_the_name_once_and_checks_it(internet: Internet, names: dict[str, list[str]]) -> None:
    def answer_and_rebind(_: httpx.Request) -> httpx.Response:
        names["images.segmind.com"] = ["169.254.169.254"]
        return httpx.Response(503)

    internet.handlers = [answer_and_rebind]
    with pytest.raises(IdeogramInvalidImage, match=IN_PRIVATE_NETWORK):
        _download()
    assert internet.connected == [PUBLIC]


def test_international_name_is_resolved_in_the_checked_form(internet: Internet, names: dict[str, list[str]]) -> None:
    """Python's own encoding follows an older standard, in which this name is fussball.example."""
    names["xn--fuball-cta.example"] = [PUBLIC]
    settings = replace(SETTINGS, image_hosts=("xn--fuball-cta.example",))
    for url in ("https://fu\u00dfball.example/a", "https://xn--fuball-cta.example/a"):
        assert _download(url, settings) == PNG
    assert internet.connected == [PUBLIC, PUBLIC]


def test_redirect_into_a_private_network_is_refused(internet: Internet, names: dict[str, list[str]]) -> None:
    names["internal.segmind.com"] = [PRIVATE]
    internet.script(httpx.Response(301, headers={"location": "https://internal.segmind.com/a"}))
    with pytest.raises(IdeogramInvalidImage, match=f"'internal.segmind.com' resolves to {PRIVATE} in a private"):
        _download()
    assert internet.connected == [PUBLIC]


def test_api_host_and_listed_addresses_may_be_private(internet: Internet, names: dict[str, list[str]]) -> None:
    names |= {"api.internal": [PRIVATE], "10.0.0.7": ["10.0.0.7"]}
    assert _download("https://api.internal/a", replace(SETTINGS, base_url="https://api.internal")) == PNG
    assert _download("https://10.0.0.7/a") == PNG
    assert internet.connected == [PRIVATE, "10.0.0.7"]


def test_unreachable_address_is_followed_by_the_next(internet: Internet, names: dict[str, list[str]]) -> None:
    names["images.segmind.com"] = [PUBLIC_IPV6, PUBLIC, PUBLIC]
    internet.unreachable[PUBLIC_IPV6] = httpcore.ConnectError("no route")
    assert _download() == PNG
    assert internet.connected == [PUBLIC_IPV6, PUBLIC]


def test_name_with_one_private_address_is_refused(internet: Internet, names: dict[str, list[str]]) -> None:
    names["images.segmind.com"] = [PUBLIC, PRIVATE]
    with pytest.raises(IdeogramInvalidImage, match=IN_PRIVATE_NETWORK):
        _download()
    assert internet.connected == []


def test_key_in_the_name_of_a_private_host_is_redacted(internet: Internet, names: dict[str, list[str]]) -> None:
    names[f"{KEY}.segmind.com".lower()] = [PRIVATE]
    with pytest.raises(IdeogramInvalidImage, match=r"'\*\*\*.segmind.com' resolves to"):
        _download(f"https://{KEY}.segmind.com/a")


def test_host_exempt_from_the_proxy_is_checked(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(SETTINGS, base_url="http://127.0.0.1:1")
    names["images.segmind.com"] = ["127.0.0.1"]
    for proxies in ({}, {"all_proxy": "127.0.0.1:1"}, {"http_proxy": "http://127.0.0.1:1"}):
        for name, value in {"no_proxy": "localhost,images.segmind.com", **proxies}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(IdeogramInvalidImage, match=IN_PRIVATE_NETWORK):
            _download("http://images.segmind.com/a.png", plain)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        (PUBLIC_IPV6, True),
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


@pytest.mark.slow
@given(**hostile.IMAGE_ADDRESSES)
def test_any_address_is_on_a_permitted_host_or_refused(address: str) -> None:
    hostile.check_image_address(address)
