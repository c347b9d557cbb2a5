"""The gallery's pages have no serious finding of axe, in light and in dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

_PAGES = (
    "",
    "dags/catalogue",
    "dags/catalogue/runs/first?q=savoy&style=DESIGN",
    "dags/catalogue_in_the_making/runs/first",
    "dags/fox_and_friends/runs/first",
    "dags/reviewed/runs/first/tasks/review",
    "dags/travel_posters/runs/first/tasks/posters/images/1/-?at=1",
    "dags/travel_posters/runs/first/compare?image=posters/2/-&image=posters/3/-",
    "dags/travel_posters/runs/none",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_serious_finding(
    scheme: Literal["light", "dark"], gallery: GalleryWorld, open_page: Open
) -> None:
    page = open_page("about:blank", color_scheme=scheme)
    found = {}
    for path in _PAGES:
        page.goto(f"{gallery.url}/ideogram/{path}")
        for finding in Axe().run(page).response["violations"]:
            if finding["impact"] in ("serious", "critical"):
                found[path, finding["id"]] = [node["target"] for node in finding["nodes"]]
    assert found == {}
