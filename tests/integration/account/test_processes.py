"""Processes that share a budget and are killed: the cap holds, and what the dead reserved is free again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.account_process import PRICE, Vendor, race, used_usd
from tests.support.s3 import serial_s3_server

if TYPE_CHECKING:
    from dev.s3_server import S3Server

PROCESSES, CAP, KILLS = 4, 1.5, 4
BUCKET = "account"


@pytest.fixture
def server() -> Iterator[S3Server]:
    """Return a server whose conditional writes are atomic."""
    with serial_s3_server() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


def test_cap_holds_and_is_used_under_kill_9(server: S3Server, tmp_path: Path) -> None:
    charges = tmp_path / "charges"
    charges.touch()

    def start(name: str, own_seed: str) -> subprocess.Popen[bytes]:
        arguments = [server.endpoint, BUCKET, str(charges), name, own_seed, str(CAP)]
        return subprocess.Popen([sys.executable, "-m", "tests.support.account_process", *arguments])

    race(start, charges, 1, PROCESSES, KILLS)

    charged, used = sum(Vendor(charges).costs().values()), used_usd(ObjectStore(server.client()), BUCKET)
    assert charged <= used + 1e-9
    assert 0.98 * CAP <= used <= CAP + 1e-9
    # A process that died between the record and the submit leaves an amount that nothing proves unspent.
    assert charged >= used - KILLS * PRICE - 1e-9
