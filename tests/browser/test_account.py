"""The page of an account in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

    Screenshot = Callable[[Page, str], None]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_account(
    scheme: Literal["light", "dark"], gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page(f"{gallery.url}/ideogram/account/studio", color_scheme=scheme, size=(1100, 1000))
    expect(page.locator(".chart rect.spent")).to_have_count(30)
    expect(page.locator("#spend ~ details tbody tr")).to_have_count(30)
    expect(page.get_by_text("max_cost_usd_per_month")).to_be_visible()
    expect(page.locator(".problem[role=alert]")).to_have_count(0)
    # The chart is as wide as the page lets it be, and nothing is wider than the page.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    screenshot(page, f"account-{scheme}")


def test_page_of_the_menu_lists_the_accounts(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(f"{gallery.url}/plugin/ideogram-images-account")
    frame = page.frame_locator("iframe[title='Image account']")
    frame.get_by_role("link", name="ideogram_default").click()
    expect(frame.get_by_text("names no account_url")).to_be_visible()
    expect(frame.get_by_text("What waits for a person")).to_be_visible()


def test_guest_sees_no_account(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(f"{gallery.url}/ideogram/account/studio", user="guest")
    expect(page.get_by_text("You may not see what this page shows.")).to_be_visible()
