from __future__ import annotations

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy
import pytest
from PIL import Image, ImageDraw

from airflow_provider_ideogram.api.job import Job
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.api.polling import RequestPoll
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.gates import Rejection, check_gates, is_blank, reject, unusable_gates
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.datasets.settling import settle
from airflow_provider_ideogram.datasets.slice import SliceContext, SliceProgress
from airflow_provider_ideogram.datasets.state import InFlightItem
from airflow_provider_ideogram.emulator.scenery import landscape
from airflow_provider_ideogram.hooks.image import ImageSpool, SpooledImage
from airflow_provider_ideogram.storage.image_record import Completion, ImageRecord
from tests.support import gates
from tests.support.gates import SCRIPTED, forgotten_gates
from tests.unit.datasets.examples import NOW, make_context

if TYPE_CHECKING:
    from airflow_provider_ideogram.storage.target import Target

SIDE = 256
IMAGES = 1_000
__all__ = ["forgotten_gates"]  # the fixture is used in each test


def blank(rng: random.Random) -> Image.Image:
    """Return an image of one colour, with noise, and a little darker at one side."""
    colour = numpy.array([rng.choice([0, 255, rng.randrange(256)]) for _ in range(3)], float)
    noise = numpy.random.default_rng(rng.randrange(1 << 30)).normal(0, rng.uniform(0, 4), (SIDE, SIDE, 3))
    shade = numpy.linspace(0, rng.uniform(0, 4), SIDE)[:, None, None]
    return Image.fromarray((colour + noise - shade).clip(0, 255).astype("uint8"))


def picture(rng: random.Random) -> Image.Image:
    """Return a landscape, a flat one in fog, a night with one lamp, or a small mark on an empty page."""
    kind = rng.randrange(4)
    if kind < 2:
        found = landscape((SIDE, SIDE), rng)
        return found if kind == 0 else found.point(lambda level: 150 + level // 8)
    found = Image.new("RGB", (SIDE, SIDE), rng.choice(["black", "white", "ivory", "navy"]))
    x, y, size = rng.randrange(10, 200), rng.randrange(10, 200), rng.randrange(8, 40)
    ImageDraw.Draw(found).ellipse((x, y, x + size, y + size), fill=(200, 90, 60))
    return found


def compressed(image: Image.Image, rng: random.Random) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randrange(60, 95))
    return file.getvalue()


def is_planted(seed: int, attempt: int) -> bool:
    """Return whether an image is blank: 5 of 100, and of the further attempts every fourth."""
    return seed % 20 == 3 if attempt == 1 else seed % 4 == 0


class Vendor:
    """Makes images, and keeps in memory which are blank and where they are put."""

    def __init__(self) -> None:
        self.rng = random.Random(11)
        self.attempts: dict[str, tuple[int, int]] = {}
        self.blank: dict[str, bool] = {}
        self.placed: dict[str, str] = {}

    def get_result(self, request_id: str) -> Any:
        return SimpleNamespace(image=request_id, inference_seconds=1.0, cost_usd=0.05, remaining_credits=None)

    def download(self, request_id: str) -> SpooledImage:
        rng = random.Random(f"{request_id}")
        self.blank[request_id] = is_planted(*self.attempts[request_id])
        with ImageSpool() as spool:
            spool.write(compressed((blank if self.blank[request_id] else picture)(rng), rng))
            return spool.finish()

    def put(self, job: Job, image: SpooledImage, target: Target, *_: Any, **__: Any) -> ImageRecord:
        self.placed[job.request_id] = target.key
        return ImageRecord.of_upload(job, image, target, {}, Completion(cost_usd=0.05))


def run(context: SliceContext, vendor: Vendor, items: list[Item]) -> list[dict[str, Any]]:
    """Submit and settle all items, as slices do, until each is decided; return their lines."""
    lines: list[dict[str, Any]] = []
    services: Any = context
    services.workspace.write_lines = lambda _, written: lines.extend(written)
    services.hook.get_result, services.hook.download_image = vendor.get_result, vendor.download
    services.store.put = vendor.put
    with ThreadPoolExecutor(2) as pool:
        while items:
            reports = {}
            for item in items:
                request_id = f"r-{len(vendor.attempts)}"
                vendor.attempts[request_id] = item.request.seed or 0, len(item.rejected) + 1
                job = Job(request_id, NOW, item.request, item.request.fingerprint, f"s3://my-bucket/{item.key}")
                context.state.in_flight.append(InFlightItem(item, job))
                poll = RequestPoll(request_id, NOW)
                poll.on_status(RequestStatus("COMPLETED", 1.0), NOW)
                reports[request_id] = poll.report()
            assert settle(context, SliceProgress(), pool, reports) == []
            items, context.state.delayed = [delayed.item for delayed in context.state.delayed], []
    return lines


