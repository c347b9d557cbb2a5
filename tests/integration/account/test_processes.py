"""Processes that share a budget and are killed: the cap holds, and what the dead reserved is free again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_ideogram.account.budget import DayBudget
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.storage.objects import ObjectStore
from tests.support.account_process import PRICE

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROCESSES, CAP, KILLS = 4, 3.0, 6
MODULE = "tests.support.account_process"


def start(endpoint: str, bucket: str, charges: Path, name: str, seed: int) -> subprocess.Popen[bytes]:
    """Start a process of a seed."""
    arguments = [endpoint, bucket, str(charges), name, str(seed), str(CAP)]
    return subprocess.Popen([sys.executable, "-m", MODULE, *arguments])


@pytest.mark.parametrize("seed", [1, 2])
def test_cap_holds_and_is_used_under_kill_9(
    seed: int, s3: S3Client, s3_server: str, s3_bucket: str, tmp_path: Path
) -> None:
    rng, charges = random.Random(seed), tmp_path / "charges"
    charges.touch()
    running = [start(s3_server, s3_bucket, charges, f"p{number}", seed) for number in range(PROCESSES)]
    for kill in range(KILLS):
        before = len(charges.read_text().splitlines())
        give_up_at = time.monotonic() + 60
        while len(charges.read_text().splitlines()) < before + 2 and time.monotonic() < give_up_at:
            with suppress(subprocess.TimeoutExpired):
                running[0].wait(0.1)
        victim = rng.randrange(PROCESSES)
        os.kill(running[victim].pid, signal.SIGKILL)
        running[victim].wait()
        running[victim] = start(s3_server, s3_bucket, charges, f"p{victim}-{kill}", seed)
    for process in running:
        assert process.wait(timeout=120) == 0

    charged = sum(float(line.split()[0]) for line in charges.read_text().splitlines())
    store = AccountStore(ObjectStore(s3), s3_bucket)
    [key] = [item.key for item in ObjectStore(s3).list(s3_bucket, "_account/conn/20")]
    day = store.read(key, DayBudget.from_json)
    assert day is not None
    assert charged <= CAP + 1e-9
    assert day.used_micros <= CAP * 1_000_000
    assert day.used_micros >= 0.98 * CAP * 1_000_000
    # A process that died between the record and the submit leaves an amount that nobody can prove unspent.
    assert charged >= day.used_micros / 1_000_000 - KILLS * PRICE - 1e-9
