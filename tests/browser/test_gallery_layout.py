from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal
from zipfile import ZipFile

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response

    from tests.browser.conftest import Open
    from tests.browser.gallery_data import GalleryWorld

    Screenshot = Callable[[Page, str], None]

#: The box of each image, of its frame and of its cell, and the ratio of the picture itself.
_BOXES = """
() => [...document.querySelectorAll(".cell")].map((cell) => {
  const box = (element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return { x, y, width, height };
  };
  const image = cell.querySelector("img");
  return {
    cell: box(cell), frame: box(cell.querySelector(".frame")), image: box(image),
    ratio: image.naturalWidth / image.naturalHeight,
  };
})
"""
_SIDES = """
() => { const box = document.querySelector(".grid").getBoundingClientRect(); return [box.left, box.right]; }
"""
_ARE_LOADED = "() => [...document.querySelectorAll('.card img')].every((image) => image.complete && image.naturalWidth)"


def _load_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('.card img').forEach((image) => { image.loading = 'eager'; })")
    page.wait_for_function(_ARE_LOADED)


def _boxes(page: Page) -> list[dict[str, Any]]:
    _load_all(page)
    boxes: list[dict[str, Any]] = page.evaluate(_BOXES)
    return boxes


def _rows(boxes: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    rows: dict[int, list[dict[str, Any]]] = {}
    for box in boxes:
        rows.setdefault(round(box["cell"]["y"]), []).append(box)
    return list(rows.values())


@pytest.mark.parametrize("width", [1440, 900, 420])
def test_rows_are_justified_for_every_resolution(
    width: int, gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    shown = 0
    for number in (1, 2):
        page = open_page(f"{gallery.run_page('formats')}?page={number}", size=(width, 900))
        boxes = _boxes(page)
        shown += len(boxes)
        for box in boxes:
            assert box["image"] == box["frame"], "the image covers its frame"
            assert box["image"]["width"] / box["image"]["height"] == pytest.approx(box["ratio"], rel=0.02)
        left, right = page.evaluate(_SIDES)
        *full, last = _rows(boxes)
        for row in full:
            heights = [box["frame"]["height"] for box in row]
            assert max(heights) - min(heights) <= 2
            assert row[0]["cell"]["x"] == pytest.approx(left, abs=1)
            assert row[-1]["cell"]["x"] + row[-1]["cell"]["width"] == pytest.approx(right, abs=1)
        assert last[-1]["cell"]["x"] + last[-1]["cell"]["width"] <= right + 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"gallery-formats-{width}-{number}")
    assert shown == 78


def test_without_the_script_no_frame_is_empty(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page("about:blank")
    page.route("**/gallery.js", lambda route: route.abort())
    page.goto(gallery.run_page("formats"))
    for box in _boxes(page):
        assert box["image"] == box["frame"]
    screenshot(page, "gallery-without-script")


@pytest.mark.parametrize(("dag", "content_type"), [("catalogue", "image/webp"), ("formats", "image/jpeg")])
def test_page_shows_thumbnails_or_the_images(
    dag: str, content_type: str, gallery: GalleryWorld, open_page: Open
) -> None:
    page = open_page("about:blank")
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if answer.url.endswith("/thumbnail") else None)
    page.goto(gallery.run_page(dag))
    _load_all(page)
    assert {answer.headers["content-type"] for answer in answers} == {content_type}
    assert len(answers) == page.locator(".card img").count()
    if content_type == "image/webp":
        assert sum(len(answer.body()) for answer in answers) < 2_000_000


def test_search_is_in_the_address(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.run_page("catalogue"))
    page.keyboard.press("/")
    page.keyboard.type("galicia")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/first?q=galicia")
    expect(page.get_by_role("status")).to_contain_text("167 of 2,000 images")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Status").select_option("reused")
    page.wait_for_url("**/runs/first?q=galicia&status=reused")
    page.get_by_label("Order").select_option("prompt")
    page.wait_for_url("**/runs/first?q=galicia&sort=prompt&status=reused")
    expect(page.locator(".card")).to_have_count(34)
    screenshot(page, "search")
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("galicia")
    page.locator(".card").nth(1).click()
    page.wait_for_load_state()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**at=2*q=galicia*")
    page.keyboard.press("Escape")
    expect(page.locator(".card").nth(2)).to_be_focused()
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(".card")).to_have_count(60)


