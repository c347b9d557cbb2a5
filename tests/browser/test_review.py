"""Decisions by keyboard on a running Airflow: saved in the background, without a new page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

    Screenshot = Callable[[Page, str], None]

#: The keys of the first images: what is decided on each.
KEYS = "aaraadaraaaraaadaara"
WORDS = {"a": "approve", "r": "reject", "d": "redo"}


def _stored(gallery: GalleryWorld) -> list[dict[str, Any]]:
    """Return the decisions in the review's object."""
    keys = gallery.s3.list_objects_v2(Bucket="gallery", Prefix="_ideogram/.reviews/")["Contents"]
    [key] = [one["Key"] for one in keys if one["Key"].endswith("review.json")]
    entries: list[dict[str, Any]] = json.loads(gallery.s3.get_object(Bucket="gallery", Key=key)["Body"].read())[
        "entries"
    ]
    return entries


def test_images_are_decided_by_keyboard(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/reviewed/runs/first/tasks/review")
    page.get_by_role("link", name="Images", exact=True).click()
    frame = page.frame_locator("iframe[title=Images]")
    expect(frame.locator(".card").first).to_be_focused()
    frame.locator("html").evaluate("html => { html.dataset.mark = 'same page' }")
    for key in KEYS:
        page.keyboard.press(key)
        if key == "d":
            page.keyboard.type("with more sky")
            page.keyboard.press("Enter")
    expect(frame.locator("[data-count=undecided]")).to_have_text(str(78 - len(KEYS)))
    expect(frame.locator("[data-saved]")).to_have_text("All saved")
    stored = _stored(gallery)[-len(KEYS) :]  # other tests have undone theirs
    assert [one["decision"] for one in stored] == [WORDS[key] for key in KEYS]
    assert {one["by"] for one in stored} == {"admin"}
    assert [one["note"] for one in stored if one["decision"] == "redo"] == ["with more sky"] * 2
    page.keyboard.press("u")
    expect(frame.locator("[data-count=undecided]")).to_have_text(str(78 - len(KEYS) + 1))
    expect(frame.locator(".card").nth(len(KEYS) - 1)).to_be_focused()
    assert frame.locator("html").get_attribute("data-mark") == "same page"
    expect(frame.locator("[data-saved]")).to_have_text("All saved")
    screenshot(page, "view-review")

    # The rest of the 78 images comes without a new page, too.
    frame.locator(".card").nth(55).focus()
    expect(frame.locator(".card")).to_have_count(78)

    page.goto(gallery.run_page("reviewed"))
    expect(page.get_by_text("59 of 78 images wait for a decision")).to_be_visible()
    assert page.locator("[data-decision=approve]").count() == KEYS.count("a") - 1


def test_decision_that_is_not_saved_is_marked_and_sent_again(
    gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page(gallery.run_page("reviewed", "tasks", "review"), color_scheme="dark", size=(420, 900))
    held: list[Route] = []
    page.route("**/decisions", lambda route: held.append(route))  # Playwright marks the function
    card = page.locator("[data-image]:not([data-decision])").first
    image = card.get_attribute("data-image")
    card.locator(".card").focus()
    page.keyboard.press("a")
    decided = page.locator(f'[data-image="{image}"]')
    expect(decided.locator("[data-verdict]")).to_have_text("approved")
    expect(page.locator("[data-saved]")).to_have_text("1 not saved yet")
    screenshot(page, "view-review-unsaved")
    held.pop().fulfill(status=502, json={"problem": "S3 answers SlowDown."})
    expect(page.locator("[data-saved]")).to_contain_text("1 not saved, tried again. S3 answers SlowDown.")
    page.unroute("**/decisions")
    expect(page.locator("[data-saved]")).to_have_text("All saved")
    expect(page.locator(".is-unsaved")).to_have_count(0)
    assert [one["decision"] for one in _stored(gallery) if one["image"] == image][-1] == "approve"
