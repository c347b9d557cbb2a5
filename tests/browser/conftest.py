"""One Airflow and one browser for all tests; without Chromium, or a gallery to look at, nothing is collected."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from airflow_provider_ideogram.links.ideogram import has_gallery

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.gallery_data import GalleryWorld

CHROMIUM = Path("/usr/bin/chromium")
collect_ignore_glob = [] if CHROMIUM.exists() and has_gallery() else ["test_*.py"]

CHROMIUM_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
#: What Chromium says of an answer with an error status, which some tests are about.
_EXPECTED = "Failed to load resource"
_TIMEOUT_MILLISECONDS = 60_000

Open = Callable[..., "Page"]


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryWorld]:
    """A running Airflow with what there is to see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's API server loads Starlette's test client, which warns of httpx
        from tests.browser.gallery_data import running_world
    with running_world(tmp_path_factory.mktemp("airflow")) as gallery:
        yield gallery


@pytest.fixture(scope="session")
def browser(gallery: GalleryWorld) -> Iterator[Browser]:
    """A running Chromium, which is closed before the servers are."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=_TIMEOUT_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def contexts(browser: Browser, gallery: GalleryWorld) -> dict[str | None, BrowserContext]:
    """The browser context of each user, and that of a guest; each keeps its cache."""
    contexts: dict[str | None, BrowserContext] = {user: browser.new_context() for user in (*gallery.tokens, None)}
    for user, context in contexts.items():
        context.set_default_timeout(_TIMEOUT_MILLISECONDS)
        if user is not None:
            context.add_cookies([{"name": "_token", "value": gallery.tokens[user], "url": gallery.url}])
    return contexts


@pytest.fixture
def open_page(contexts: dict[str | None, BrowserContext]) -> Iterator[Open]:
    """Open an address as a user; errors on the page fail the test."""
    errors: list[str] = []
    pages: list[Page] = []

    def open_page(
        address: str,
        user: str | None = "admin",
        color_scheme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = (1400, 900),
    ) -> Page:
        page = contexts[user].new_page()
        pages.append(page)
        page.emulate_media(color_scheme=color_scheme)
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [error for error in errors if not error.startswith(_EXPECTED)] == []


@pytest.fixture
def screenshot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], None]:
    """Take a picture of what is to be seen, into the folder that ``SCREENSHOTS`` names."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def screenshot(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return screenshot
