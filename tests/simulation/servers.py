"""
An exchange with a server of the simulated world.

Invariant: every call of the code under test to S3, the vendor or Airflow is one exchange, in which time passes, other
routines run, and the worker may be killed before or after the call takes effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.simulation.faults import Faults
from tests.simulation.kernel import Kernel, Killed

T = TypeVar("T")

#: Seconds that a message takes; a slow one. An intent's submit is sent within a minute all the same.
_LATENCY, _SLOW = (0.002, 0.2), (1.0, 12.0)


class NotCarriedOut(Exception):
    """The server did not carry out the call."""


class ResponseLost(Exception):
    """The server carried out the call, and its response did not arrive."""


class Servers:
    """
    The way to the servers.

    :param kernel: The clock.
    :param faults: The faults.
    :param count: Called with each situation.
    """

    def __init__(self, kernel: Kernel, faults: Faults, count: Callable[[str], None]) -> None:
        self.kernel, self.faults, self.count = kernel, faults, count

    def exchange(self, service: str, kind: str, about: str, effect: Callable[[], T]) -> T:
        """
        Carry out a call.

        :param service: The server.
        :param kind: The kind of call.
        :param about: What it is about, for the trace.
        :param effect: What it does; what it raises is the server's answer.
        :raises NotCarriedOut: If the server can't be reached.
        :raises ResponseLost: If its response is lost.
        """
        kernel, faults = self.kernel, self.faults
        name = f"{kind} {about}"
        self._travel()
        self._kill("before", kind)
        if faults.is_out(service, kernel.now) or faults.happens(f"{service} fails"):
            kernel.note(f"{name}: not carried out")
            raise NotCarriedOut
        try:
            result = effect()
        except Exception as error:
            kernel.note(f"{name}: {error}")
            raise
        kernel.note(name)
        self._kill("after", kind)
        self._travel()
        if faults.happens(f"{service} response lost"):
            kernel.note(f"{name}: response lost")
            raise ResponseLost
        return result

    def _travel(self) -> None:
        kernel = self.kernel
        kernel.sleep(kernel.rng.uniform(*(_SLOW if self.faults.happens("slow call") else _LATENCY)))

    def _kill(self, when: str, kind: str) -> None:
        process = self.kernel.process
        if process.task is not None and self.faults.happens(f"killed {when} a call"):
            self.kernel.note(f"killed {when} {kind}")
            self.count(f"killed {when} {kind}")
            process.is_alive = False
            raise Killed
