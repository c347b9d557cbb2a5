"""
The plan of a dataset: CPU seconds and memory per 100,000 images, of plain rows and of rows with several images.

`python -m benchmarks.dataset_rows` reads a file of rows, checks and expands them, and makes the objects of the plan,
without S3. Each case runs in a process of its own. Writes `benchmarks/results/dataset-rows.md`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dev.run_info import run_info

RESULT = Path(__file__).parent / "results" / "dataset-rows.md"
STYLES = ["DESIGN", "REALISTIC"]
SIZES = ["1024x1024", "832x1216"]
TEMPLATE = "a photo of {product}, {price:.2f} EUR"
#: Rows, and the operator's arguments.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain rows": (100_000, {}),
    "plain rows with `prompt_template`": (100_000, {"template": TEMPLATE}),
    "25,000 rows, `variants=4`": (25_000, {"variants": 4}),
    "25,000 rows, `matrix` of 2 x 2": (25_000, {"matrix": {"style_type": STYLES, "resolution": SIZES}}),
    "12,500 rows, all three: 2 x 2 x 2": (
        12_500,
        {"template": TEMPLATE, "variants": 2, "matrix": {"style_type": STYLES, "resolution": SIZES}},
    ),
    "125,000 rows, the same: 1,000,000 images": (
        125_000,
        {"template": TEMPLATE, "variants": 2, "matrix": {"style_type": STYLES, "resolution": SIZES}},
    ),
}


class NoStore:
    """An S3 layer that is empty and keeps nothing."""

    def list(self, *_: str) -> list[Any]:
        return []

    def put(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"ETag": ""}


def plan(name: str) -> dict[str, float]:
    """Plan a case in this process; return its images, seconds and megabytes above those of the imports."""
    from airflow_provider_ideogram.datasets.earlier_images import EarlierImages
    from airflow_provider_ideogram.datasets.expansion import Expansion
    from airflow_provider_ideogram.datasets.plan import make_plan
    from airflow_provider_ideogram.datasets.prompt_template import PromptTemplate
    from airflow_provider_ideogram.datasets.row_files import read_rows
    from airflow_provider_ideogram.datasets.rows import RowChecker
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.storage.target import Target

    count, arguments = CASES[name]
    template = arguments.get("template")
    store: Any = NoStore()
    images = Target("bucket", "images/")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for number in range(count):
            text = (
                {"product": f"product {number}", "price": number / 100} if template else {"prompt": f"photo {number}"}
            )
            file.write(json.dumps({"id": f"{number:06}", **text}) + "\n")
        file.flush()
        before, started = peak_mb(), time.process_time()
        checker = RowChecker(
            {},
            images,
            "{id}.png",
            expansion=Expansion(arguments.get("variants"), arguments.get("matrix")),
            prompt_template=PromptTemplate(template) if template else None,
        )
        rows = read_rows(file.name, store, checker.needed_columns)
        earlier = EarlierImages(store, images, "_ideogram/images/", "none/")
        made = make_plan(rows, checker, earlier, Workspace(store, "bucket", "plan/"), 1, "reuse", {})
        return {"images": made.total, "seconds": time.process_time() - started, "megabytes": peak_mb() - before}


def peak_mb() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure all cases, each in a process of its own, and write the table."""
    lines = [
        "# The plan of a dataset",
        "",
        f"{run_info()}. Rows of a file are read, checked and expanded, and the plan is made, as before the first "
        "submit. Without S3 and Airflow. `make bench ARGS=dataset-rows`",
        "",
        "| | images | CPU seconds | peak memory | CPU seconds per 100,000 | memory per 100,000 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in CASES:
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.dataset_rows", name], check=True, capture_output=True
        )
        found = json.loads(output.stdout.splitlines()[-1])
        share = found["images"] / 100_000
        lines.append(
            f"| {name} | {found['images']:,} | {found['seconds']:.0f} | {found['megabytes']:.0f} MB | "
            f"{found['seconds'] / share:.1f} | {found['megabytes'] / share:.0f} MB |"
        )
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(plan(sys.argv[1])))
    else:
        main()
