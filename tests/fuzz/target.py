"""
Fuzz one target for some seconds: ``python -m tests.fuzz.target NAME SECONDS SEED``.

Hypothesis makes arguments of bytes. Atheris, if it is installed, chooses the bytes by the code that they reach.
Otherwise Hypothesis draws them. The figures are printed as a line of JSON.

Invariant: a run with the same seed starts with the same examples. A failure does not end the run, and equal failures
are reported once.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from hypothesis import HealthCheck, Phase, given, seed, settings

#: The property of each target and its arguments' strategies, by their names in :mod:`tests.support.hostile`.
TARGETS = {
    "responses": ("check_response", "RESPONSES"),
    "datasets": ("check_rows", "FILES"),
    "images": ("check_image", "IMAGES"),
    "connections": ("check_connection", "CONNECTIONS"),
    "addresses": ("check_image_address", "IMAGE_ADDRESSES"),
}
_HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
#: The most bytes of an example, and the number of initial examples.
_MAX_BYTES = 4096
_FIRST = 20


class Run:
    """
    One run of a target.

    :param name: The name of the target.
    :param seconds: Its duration.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._check, strategies = self._load(name)
        self._started = time.monotonic()
        self._seconds = seconds
        self._executions = 0
        self._failures: dict[str, str] = {}
        self.test = given(**strategies)(self._try)

    @staticmethod
    def _load(name: str) -> tuple[Callable[..., None], dict[str, Any]]:
        """Import the code under test, so that Atheris measures its coverage."""
        if _HAS_ATHERIS:
            import atheris

            watched: Any = atheris.instrument_imports(include=["airflow_provider_ideogram"])
        else:
            watched = nullcontext()
        with watched:
            from tests.support import hostile
        check, strategies = TARGETS[name]
        return getattr(hostile, check), getattr(hostile, strategies)

    def _try(self, **arguments: Any) -> None:
        self.end_if_over()
        self._executions += 1
        try:
            self._check(**arguments)
        except Exception as failure:
            frame = traceback.extract_tb(failure.__traceback__)[-1]
            kind = f"{type(failure).__name__} in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"
            self._failures.setdefault(kind, f"{kind}: {' '.join(str(failure).split()):.200} with {arguments!r:.1000}")

    def end_if_over(self) -> None:
        """End the process after its time: neither engine returns by itself."""
        if time.monotonic() - self._started > self._seconds:
            self.end()

    def end(self) -> NoReturn:
        """Print the figures, and end the process at once, without the libraries' exit handlers."""
        figures = {
            "engine": "atheris" if _HAS_ATHERIS else "hypothesis",
            "seconds": time.monotonic() - self._started,
            "executions": self._executions,
            "failures": list(self._failures.values()),
        }
        sys.stdout.write(f"{json.dumps(figures)}\n")
        sys.stdout.flush()
        os._exit(0)


def _by_atheris(run: Run, number: int) -> None:
    import atheris

    fuzz: Callable[[bytes], object] = run.test.hypothesis.fuzz_one_input  # type: ignore[attr-defined]

    def one(data: bytes) -> None:
        run.end_if_over()
        fuzz(data)

    corpus, rng = Path(tempfile.mkdtemp()), random.Random(number)
    for first in range(_FIRST):
        (corpus / str(first)).write_bytes(rng.randbytes(_MAX_BYTES))
    # libFuzzer starts with short inputs of its own, which make no example.
    options = [f"-seed={number}", f"-max_len={_MAX_BYTES}", "-len_control=0", "-rss_limit_mb=4096", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def _by_hypothesis(run: Run, number: int) -> None:
    unlimited = settings(
        max_examples=1_000_000,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for again in itertools.count(number):  # a run also ends when all examples were drawn
        seed(again)(unlimited(run.test))()


if __name__ == "__main__":
    run = Run(sys.argv[1], float(sys.argv[2]))
    (_by_atheris if _HAS_ATHERIS else _by_hypothesis)(run, int(sys.argv[3]))