@pytest.mark.parametrize("width", [1440, 420])
def test_selected_images_are_compared(
    width: int, gallery: GalleryWorld, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page(gallery.run_page("formats"), color_scheme="dark" if width == 420 else "light", size=(width, 900))
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_hidden()
    page.locator(".card").nth(0).focus()
    page.keyboard.press("x")
    expect(compare).to_be_disabled()
    for number in (1, 2, 3):
        page.locator(".cell").nth(number).hover()
        page.locator(".pick").nth(number).click()
    expect(page.locator("[data-selected]")).to_have_text("4 selected")
    page.locator(".pick").nth(4).click()
    expect(compare).to_be_disabled()
    with page.expect_download() as zipped:
        page.get_by_role("button", name="ZIP").click()
    with ZipFile(zipped.value.path()) as archive:
        assert (archive.testzip(), len(archive.namelist())) == (None, 5)
    page.locator(".pick").nth(4).click()
    screenshot(page, f"gallery-selected-{width}")
    page.keyboard.press("c")
    page.wait_for_url("**/compare?*")
    expect(page.locator(".compare img")).to_have_count(4)
    expect(page.locator(".differs").first).to_contain_text("Prompt")
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"compare-{width}")
    page.keyboard.press("Escape")
    expect(page.locator(".card").first).to_be_focused()


def test_failed_card_says_cause_money_log_and_request(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page("fox_and_friends"))
    cell = page.locator(".cell").filter(has_text="A portrait of somebody famous")
    text = cell.inner_text()
    cause, money, log = text.index("blocked"), text.index("charge"), text.index("Task log")
    assert cause < money < log < text.index("request ")
    cell.get_by_role("link", name="Task log").click()
    page.wait_for_url("**/dags/fox_and_friends/runs/first/tasks/pages/mapped/3*")


def test_task_log_opens_in_airflow_around_the_gallery(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(f"{gallery.url}/dags/fox_and_friends/runs/first")
    page.get_by_role("link", name="Images").click()
    page.frame_locator("iframe[title=Images]").get_by_role("link", name="Task log").first.click()
    page.wait_for_url("**/dags/fox_and_friends/runs/first/tasks/pages/mapped/3*")


def test_arrows_lead_across_the_pages_of_a_run(gallery: GalleryWorld, open_page: Open) -> None:
    page = open_page(gallery.run_page("catalogue"))
    page.locator(".card").nth(59).click()
    expect(page).to_have_title("card-0059")
    page.wait_for_load_state()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_title("card-0060")
    page.reload()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_title("card-0061")
    page.wait_for_load_state()
    page.keyboard.press("Escape")
    expect(page.locator(".card").first).to_contain_text("card-0060")
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.goto(f"{gallery.run_page('catalogue')}?page=34")
    page.locator(".card").last.click()
    expect(page).to_have_title("card-1999")
    expect(page.locator("[data-next]")).to_have_count(0)
    expect(page.locator("[data-previous]")).to_have_count(1)


def test_help_zoom_and_copies(gallery: GalleryWorld, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(gallery.run_page("catalogue", "tasks", "generate"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    screenshot(page, "gallery-help")
    page.keyboard.press("Escape")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".card").first.click()
    expect(page).to_have_title("card-0000")
    page.wait_for_load_state()
    page.keyboard.press("z")
    expect(page.locator("figure.zoomed img")).to_have_js_property("clientWidth", 1024)
    page.keyboard.press("z")
    expect(page.locator("figure.zoomed")).to_have_count(0)
    copies = {
        "prompt": "Travel poster of Savoy, flat colours",
        "seed": "0",
        "S3 address": "s3://gallery/dataset/0.jpeg",
    }
    for name, text in copies.items():
        page.get_by_role("button", name=f"Copy {name}").click()
        page.wait_for_function("(text) => navigator.clipboard.readText().then((copied) => copied === text)", arg=text)


@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("dag", ["fox_and_friends", "catalogue_in_the_making"])
def test_pages_fit_the_window(
    dag: str,
    scheme: Literal["light", "dark"],
    width: int,
    gallery: GalleryWorld,
    open_page: Open,
    screenshot: Screenshot,
) -> None:
    page = open_page(gallery.run_page(dag), color_scheme=scheme, size=(width, 900))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"look-{dag}-{scheme}-{width}")
    page.locator(".card").first.click()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"look-{dag}-image-{scheme}-{width}")
