"""
The time until pages of the gallery are shown in Chromium, and the API server's memory.

Run as ``python -m benchmarks.gallery``; the page is written to ``benchmarks/results/gallery.md``. The Airflow is that
of the browser tests: API server, scheduler, DAG processor and triggerer on this machine, a local S3 server, SQLite.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from benchmarks import report
from dev.processes import raise_on_stop_signals, session_members
from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.browser.gallery_data import DATASET_ROWS, GalleryWorld, running_world

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPEATS = 10
#: The pages by what they show: of which run, and where below it.
PAGES = {
    "page 1": ("catalogue", ""),
    "page 17": ("catalogue", "?page=17"),
    "page 34": ("catalogue", "?page=34"),
    "search for a word": ("catalogue", "?q=tuscany"),
    "highest cost first": ("catalogue", "?sort=dearest"),
    "a single image with its neighbours": ("catalogue", "/tasks/generate/images/-1/0?at=0"),
    f"review of {len(RESOLUTIONS)} images": ("reviewed", "/tasks/review"),
}
_IN_VIEW_ARE_LOADED = """
() => [...document.querySelectorAll("main img")].filter(
    (image) => image.getBoundingClientRect().top < innerHeight && image.offsetParent
).every((image) => image.complete && image.naturalWidth)
"""
_BYTES = """
() => performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize || 0), 0)
"""


@dataclass(frozen=True)
class Opened:
    """
    A page that was opened once.

    :param drawn: Seconds until it was drawn.
    :param loaded: Seconds until the images in view were loaded.
    :param size: Bytes that the browser received.
    """

    drawn: float
    loaded: float
    size: int


def main() -> int:
    """Measure, and write the page."""
    from playwright.sync_api import sync_playwright

    raise_on_stop_signals()
    about = report.machine()
    with tempfile.TemporaryDirectory() as home, running_world(Path(home)) as gallery, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        open_once(browser, gallery, *PAGES["page 1"])  # the first request loads the application
        before = memory_mb(gallery)
        opened = {name: [open_once(browser, gallery, *page) for _ in range(REPEATS)] for name, page in PAGES.items()}
        grown = memory_mb(gallery) - before
        browser.close()
    head = ("what", "page drawn, s", "longest", "images in view loaded, s", "longest", "received, KB")
    report.write(
        "gallery",
        f"The gallery of a run with {DATASET_ROWS:,} images",
        about + "\n",
        f"{REPEATS} times each in Chromium with an empty cache, 1400 by 900 pixels; medians. A page has 60 images.\n",
        report.table(head, [row(name, times) for name, times in opened.items()]),
        f"After {REPEATS * len(PAGES)} pages the API server's memory had changed by {grown:+.0f} MB.\n",
    )
    return 0


def row(name: str, opened: Sequence[Opened]) -> list[Any]:
    """Return a line of the table."""
    drawn, loaded = [one.drawn for one in opened], [one.loaded for one in opened]
    times = [f"{value(of):.2f}" for of in (drawn, loaded) for value in (statistics.median, max)]
    return [name, *times, f"{statistics.median(one.size for one in opened) / 1000:.0f}"]


def open_once(browser: Browser, gallery: GalleryWorld, dag_id: str, rest: str) -> Opened:
    """Open a page of the gallery in a browser that has seen nothing."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_cookies([{"name": "_token", "value": gallery.tokens["admin"], "url": gallery.url}])
    page = context.new_page()
    started = time.monotonic()
    page.goto(f"{gallery.run_page(dag_id)}{rest}", wait_until="domcontentloaded")
    drawn = time.monotonic() - started
    page.wait_for_function(_IN_VIEW_ARE_LOADED)
    loaded = time.monotonic() - started
    size = page.evaluate(_BYTES)
    context.close()
    return Opened(drawn, loaded, size)


def memory_mb(gallery: GalleryWorld) -> float:
    """Return the memory of the API server's processes."""
    members = session_members(gallery.cluster.components["api-server"].pid)
    return sum(psutil.Process(pid).memory_full_info().uss for pid in members) / 1e6


if __name__ == "__main__":
    sys.exit(main())
