"""
An image's way from the vendor's host to a temporary file.

Invariant: no request of this module carries the key, and none reaches a host that the connection does not
permit or an address inside somebody's network, however the server phrases its addresses and redirects. The
address that is connected to is the one that was checked.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import ssl
import time
import urllib.request
from functools import cache
from typing import TYPE_CHECKING

import httpx

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.image_source import ImageBytes, ImageSource
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS, RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramInvalidImage, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.client import USER_AGENT, transport_errors
from airflow_provider_ideogram.hooks.connection import HOST, VENDOR_DOMAIN, ConnectionSettings
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds in which an image must be here whole, however steadily it trickles.
_MAX_SECONDS = 120.0
_MAX_REDIRECTS = 5
#: A gateway of the network turns these addresses into IPv4 ones, their last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All other public addresses of IPv6, whatever :mod:`ipaddress` calls global besides.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
#: Networks that :mod:`ipaddress` calls global, by its version, where Oracle's and Azure's metadata services are.
_METADATA = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))


def download_image(source: ImageSource, settings: ConnectionSettings) -> SpooledImage:
    """
    Bring an image here; the caller closes it.

    :param source: Its address, or its bytes.
    :param settings: The connection, which says what hosts are permitted and how long to wait.
    :raises IdeogramInvalidImage: If it is not a complete image of bearable size from a permitted host.
    :raises IdeogramServerUnavailable: If its host does not deliver it, though asked several times.
    """
    if isinstance(source, ImageBytes):
        with ImageSpool() as spool:
            spool.write(source.data)
            return spool.finish()
    rng = random.Random()
    with _client(settings) as client:
        for attempt in range(1, MAX_ATTEMPTS):
            try:
                return _fetch(client, source.url, settings)
            except (IdeogramServerUnavailable, _NotThere):
                time.sleep(back_off(attempt, rng))
        return _fetch(client, source.url, settings)


class _NotThere(IdeogramInvalidImage):
    """No image, or a part of one, came from where it should be: a host may not have all of a new one at once."""


def _fetch(client: httpx.Client, address: str, settings: ConnectionSettings) -> SpooledImage:
    try:
        with transport_errors(settings.redactor):
            return _follow(client, httpx.URL(address))
    except (RequestNotSent, ResponseNotReceived) as problem:
        raise IdeogramServerUnavailable(f"the image's host did not deliver it ({problem})") from problem
    except (httpx.InvalidURL, UnicodeError) as problem:
        raise IdeogramInvalidImage(f"the image's address is not valid: {sanitize_text(str(problem))}") from problem


def _follow(client: httpx.Client, url: httpx.URL) -> SpooledImage:
    """Follow redirects without reading their own bodies, as large as these may be."""
    until = time.monotonic() + _MAX_SECONDS
    for _ in range(_MAX_REDIRECTS + 1):
        with client.stream("GET", url) as response:
            if response.next_request is None:
                return _take(response, until)
            url = response.next_request.url
    raise ResponseNotReceived(f"more than {_MAX_REDIRECTS} redirects")


def _take(response: httpx.Response, until: float) -> SpooledImage:
    _check_status(response)
    with ImageSpool() as spool:
        for piece in response.iter_raw():  # a compressed one would unfold in memory, and no image is
            spool.write(piece)
            if time.monotonic() > until:
                raise ResponseNotReceived(f"not whole after {_MAX_SECONDS:.0f} s")
        try:
            return spool.finish()
        except IdeogramInvalidImage as problem:
            encoding = response.headers.get("content-encoding")
            sent = f" (content-encoding {sanitize_text(encoding)}, which was not asked for)" if encoding else ""
            raise _NotThere(f"{problem}{sent}") from problem


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise IdeogramServerUnavailable(f"the image's host answered HTTP {status}")
    if status != 200:
        raise _NotThere(f"the image's host answered HTTP {status} instead of an image")


def _client(settings: ConnectionSettings) -> httpx.Client:
    """Make a client without the key that checks the address of each request."""
    return httpx.Client(
        transport=_GuardedTransport(settings),
        timeout=settings.timeout,
        headers={"User-Agent": USER_AGENT, "Accept": "image/*", "Accept-Encoding": "identity"},
    )


def check_address(url: httpx.URL, settings: ConnectionSettings) -> None:
    """Raise IdeogramInvalidImage for an address that an image must not come from, as far as its text tells."""
    api = httpx.URL(settings.base_url)
    if url.scheme != "https" and not (url.scheme == "http" and api.scheme == "http"):
        raise IdeogramInvalidImage(f"the image's address is not https but {sanitize_text(repr(url.scheme))}")
    if url.userinfo:
        raise IdeogramInvalidImage("the image's address holds credentials")
    host = url.raw_host.decode().rstrip(".")
    vendors = host.endswith(f".{VENDOR_DOMAIN}") and HOST.fullmatch(host)
    if not vendors and host not in (api.raw_host.decode(), VENDOR_DOMAIN, *settings.image_hosts):
        raise IdeogramInvalidImage(
            f"the image is on {sanitize_text(repr(host), settings.redactor)}, which is not one of the vendor's hosts. "
            "If it is trusted, add it to image_hosts in the connection's extra"
        )


class _GuardedTransport(httpx.BaseTransport):
    """
    Connect to addresses that were checked, so that a name cannot change its meaning in between.

    A proxy resolves names, and guards its network, itself: there the address's text is all that can be checked.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._transports: dict[str | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        check_address(request.url, self._settings)
        proxy = _proxy_of(request.url)
        if proxy is not None:
            return self._transport(proxy).handle_request(request)
        problem: Exception | None = None
        for address in self._addresses(request.url):
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,  # "Host" is in there, by name
                extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode()},
            )
            try:
                return self._transport(None).handle_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem = error
        raise problem or httpx.ConnectError(f"{request.url.host} has no address")

    def _addresses(self, url: httpx.URL) -> Iterator[str]:
        host = url.raw_host.decode()  # as it goes into the DNS, in whatever letters it is shown
        try:
            found = socket.getaddrinfo(host, url.port or 0, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} has no address: {error}") from error
        own = url.raw_host == httpx.URL(self._settings.base_url).raw_host
        for address in dict.fromkeys(str(info[4][0]) for info in found):
            if not (own or address in self._settings.image_hosts or is_public(address)):
                named = sanitize_text(repr(host), self._settings.redactor)
                raise IdeogramInvalidImage(f"the image's host {named} is inside a private network ({address})")
            yield address

    def _transport(self, proxy: str | None) -> httpx.HTTPTransport:
        if proxy not in self._transports:
            self._transports[proxy] = httpx.HTTPTransport(verify=_tls(), proxy=proxy)
        return self._transports[proxy]

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


@cache
def _tls() -> ssl.SSLContext:
    """Return what all downloads share: reading the certificates takes longer than an image."""
    return httpx.create_ssl_context()


def _proxy_of(url: httpx.URL) -> str | None:
    """Return the proxy that the machine's settings name for an address, None where it is exempt from them."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet, also where it wraps an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (_last_32_bits(ip) if ip in _NAT64 else None)
        return ip in _PUBLIC_6 and ip.is_global if wrapped is None else is_public(str(wrapped))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _METADATA)


def _last_32_bits(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
