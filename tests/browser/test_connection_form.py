from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from airflow_provider_ideogram.emulator.settings import DEFAULT_KEY
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

CONNECTION = "ideogram_form"


@pytest.mark.pictures
def test_connection_is_made_and_tested(
    gallery: GalleryWorld, open_page: Open, screenshot: Callable[[Page, str], None]
) -> None:
    page = open_page(f"{gallery.url}/connections", size=(1200, 1000))
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill(CONNECTION)
    form.get_by_role("combobox").first.click()
    page.keyboard.type("ideogram")
    page.keyboard.press("Enter")
    form.get_by_label("API key", exact=True).fill(DEFAULT_KEY)
    screenshot(page, "connection-form")
    form.get_by_label("Base URL").fill(gallery.emulator.url)
    # Airflow 3.3.1 and 3.3.2 refuse to test a stored connection without a port.
    form.get_by_label("Port").fill(str(urlsplit(gallery.emulator.url).port))
    form.get_by_text("Extra Fields", exact=True).click()
    for name, field in EXTRA_FIELDS.items():
        expect(form.locator(f"[name=element_{name}]")).to_have_value(_as_shown(field.default))
        expect(form.get_by_text(field.label, exact=True)).to_be_visible()
        expect(form.get_by_text(field.description)).to_be_visible()
    form.locator("[name=element_requests_per_minute]").fill("50")
    screenshot(page, "connection-form-extra")
    form.get_by_role("button", name="Save").click()
    expect(form).to_have_count(0)

    page.set_viewport_size({"width": 1200, "height": 480})
    page.reload()
    row = page.get_by_role("row").filter(has=page.get_by_text(CONNECTION, exact=True))
    row.get_by_role("button", name="Test Connection").click()
    expect(page.get_by_text(re.compile(r"^credits: \d+\.\d\d$"))).to_be_visible()
    screenshot(page, "connection-test")


def _as_shown(value: float | str | None) -> re.Pattern[str]:
    shown = f"{value:g}" if isinstance(value, int | float) else value or ""
    return re.compile(rf"^{re.escape(shown)}(\.0)?$")  # Airflow 3.1 shows numbers with a point
