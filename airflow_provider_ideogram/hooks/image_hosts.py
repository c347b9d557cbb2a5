"""
From which hosts an image may be downloaded, and the transport that enforces it.

Invariant: no request reaches a host that the connection does not permit, or an address in a private network that is
neither the API's own host nor in image_hosts, whatever address or redirect a server sends. The IP address that is
connected to is the one that was checked.
"""

from __future__ import annotations

import ipaddress

import httpx

from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramInvalidImage
from airflow_provider_ideogram.hooks.connection import HOST, ConnectionSettings, is_vendor_host
from airflow_provider_ideogram.hooks.image import IMAGE_IS_PAID
from airflow_provider_ideogram.hooks.proxies import proxy_of
from airflow_provider_ideogram.hooks.transport import Backend, Transport

#: A NAT64 gateway translates these addresses to IPv4; the last 32 bits are the IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All other public IPv6 addresses; :mod:`ipaddress` also calls some addresses outside it global.
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
#: The metadata services of Oracle and Azure, which some versions of :mod:`ipaddress` call global.
_METADATA = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))


def absolute_address(address: str, settings: ConnectionSettings) -> httpx.URL:
    """Return the address of an image, which may be relative to the API's base URL; it is not checked."""
    return httpx.URL(settings.base_url).join(address)


def check_address(url: httpx.URL, settings: ConnectionSettings) -> None:
    """Raise IdeogramInvalidImage for an address whose scheme, credentials or host are not permitted."""
    api = httpx.URL(settings.base_url)
    if url.scheme != "https" and not (url.scheme == "http" and api.scheme == "http"):
        raise IdeogramInvalidImage(
            f"the image's address is not https but {sanitize_text(repr(url.scheme), settings.redactor)}", IMAGE_IS_PAID
        )
    if url.userinfo:
        raise IdeogramInvalidImage("the image's address contains credentials", IMAGE_IS_PAID)
    host = url.raw_host.decode().rstrip(".")
    of_vendor = is_vendor_host(host) and HOST.fullmatch(host)
    if not of_vendor and host not in (api.raw_host.decode(), *settings.image_hosts):
        raise IdeogramInvalidImage(
            f"the image is on {sanitize_text(repr(host), settings.redactor)}, which is not a permitted host",
            f"{IMAGE_IS_PAID} If you trust the host, add it to image_hosts in the connection's extra.",
        )


class CheckedBackend(Backend):
    """
    Connects to permitted addresses only.

    :param settings: The connection's settings, which name the permitted hosts.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__()
        self._settings = settings

    def addresses(self, host: str, port: int) -> list[str]:
        """Return a host's IP addresses; raise IdeogramInvalidImage if one of them is not permitted."""
        found = super().addresses(host, port)
        is_api_host = host == httpx.URL(self._settings.base_url).raw_host.decode()
        for address in found:
            if not (is_api_host or address in self._settings.image_hosts or is_public(address)):
                name = sanitize_text(repr(host), self._settings.redactor)
                raise IdeogramInvalidImage(
                    f"the image's host {name} resolves to {address} in a private network",
                    f"{IMAGE_IS_PAID} If you trust the address, add it to image_hosts in the connection's extra.",
                )
        return found


class GuardedTransport(httpx.BaseTransport):
    """
    Checks the address of each request, and the IP address of each connection.

    A name is resolved once for each connection, so it cannot resolve to another address after the check. Behind a proxy
    only :func:`check_address` applies: the proxy resolves names, and guards its own network.

    :param settings: The connection's settings, which name the permitted hosts.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._transports: dict[httpx.URL | None, Transport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise IdeogramInvalidImage if its address is not permitted."""
        check_address(request.url, self._settings)
        proxy = proxy_of(request.url)
        key = None if proxy is None else proxy.url
        if key not in self._transports:
            self._transports[key] = Transport(proxy, CheckedBackend(self._settings) if proxy is None else None)
        return self._transports[key].handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            transport.close()


def is_public(address: str) -> bool:
    """Return whether an IP address is public; an IPv6 address that embeds an IPv4 address is judged by the latter."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (_last_32_bits(ip) if ip in _NAT64 else None)
        return ip in _PUBLIC_IPV6 and ip.is_global if embedded is None else is_public(str(embedded))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _METADATA)


def _last_32_bits(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
