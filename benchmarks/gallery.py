"""
The time until the gallery of a run with 2,000 images is shown in Chromium, and the API server's memory.

Run as ``python -m benchmarks.gallery``; the page is written to ``benchmarks/results/gallery.md``. The Airflow is that
of the browser tests: API server, scheduler, DAG processor and triggerer on this machine, a local S3 server, SQLite.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks import report
from dev.processes import raise_on_stop_signals, session_members
from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.browser.gallery_data import DATASET_ROWS, GalleryWorld, running_world

if TYPE_CHECKING:
    from playwright.sync_api import Page

REPEATS = 10
#: Pages of the gallery; each reads other lines of the manifest.
PAGES = (1, 17, 34)
_IN_VIEW_ARE_LOADED = """
() => [...document.querySelectorAll(".card img")].filter(
    (image) => image.getBoundingClientRect().top < innerHeight
).every((image) => image.complete && image.naturalWidth)
"""


def main() -> int:
    """Measure, and write the page."""
    from playwright.sync_api import sync_playwright

    raise_on_stop_signals()
    about = report.machine()
    with tempfile.TemporaryDirectory() as home, running_world(Path(home)) as gallery, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.add_cookies([{"name": "_token", "value": gallery.tokens["admin"], "url": gallery.url}])
        page = context.new_page()
        open_seconds(page, gallery, 1)  # the first request loads the application
        before = memory_mb(gallery)
        took = {number: [open_seconds(page, gallery, number) for _ in range(REPEATS)] for number in PAGES}
        grown = memory_mb(gallery) - before
        browser.close()
    rows = []
    for number, times in took.items():
        drawn, loaded = zip(*times, strict=True)
        rows.append(
            [number, *(f"{value(times):.2f}" for times in (drawn, loaded) for value in (statistics.median, max))]
        )
    head = ("page", "page drawn, s", "longest", "images in view loaded, s", "longest")
    report.write(
        "gallery",
        f"The gallery of a run with {DATASET_ROWS:,} images",
        about + "\n",
        f"{REPEATS} times each in Chromium; 60 images per page, which the browser requests again each time.\n",
        report.table(head, rows),
        f"After {REPEATS * len(PAGES)} pages the API server's memory had changed by {grown:+.0f} MB.\n",
    )
    return 0


def open_seconds(page: Page, gallery: GalleryWorld, number: int) -> tuple[float, float]:
    """Return the seconds until a page of the gallery is drawn, and until the images in view are loaded."""
    page.goto("about:blank")
    started = time.monotonic()
    page.goto(f"{gallery.run_page('catalogue')}?page={number}", wait_until="domcontentloaded")
    drawn = time.monotonic() - started
    page.wait_for_function(_IN_VIEW_ARE_LOADED)
    return drawn, time.monotonic() - started


def memory_mb(gallery: GalleryWorld) -> float:
    """Return the memory of the API server's processes."""
    members = session_members(gallery.cluster.components["api-server"].pid)
    return sum(psutil.Process(pid).memory_full_info().uss for pid in members) / 1e6


if __name__ == "__main__":
    sys.exit(main())
