"""
The transport of all blocking HTTP clients of the package, and how it connects to a host with several addresses.

Invariant: an address that does not respond delays a connection by at most ``FIRST_TRY_SECONDS`` if the next one does.
All connections of a transport are made by its backend, also those to a proxy. On event loops aiohttp and anyio try
several addresses at once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import httpcore
import httpx

from airflow_provider_ideogram.hooks.tls import tls_context

#: Seconds for which each address is tried first. TCP sends its first packet again after a second.
FIRST_TRY_SECONDS = 0.5


class Backend(httpcore.SyncBackend):
    """Connects to a host's first address that accepts within ``FIRST_TRY_SECONDS``, else within the timeout."""

    def __init__(self) -> None:
        self._responding: set[str] = set()

    def addresses(self, host: str, port: int) -> list[str]:
        """Return a host's IP addresses in the order of the resolver, but with IPv6 and IPv4 alternating."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        unique = list(dict.fromkeys(str(info[4][0]) for info in found))
        first = [address for address in unique if (":" in address) == (":" in unique[0])]
        second = [address for address in unique if address not in first]
        return [address for pair in zip_longest(first, second) for address in pair if address is not None]

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect; raise the error of the last attempt if no address accepts."""
        addresses = self.addresses(host, port)
        # Stable, so that the other addresses keep their order.
        addresses.sort(key=lambda address: address not in self._responding)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        first_try = FIRST_TRY_SECONDS if timeout is None else min(timeout, FIRST_TRY_SECONDS)
        for limit in (first_try, timeout) if len(addresses) > 1 else (timeout,):
            for address in list(addresses):
                try:
                    stream = super().connect_tcp(address, port, limit, local_address, socket_options)
                except httpcore.ConnectTimeout as timed_out:
                    error = timed_out
                except httpcore.ConnectError as refused:
                    error = refused
                    addresses.remove(address)
                else:
                    self._responding.add(address)
                    return stream
                self._responding.discard(address)
        raise error


class Transport(httpx.HTTPTransport):
    """
    Sends requests as httpx's own transport does, over connections of a backend.

    :param proxy: The proxy; None sends directly.
    :param backend: Makes the connections.
    """

    def __init__(self, proxy: httpx.Proxy | None, backend: Backend | None = None) -> None:
        self.backend = backend or Backend()
        # httpx's constructor, which is not called, would make a pool without a backend. If another version of httpx has
        # its pool elsewhere, the first request fails before it is sent.
        self._pool = _pool(
            proxy,
            network_backend=self.backend,
            ssl_context=tls_context(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
        )


def _pool(proxy: httpx.Proxy | None, **options: Any) -> httpcore.ConnectionPool:
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    url, auth = str(proxy.url), proxy.raw_auth
    if proxy.url.scheme.startswith("socks"):
        return httpcore.SOCKSProxy(url, proxy_auth=auth, **options)
    return httpcore.HTTPProxy(url, proxy_auth=auth, proxy_ssl_context=proxy.ssl_context, **options)
