"""To which address of a host a worker connects, and how long an address that does not respond delays it."""

from __future__ import annotations

import socket
from typing import Any

import httpcore
import httpx
import pytest

from airflow_provider_ideogram.hooks.transport import FIRST_TRY_SECONDS, Backend, Transport
from tests.unit.hooks.conftest import Reply, ScriptedServer

DEAD, DEAD_TOO, ALIVE, ALIVE_TOO = "2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"


class Network:
    """Addresses that don't respond, refuse or accept, on a clock of its own."""

    def __init__(self) -> None:
        self.addresses = [DEAD, DEAD_TOO, ALIVE, ALIVE_TOO]
        self.seconds = 0.0
        self.round_trip = 0.05
        self.refusing: set[str] = set()
        self.tried: list[str] = []

    def getaddrinfo(self, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        return [(None, None, 6, "", (address, 443)) for address in self.addresses * 2]

    def connect_tcp(self, _: Backend, address: str, port: int, timeout: float, *__: Any) -> httpcore.NetworkStream:
        self.tried.append(address)
        self.seconds += min(timeout if address in (DEAD, DEAD_TOO) else self.round_trip, timeout)
        if address in self.refusing:
            raise httpcore.ConnectError("refused")
        if address in (DEAD, DEAD_TOO) or self.round_trip > timeout:
            raise httpcore.ConnectTimeout(f"{timeout} s")
        return httpcore.MockStream([])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    simulated = Network()
    monkeypatch.setattr(socket, "getaddrinfo", simulated.getaddrinfo)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda *arguments: simulated.connect_tcp(*arguments))
    return simulated


def _connect(backend: Backend) -> None:
    backend.connect_tcp("api.segmind.com", 443, 30.0)


def test_dead_ipv6_costs_less_than_a_second_once(network: Network) -> None:
    backend = Backend()
    for _ in range(3):
        _connect(backend)
    assert network.tried == [DEAD, ALIVE, ALIVE, ALIVE]
    assert network.seconds == pytest.approx(FIRST_TRY_SECONDS + 3 * network.round_trip)
    assert network.seconds < 1


def test_address_that_refuses_is_tried_once(network: Network) -> None:
    network.refusing = {DEAD, DEAD_TOO, ALIVE, ALIVE_TOO}
    with pytest.raises(httpcore.ConnectError, match="refused"):
        _connect(Backend())
    assert network.tried == [DEAD, ALIVE, DEAD_TOO, ALIVE_TOO]


def test_address_that_stops_responding_is_tried_last(network: Network) -> None:
    backend = Backend()
    _connect(backend)
    network.refusing = {ALIVE}
    _connect(backend)
    _connect(backend)
    assert network.tried[2:] == [ALIVE, DEAD, DEAD_TOO, ALIVE_TOO, ALIVE_TOO]


@pytest.mark.parametrize("addresses", [[ALIVE], [DEAD, ALIVE]])
def test_slow_network_has_the_whole_timeout(addresses: list[str], network: Network) -> None:
    network.addresses, network.round_trip = addresses, 5.0
    network.refusing = {DEAD}
    _connect(Backend())
    assert network.tried[-1] == ALIVE


def test_timeout_of_all_addresses(network: Network) -> None:
    network.addresses = [DEAD, DEAD_TOO]
    with pytest.raises(httpcore.ConnectTimeout, match=r"30\.0 s"):
        _connect(Backend())
    assert network.tried == [DEAD, DEAD_TOO] * 2
    with pytest.raises(httpcore.ConnectTimeout, match=r"0\.2 s"):
        Backend().connect_tcp("api.segmind.com", 443, 0.2)


def test_name_that_is_too_long_for_the_dns() -> None:
    with pytest.raises(httpcore.ConnectError, match="has no address"):
        Backend().connect_tcp("a" * 64 + ".example", 443, 30.0)


def test_resolver_without_an_address(network: Network) -> None:
    network.addresses = []
    with pytest.raises(httpcore.ConnectError, match=r"api\.segmind\.com has no address"):
        _connect(Backend())


def test_requests_use_the_backend(server: ScriptedServer, reply: Reply) -> None:
    """httpx has no public parameter for the backend."""

    class Recording(Backend):
        def addresses(self, host: str, port: int) -> list[str]:
            resolved.append(host)
            return ["127.0.0.1"]

    resolved: list[str] = []
    server.script(reply(b"done"))
    for proxy in (None, httpx.Proxy(f"http://proxy.example:{server.port}")):
        with httpx.Client(transport=Transport(proxy, Recording())) as client:
            assert client.get(f"http://api.example:{server.port}/").content == b"done"
    assert resolved == ["api.example", "proxy.example"]
