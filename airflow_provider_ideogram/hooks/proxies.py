"""
Which proxy the environment sets for an address.

Invariant: all HTTP clients of the package use this one reading of ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and
``NO_PROXY``, in either case; a name in lower case has precedence. An error names the variable and not its value, which
may hold a password.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
from dataclasses import dataclass

import httpx

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.hooks.connection import HOST
from airflow_provider_ideogram.hooks.tls import tls_context

try:
    from socksio import SOCKSError
except ImportError:
    _has_socks = False
    #: What httpx raises if a proxy refuses a connection.
    PROXY_ERRORS: tuple[type[Exception], ...] = (httpx.ProxyError,)
else:
    _has_socks = True
    PROXY_ERRORS = (httpx.ProxyError, SOCKSError)

_SCHEMES = ("http", "https", "socks5", "socks5h")
_DEFAULT_PORTS = {"http": 80, "https": 443}

log = logging.getLogger(__name__)


def proxy_of(url: httpx.URL) -> httpx.Proxy | None:
    """
    Return the proxy for an address, None if the environment sets none or exempts the host.

    :raises IdeogramInvalidInput: If the variable that sets it can't be read, or needs a package that is not installed.
    """
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        variable, value = _read(name)
        if value:
            # Read for exempt hosts too: otherwise the first host to fail could be that of a paid image.
            proxy = _proxy(variable, value)
            return None if _is_exempt(url) else proxy
    return None


def _read(name: str) -> tuple[str, str]:
    """Return the name and the value of a variable, whose name may be in lower or in upper case."""
    variable = name if name in os.environ else name.upper()
    return variable, os.environ.get(variable, "").strip()


def _proxy(variable: str, value: str) -> httpx.Proxy:
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except httpx.InvalidURL:
        raise _invalid(f"{variable} is not the address of a proxy, such as http://proxy.example.com:3128") from None
    if url.scheme not in _SCHEMES or not url.host:
        raise _invalid(f"{variable} is not an address with a host and one of the schemes {', '.join(_SCHEMES)}")
    if url.scheme.startswith("socks") and not _has_socks:
        raise _invalid(f"{variable} names a SOCKS proxy: install 'airflow-provider-ideogram[socks]'")
    return httpx.Proxy(url, ssl_context=tls_context() if url.scheme == "https" else None)


def _invalid(problem: str) -> IdeogramInvalidInput:
    return IdeogramInvalidInput.of([f"the environment variable {problem}"])


@dataclass(frozen=True, slots=True)
class _Exemption:
    """
    An entry of ``NO_PROXY``.

    :param name: A host name, which stands for its subdomains too; ``*`` for all hosts; empty if there is a network.
    :param network: The addresses, if the entry is an IP address or a network.
    :param port: The port; None for all ports.
    """

    name: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def matches(self, host: str, port: int | None) -> bool:
        if self.port not in (None, port):
            return False
        if self.name == "*":
            return True
        if (address := _ip_address(host)) is not None:
            return self.network is not None and address in self.network
        return self.name != "" and f".{host}".endswith(f".{self.name}")


def _is_exempt(url: httpx.URL) -> bool:
    host = url.raw_host.decode().rstrip(".")
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    return any(exemption.matches(host, port) for exemption in _exemptions(*_read("no_proxy")))


@functools.lru_cache(maxsize=4)
def _exemptions(variable: str, value: str) -> tuple[_Exemption, ...]:
    """Return the entries of ``NO_PROXY``; log those that can't be read, once for each value."""
    exemptions = []
    for entry in value.replace(",", " ").split():
        try:
            exemptions.append(_exemption(entry))
        except (ValueError, httpx.InvalidURL):
            log.warning("An entry of the environment variable %s can't be read and is ignored: %r", variable, entry)
    return tuple(exemptions)


def _exemption(entry: str) -> _Exemption:
    """Read ``*``, a host name or an IP address, either with a port, or a network; raise ValueError for other text."""
    if entry == "*":
        return _Exemption("*")
    try:
        return _Exemption(network=ipaddress.ip_network(entry, strict=False))
    except ValueError:
        url = httpx.URL(f"//{entry.removeprefix('*').lstrip('.')}")
    name, address = url.raw_host.decode().rstrip("."), _ip_address(url.host)
    if url.raw_path != b"/" or url.userinfo or not (address or HOST.fullmatch(name)):
        raise ValueError(entry)
    if address is not None:
        return _Exemption(network=ipaddress.ip_network(address), port=url.port)
    return _Exemption(name, port=url.port)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, as IPv4 where IPv6 only maps it; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