@pytest.mark.slow
def test_blank_images_are_found_and_paid_is_accepted_or_redone() -> None:
    requests = [GenerationRequest("a lighthouse", seed=number) for number in range(IMAGES)]
    items = [Item(number, f"{number}", request, f"set/{number}") for number, request in enumerate(requests)]
    context, vendor = make_context(gates={"blank": "redo"}, max_attempts=20), Vendor()

    lines = run(context, vendor, items)

    rejected = {attempt["request_id"] for line in lines for attempt in line["rejected_attempts"]}
    planted = {request_id for request_id, is_blank in vendor.blank.items() if is_blank}
    assert len(planted) > 0.05 * IMAGES
    assert len(planted & rejected) >= 0.99 * len(planted)
    assert len(rejected - planted) <= 0.005 * (len(vendor.blank) - len(planted))
    accepted = {line["request_id"] for line in lines}
    assert len(lines) == len(accepted) == context.state.counts[ImageStatus.GENERATED] == IMAGES
    assert accepted | rejected == set(vendor.attempts)
    assert not accepted & rejected
    assert context.state.cost_usd == pytest.approx(0.05 * len(vendor.attempts))
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(context.state.cost_usd)
    assert {request_id for request_id, key in vendor.placed.items() if key.startswith("set/")} == accepted
    assert len(set(vendor.placed.values())) == len(vendor.placed)


def test_seed_of_an_attempt_follows_from_row_and_attempt() -> None:
    item = Item(0, "cat", GenerationRequest("a cat", seed=7), "set/cat")
    attempts = [{"request_id": "r-1"}, {"request_id": "r-2"}]
    second = item.redone(attempts[0])
    third = second.redone(attempts[1])
    assert third == item.redone(attempts[0]).redone(attempts[1])
    others = replace(item, id="dog"), replace(item, request=replace(item.request, seed=8))
    seeds = [each.redone(attempts[0]).request.seed for each in others]
    assert len({7, second.request.seed, third.request.seed, *seeds}) == 5
    assert item.fingerprint == second.fingerprint == third.fingerprint != third.request.fingerprint
    assert Item.from_json(json.loads(json.dumps(third.to_json()))) == third


@pytest.mark.parametrize(
    ("mode", "colours", "expected"),
    [
        ("RGB", ["red", "red"], True),
        ("RGB", ["red", "blue"], False),
        ("L", ["#070707", "#090909"], True),
        ("P", ["red", "blue"], False),
        ("RGBA", [(255, 255, 255, 0), (255, 0, 0, 0)], True),  # nothing is visible
        ("RGBA", [(255, 255, 255, 0), (255, 255, 255, 255)], False),  # a white mark on nothing
    ],
)
def test_blank_is_one_colour_in_every_mode(mode: str, colours: list[Any], expected: bool) -> None:
    image = Image.new("RGBA" if mode == "RGBA" else "RGB", (300, 40), colours[0])
    image.paste(colours[1], (0, 0, 30, 30))
    assert is_blank(image.convert(mode)) is expected


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (True, None),
        (numpy.True_, None),
        (False, Rejection(SCRIPTED, "it returned False", is_redone=True)),
        (numpy.False_, Rejection(SCRIPTED, "it returned False", is_redone=True)),
        ("six\nfingers", Rejection(SCRIPTED, "six fingers", is_redone=True)),
        (OSError("no model"), Rejection(SCRIPTED, f"'{SCRIPTED}' raised OSError: no model", is_error=True)),
    ],
)
def test_verdicts(verdict: Any, expected: Rejection | None) -> None:
    gates.verdicts[:] = [verdict]
    file = io.BytesIO(compressed(picture(random.Random(1)), random.Random(1)))
    assert reject({"blank": "fail", SCRIPTED: "redo"}, file, {"id": "cat"}) == expected
    assert file.tell() == 0


@pytest.mark.parametrize("verdict", [None, 1, 0.5, "", []])
def test_verdict_that_is_none_is_no_acceptance(verdict: Any) -> None:
    gates.verdicts[:] = [verdict]
    file = io.BytesIO(compressed(picture(random.Random(1)), random.Random(1)))
    found = reject({SCRIPTED: "redo"}, file, {})
    assert found is not None
    assert found.is_error
    assert "a gate returns True, False or the reason of a rejection" in found.reason


@pytest.mark.parametrize(
    ("given", "max_attempts", "problem"),
    [
        (["blank"], 3, "gates: must be a mapping of gates to 'fail' or 'redo', not list"),
        ({"blank": "again"}, 3, "gates: blank: 'again' is not valid. Valid are fail, redo"),
        ({"sharp": "fail"}, 3, "'sharp' is neither 'blank' nor the import path of a function"),
        ({is_blank: "fail"}, 3, "is neither 'blank' nor the import path of a function"),
        ({"os.system('x')": "fail"}, 3, "is neither 'blank' nor the import path"),
        ({}, 0, "max_attempts: 0 is not a whole number from 1 to 20"),
        ({}, True, "max_attempts: True is not a whole number"),
    ],
)
def test_gates_are_checked(given: Any, max_attempts: Any, problem: str) -> None:
    [found] = check_gates(given, max_attempts)
    assert problem in found


def test_gates_are_imported_on_the_worker_only() -> None:
    names = {"blank": "fail", SCRIPTED: "redo", "no_such_module.gate": "fail"}
    assert check_gates(names, 3) == []
    [problem] = unusable_gates(names)
    assert "'no_such_module.gate' can't be imported on this worker: ModuleNotFoundError" in problem
