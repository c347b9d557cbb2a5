"""The quick start, executed block by block in an empty folder, in the environment of the tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.airflow_version import AIRFLOW

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "quick-start.md").read_text()
#: What the blocks have that are not executed: they need the network or a key, or do not end.
INSTALLS = ('uv pip install "${CHECKOUT}[emulator]"', 'pip install "${CHECKOUT}[emulator]"')
STARTS = "airflow standalone"
OWN_KEY = "YOUR-KEY"


def _blocks() -> list[str]:
    return re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_is_executed_or_known() -> None:
    others = [block for block in _blocks() if any(text in block for text in (*INSTALLS, STARTS, OWN_KEY))]
    assert [text for text in INSTALLS if any(text in block for block in others)] == list(INSTALLS)
    assert len(_blocks()) - len(others) == 5


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(AIRFLOW < (3, 3), reason="`make matrix` runs a DAG of its own on each version")
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page needs curl")
def test_quick_start_makes_an_image(tmp_path: Path) -> None:
    executed = [block for block in _blocks() if not any(text in block for text in (*INSTALLS, STARTS, OWN_KEY))]
    programs = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "CHECKOUT": str(ROOT), "NO_PROXY": "127.0.0.1"}
    script = "set -euo pipefail\n" + "\n".join(executed)
    for port in ("8700", "5555"):
        script = script.replace(port, _free_port())
    output = tmp_path / "output"
    with output.open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=600)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)  # the two servers

    assert code == 0, output.read_text()[-5000:]
    image = (tmp_path / "ideogram-quick-start" / "lighthouse.png").read_bytes()
    assert image.startswith(b"\x89PNG")
