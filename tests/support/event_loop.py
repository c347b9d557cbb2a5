"""
Find calls that block an event loop.

Invariant: a call counts by its kind and not by its duration, so that the machine's speed does not matter. These are the
calls on the loop's thread that wait for something outside of the process: sleep, files, name resolution, blocking
sockets, processes, certificates and imports.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

#: Audit events of the interpreter, which it reports before the call; see Python's documentation.
_AUDITED = (
    "fcntl.flock",
    "import",
    "open",
    "os.listdir",
    "os.scandir",
    "os.system",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "subprocess.Popen",
)
#: Methods that block unless the socket is non-blocking.
_SOCKET_CALLS = ("accept", "connect", "recv", "recv_into", "send", "sendall", "sendto")
#: Methods that read certificates from disk.
_TLS_CALLS = ("load_cert_chain", "load_default_certs", "load_verify_locations", "set_default_verify_paths")


@dataclass
class BlockingCalls:
    """
    The blocking calls of one thread.

    :param found: The name of each call, and its frames, the innermost first.
    """

    thread: int = field(default_factory=threading.get_ident)
    found: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        """Record the current call if it is made on this thread."""
        if threading.get_ident() == self.thread:
            self.found.append(what + "".join(_where()))


def _where() -> Iterator[str]:
    """Yield the frames outside of this module, innermost first, without their source: to read it would block too."""
    frame = sys._getframe().f_back
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "importlib" not in path:
            yield f"\n    {path}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back


_watching: list[BlockingCalls] = []


def _on_audit_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _AUDITED:
        for calls in _watching:
            calls.add(f"{event} {arguments[0] if arguments else ''}")


@cache
def _add_audit_hook() -> None:
    """
    Install the hook, which can't be removed.

    It is installed on first use only: the interpreter may switch threads while it runs, and a thread that starts then
    may not be traced for coverage.
    """
    sys.addaudithook(_on_audit_event)


@contextmanager
def blocking_calls() -> Iterator[BlockingCalls]:
    """Collect the blocking calls that this thread makes."""
    calls = BlockingCalls()
    _add_audit_hook()
    with _watched_methods(calls):
        _watching.append(calls)
        try:
            yield calls
        finally:
            _watching.remove(calls)


@contextmanager
def _watched_methods(calls: BlockingCalls) -> Iterator[None]:
    patches = [_patched(socket.socket, name, calls, only_blocking=True) for name in _SOCKET_CALLS]
    patches += [_patched(ssl.SSLContext, name, calls) for name in _TLS_CALLS]
    patches.append(_patched(time, "sleep", calls))  # not audited before Python 3.13
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _patched(owner: Any, name: str, calls: BlockingCalls, *, only_blocking: bool = False) -> Any:
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        if not only_blocking or args[0].gettimeout() != 0:
            calls.add(f"{owner.__name__}.{name}")
        return original(*args, **kwargs)

    return mock.patch.object(owner, name, watched)
