"""The gallery's pictures in the documentation, which ``make screenshots`` takes from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

    Screenshot = Callable[[Page, str], None]

pytestmark = pytest.mark.pictures

_LOAD = """
() => Promise.allSettled([...document.images].map((image) => { image.loading = "eager"; return image.decode(); }))
"""


def _show_tab(page: Page) -> FrameLocator:
    page.get_by_role("link", name="Images").click()
    frame = page.frame_locator("iframe[title=Images]")
    expect(frame.locator(".card").first).to_be_visible()
    page.frames[-1].evaluate(_LOAD)
    return frame


def test_dag_run(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/travel_posters/runs/first")
    frame = _show_tab(page)
    expect(frame.locator(".card")).to_have_count(8)
    expect(frame.locator(".chip-failed")).to_have_count(0)
    screenshot(page, "gallery-dag-run")


def test_task_instance(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/travel_posters/runs/first/tasks/posters/mapped/5", color_scheme="dark")
    _show_tab(page)
    screenshot(page, "gallery-task-instance")


def test_dags(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/plugin/ideogram-images-nav")
    frame = page.frame_locator("iframe[title=Images]")
    expect(frame.locator(".covered").first).to_be_visible()
    page.frames[-1].evaluate(_LOAD)
    screenshot(page, "gallery-dags")


def test_account(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/plugin/ideogram-images-account", size=(1400, 1000))
    expect(page.frame_locator("iframe[title='Image account']").get_by_role("heading", name="Accounts")).to_be_visible()
    page.frames[-1].goto(f"{gallery.url}/ideogram/account/studio")
    screenshot(page, "account")


def test_image(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.run_page("travel_posters", "tasks", "posters", "images", "1", "-") + "?at=1")
    page.evaluate(_LOAD)
    screenshot(page, "gallery-image")


def test_running_dataset(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.run_page('catalogue_in_the_making')}?page=2", color_scheme="dark")
    page.evaluate(_LOAD)
    screenshot(page, "gallery-running")


def test_search(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.run_page('formats')}?q=savoy&style=DESIGN&sort=cheapest")
    page.evaluate(_LOAD)
    screenshot(page, "gallery-search")


def test_comparison(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    images = "&".join(f"image=posters/{index}/-" for index in (2, 3, 7))
    page = open_page(f"{gallery.run_page('travel_posters', 'compare')}?{images}")
    page.evaluate(_LOAD)
    screenshot(page, "gallery-compare")


def test_review(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/reviewed/runs/first/tasks/review", size=(1400, 1060))
    frame = _show_tab(page)
    for decision in ("approve", "reject", "approve"):
        frame.locator(f"[data-decide={decision}]").click()
    page.frames[-1].evaluate(_LOAD)
    expect(frame.locator("[data-saved]")).to_have_text("All saved")
    page.frames[-1].evaluate("scrollTo(0, 0)")
    screenshot(page, "review")
    for _ in range(3):
        frame.locator("[data-undo]").click()
    expect(frame.locator("[data-saved]")).to_have_text("All saved")
