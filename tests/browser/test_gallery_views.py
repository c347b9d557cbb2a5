from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
from playwright.sync_api import expect

from tests.support.airflow_version import need_airflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import FrameLocator, Locator, Page

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

    Screenshot = Callable[[Page, str], None]

_REFRESH_MILLISECONDS = 4000
DARK, LIGHT = "rgb(22, 29, 45)", "rgb(255, 255, 255)"


def _frame(page: Page) -> FrameLocator:
    return page.frame_locator("iframe[title=Images]")


def _expect_loaded(images: Locator, count: int) -> None:
    """Wait until so many images are really there."""
    expect(images).to_have_count(count)
    for index in range(count):
        image = images.nth(index)
        image.scroll_into_view_if_needed()
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0


def test_tab_of_a_dag_run(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/fox_and_friends/runs/first")
    page.get_by_role("link", name="Images").click()
    frame = _frame(page)
    _expect_loaded(frame.locator(".card img"), 5)
    expect(frame.get_by_text("A portrait of somebody famous")).to_be_visible()
    expect(frame.locator("body")).to_have_css("background-color", LIGHT)
    frame.locator("body").evaluate("body => scrollTo(0, 0)")
    screenshot(page, "view-dag-run")


def test_tab_of_a_dag(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(f"{gallery.url}/dags/travel_posters")
    page.get_by_role("link", name="Images", exact=True).click()
    _expect_loaded(_frame(page).locator(".strip img"), 6)


def test_tab_of_a_task(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(f"{gallery.url}/dags/fox_and_friends/tasks/pages")
    page.get_by_role("link", name="Images").click()
    _expect_loaded(_frame(page).locator(".strip img"), 4)
    screenshot(page, "gallery-task")


def test_link_leads_to_the_tab_of_the_task_instance(
    gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page(f"{gallery.url}/dags/fox_and_friends/runs/first/tasks/pages/mapped/1/details", color_scheme="dark")
    request = page.get_by_role("link", name="Segmind request", exact=True)
    expect(request).to_have_attribute("href", re.compile(r"^https://platform\.segmind\.com#[0-9a-f-]{36}$"))
    # Airflow 3.1 opens it in a new tab.
    page.goto(page.get_by_role("link", name="Image", exact=True).evaluate("link => link.href"))
    frame = _frame(page)
    _expect_loaded(frame.locator(".card img"), 1)
    expect(frame.locator(".card")).to_contain_text("Poster of a jazz festival")
    expect(frame.locator("body")).to_have_css("background-color", DARK)
    screenshot(page, "view-task-instance")


def test_page_in_the_navigation(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Images").click()
    _expect_loaded(_frame(page).locator('a[href$="/dags/catalogue"] img'), 1)
    expect(_frame(page).get_by_text("1,980 images · 94.00 USD")).to_be_visible()
    _frame(page).get_by_role("link", name="catalogue", exact=True).click()
    _expect_loaded(_frame(page).locator(".strip img"), 6)
    screenshot(page, "gallery-recent-runs")


def test_image_with_all_its_data(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.run_page("fox_and_friends"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="A red fox in fresh snow").click()
    _expect_loaded(page.get_by_role("img", name="A red fox in fresh snow, low sun"), 1)
    for text in ("s3://gallery/cover.png", "0.05 USD", "ideogram-2a-txt-2-img"):
        expect(page.get_by_role("definition").filter(has_text=text)).to_be_visible()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#call").inner_text()
    assert "prompt='A red fox in fresh snow, low sun'" in copied
    screenshot(page, "view-image")


def test_prompt_with_html_stays_text(gallery: GalleryWorld, open_page: Open) -> None:
    from tests.browser.dags.gallery_dags import PROMPTS

    page = open_page(gallery.run_page("fox_and_friends", "tasks", "pages", "images", "2", "-"))
    expect(page.get_by_role("img")).to_have_attribute("alt", PROMPTS[2])
    expect(page.get_by_role("heading", level=1)).to_have_text(PROMPTS[2])
    expect(page).to_have_title("pages[2]")
    assert page.locator("img[src=x], main script").count() == 0


def test_everything_can_be_reached_with_the_keyboard(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page("catalogue"))
    cards = page.locator(".card")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the images")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(cards.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(cards.nth(1)).to_be_focused()
    for key, title in (("Enter", "card-0001"), ("ArrowRight", "card-0002"), ("ArrowLeft", "card-0001")):
        page.keyboard.press(key)
        expect(page).to_have_title(title)
        page.wait_for_load_state()
    page.keyboard.press("Escape")
    expect(cards).to_have_count(60)


def test_airflows_own_choice_of_dark_counts(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page("catalogue"))
    expect(page.locator("body")).to_have_css("background-color", LIGHT)
    try:
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        expect(page.locator("body")).to_have_css("background-color", DARK)
    finally:
        page.evaluate("localStorage.removeItem('theme')")


def test_dataset_is_paged_and_loads_what_comes_into_view(
    gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page("about:blank")
    files: list[str] = []
    page.on("request", lambda request: files.append(request.url) if request.url.endswith("/thumbnail") else None)
    page.goto(gallery.run_page("catalogue"))
    expect(page.locator(".card")).to_have_count(60)
    assert 0 < len(files) < 60
    expect(page.get_by_text("Request blocked by the RAI safety filter").first).to_be_visible()
    _expect_loaded(page.locator(".card img").locator("nth=0"), 1)
    screenshot(page, "gallery-dataset")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".card").first).to_contain_text("card-0060")
    page.goto(f"{gallery.run_page('catalogue')}?page=34")
    expect(page.locator(".card")).to_have_count(20)
    expect(page.locator(".card").last).to_contain_text("card-1999")


def test_running_dataset_fills_up(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    from tests.browser.gallery_data import part_key

    need_airflow("3.2", "request that changes an XCom without encoding it twice")
    page = open_page(f"{gallery.run_page('catalogue_in_the_making')}?page=2", color_scheme="dark")
    cards = page.locator(".card")
    expect(cards).to_have_count(30)
    cards.nth(3).focus()
    _expect_loaded(cards.nth(3).get_by_role("img"), 1)
    screenshot(page, "view-running")

    gallery.s3.copy_object(Bucket="gallery", Key=part_key(3), CopySource=f"gallery/{part_key(1)}")
    _push_progress(gallery, {**_progress(gallery), "done": 120})
    expect(cards).to_have_count(60)
    expect(page.locator(".numbers")).to_contain_text("120 of 500")
    expect(cards.nth(3)).to_be_focused()


def test_running_dataset_waits_for_a_selection(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page("about:blank")
    page.clock.install()
    page.goto(gallery.run_page("catalogue_in_the_making"))
    refreshed: list[str] = []
    page.on("request", lambda request: refreshed.append(request.url) if request.url == page.url else None)
    page.locator(".card").first.focus()
    page.keyboard.press("x")
    page.clock.run_for(_REFRESH_MILLISECONDS * 3)
    expect(page.locator(".pick input").first).to_be_checked()
    assert refreshed == []
    page.keyboard.press("x")
    with page.expect_request(page.url):
        page.clock.run_for(_REFRESH_MILLISECONDS * 3)


def _xcom(gallery: GalleryWorld) -> tuple[httpx.Client, str]:
    client = httpx.Client(headers={"Authorization": f"Bearer {gallery.tokens['admin']}"}, trust_env=False)
    path = "dags/catalogue_in_the_making/dagRuns/first/taskInstances/generate/xcomEntries/progress"
    return client, f"{gallery.url}/api/v2/{path}"


def _progress(gallery: GalleryWorld) -> dict[str, Any]:
    client, address = _xcom(gallery)
    with client:
        value: Any = client.get(address, params={"deserialize": True}).raise_for_status().json()["value"]
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found


def _push_progress(gallery: GalleryWorld, progress: dict[str, Any]) -> None:
    client, address = _xcom(gallery)
    with client:
        client.patch(address, json={"value": progress, "map_index": -1}).raise_for_status()


def test_image_that_is_gone_says_so(gallery: GalleryWorld, open_page: Open) -> None:
    gallery.s3.delete_object(Bucket="gallery", Key="secret.png")
    page = open_page(gallery.run_page("private_images"))
    expect(page.get_by_text("The image was deleted, or replaced by another one.")).to_be_visible()


def test_deleted_run_leads_to_other_runs(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(f"{gallery.url}/ideogram/dags/catalogue/runs/deleted/tasks/generate/images/-1/0")
    expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()
    page.get_by_role("link", name="Images of the task generate in other runs").click()
    _expect_loaded(page.locator(".strip img"), 6)


def test_denied_user_sees_nothing(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.run_page("private_images"), user="guest")
    expect(page.get_by_text("You may not see what this page shows.")).to_be_visible()
    assert "secret" not in page.content().lower()
    screenshot(page, "gallery-denied")
    for more in ((), ("tasks", "secret"), ("tasks", "secret", "images", "-1", "-", "file")):
        assert page.request.get(gallery.run_page("private_images", *more)).status == 403

    page.goto(f"{gallery.url}/ideogram/")
    expect(page.get_by_role("link", name="catalogue", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="private_images")).to_have_count(0)
    page.get_by_role("link", name="fox_and_friends").click()
    _expect_loaded(page.locator(".strip img").locator("nth=0"), 1)


def test_nobody_sees_nothing(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page("fox_and_friends"), user=None)
    expect(page.get_by_text("Log in to Airflow to see the images.")).to_be_visible()
