"""The rows of the tests, and the comparison of a run's manifest, XCom, images and charges."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator

if TYPE_CHECKING:
    from tests.support.task_runner import Slice, TaskRun
    from tests.support.world import World

PREFIX = "sets/day/"
PROMPTS = [f"a lighthouse, number {number}" for number in range(5)]
ROWS = [{"id": f"item-{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)]

#: Makes the dataset operator from its arguments.
Make = Callable[..., IdeogramGenerateDatasetOperator]


def json_lines(rows: list[dict[str, str]]) -> bytes:
    """Return the rows as a file of JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def manifest(world: World) -> list[dict[str, Any]]:
    """Return the lines of the manifest."""
    return [json.loads(line) for line in world.stored(f"{PREFIX}manifest.jsonl").splitlines()]


def assert_results_agree(world: World, run: TaskRun, result: Slice, *, total: int = len(ROWS)) -> dict[str, Any]:
    """Check that each item has one charge and one image, and that manifest and XCom agree; return the XCom."""
    assert result.state == "success", f"{result.error}\n{run.log_text[-3000:]}"
    lines, xcom = manifest(world), run.xcom()
    assert [line["row"] for line in lines] == list(range(total))
    assert xcom["total"] == total == sum(xcom[status] for status in ImageStatus)
    for status in ImageStatus:
        assert xcom[status] == sum(line["status"] == status for line in lines)
    charges = {charge.request_id: charge for charge in world.emulator.charges()}
    assert {line["request_id"] for line in lines} == set(charges)
    for line in lines:
        stored = world.s3.get_object(Bucket=world.bucket, Key=line["key"])
        assert stored["Body"].read() == world.emulator.image_bytes(line["request_id"])
        assert stored["ETag"].strip('"') == line["etag"]
        assert line["prompt"] == charges[line["request_id"]].inputs["prompt"]
    assert xcom["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
    assert xcom["original_cost_usd"] == pytest.approx(world.charged_usd)
    # A worker that is killed while it probes the store leaves the probe's object.
    assert [key for key in world.object_keys("_ideogram/") if not key.startswith("_ideogram/.probe-")] == []
    return xcom  # type: ignore[no-any-return]
