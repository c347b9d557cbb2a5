"""The world of a dataset's task: the emulator, a bucket, and a clock that both follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.integration.conftest import Clock
    from tests.support.task_runner import Slice, TaskRun

PREFIX = "sets/day/"
ROWS = [{"id": f"item-{number}", "prompt": f"a lighthouse, number {number}"} for number in range(5)]
HOUR, DAY = 3600.0, 86400.0

Make: TypeAlias = Callable[..., IdeogramGenerateDatasetOperator]


def jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a file of JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class World:
    """The vendor, the bucket and the clock."""

    def __init__(self, emulator: RunningEmulator, clock: Clock, s3: S3Client, bucket: str) -> None:
        self.emulator = emulator
        self.clock = clock
        self.s3 = s3
        self.bucket = bucket

    def advance(self, seconds: float) -> None:
        """Let time pass for the task and the vendor."""
        self.clock.advance(seconds)
        self.emulator.advance(seconds)

    def accepted(self) -> int:
        """Return the number of accepted requests."""
        return self.emulator.stats().accepted

    def charged_usd(self) -> float:
        """Return what the vendor charged."""
        return self.emulator.stats().charged_usd

    def put(self, key: str, body: bytes) -> str:
        """Write an object, and return its address."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def manifest(self) -> list[dict[str, Any]]:
        """Return the lines of the manifest."""
        body = self.s3.get_object(Bucket=self.bucket, Key=f"{PREFIX}manifest.jsonl")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def run_to_end(self, run: TaskRun, result: Slice) -> Slice:
        """Run the attempt to its end; the clock is advanced to deadlines for which no request is polled."""
        while result.state == "deferred":
            trigger = run.trigger()
            if not trigger.requests:  # type: ignore[attr-defined]
                self.advance(max(0.0, trigger.deadline - self.clock()))  # type: ignore[attr-defined]
            result = run.resume(run.fire())
        return result

    def assert_stats_agree(self, run: TaskRun, result: Slice, *, total: int = len(ROWS)) -> dict[str, Any]:
        """
        Assert one charge and one image an item, byte by byte, and that manifest, XCom, ledger and vendor agree.

        :return: The XCom.
        """
        assert result.state == "success", f"{result.error}\n{run.log_text[-3000:]}"
        lines, xcom = self.manifest(), run.xcom()
        assert [line["row"] for line in lines] == list(range(total))
        assert xcom["total"] == total == sum(xcom[status] for status in ImageStatus)
        for status in ImageStatus:
            assert xcom[status] == sum(line["status"] == status for line in lines)
        charges = {charge.request_id: charge for charge in self.emulator.charges()}
        assert {line["request_id"] for line in lines} == set(charges)
        for line in lines:
            stored = self.s3.get_object(Bucket=self.bucket, Key=line["key"])
            assert stored["Body"].read() == self.emulator.image_bytes(line["request_id"])
            assert stored["ETag"].strip('"') == line["etag"]
            assert line["prompt"] == charges[line["request_id"]].inputs["prompt"]
        assert xcom["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
        assert xcom["original_cost_usd"] == pytest.approx(self.charged_usd())
        assert self.keys("_ideogram/") == []
        return xcom  # type: ignore[no-any-return]
