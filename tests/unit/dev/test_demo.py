from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from dev import demo
from dev.demo import DemoFailed
from dev.demo_report import Console, Progress, image_table
from dev.emulator_server import EmulatorServer
from dev.processes import Processes
from tests.support.photo import encoded

KEY = "sg-very-secret"
CONTENT = b"bytes of an image"
#: Colour and compression: the first two images have the same pixels.
MADE = [("red", 1), ("red", 0), ("blue", 1)]


def _image(**changes: Any) -> dict[str, Any]:
    image = {
        "uri": "s3://bucket/night/lighthouse.png",
        "bucket": "bucket",
        "key": "night/lighthouse.png",
        "request_id": "request-1",
        "content_type": "image/png",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "size_bytes": len(CONTENT),
        "width": 1024,
        "height": 768,
        "inference_seconds": 12.44,
        "cost_usd": 0.05,
    }
    return image | changes


class _Emulator:
    """An emulator with one image and these charges."""

    def __init__(self, content: bytes = CONTENT, charged: Sequence[str] = ("request-1",)) -> None:
        self.content = content
        self.charged = charged

    def image(self, request_id: str, content_type: str) -> bytes:
        return self.content

    def charged_requests(self) -> list[str]:
        return list(self.charged)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    (tmp_path / "lighthouse.png").write_bytes(CONTENT)
    return tmp_path


def test_marked_image_is_compared_by_its_pixels(output: Path) -> None:
    files = [encoded(Image.new("RGB", (9, 9), colour), "PNG", compress_level=level) for colour, level in MADE]
    made, marked, other = files
    (output / "lighthouse.png").write_bytes(marked)
    image = _image(sha256=hashlib.sha256(marked).hexdigest(), size_bytes=len(marked), provenance="xmp")
    demo.verify([image], cast("EmulatorServer", _Emulator(made)))
    with pytest.raises(DemoFailed, match="differs from the image that the emulator made"):
        demo.verify([image], cast("EmulatorServer", _Emulator(other)))


@pytest.mark.usefixtures("output")
def test_images_with_one_charge_each_pass() -> None:
    demo.verify([_image()], cast("EmulatorServer", _Emulator()))
    demo.verify([_image()], None)


@pytest.mark.parametrize(
    ("image", "emulator", "problem"),
    [
        (_image(sha256="0" * 64), None, "differs from what its task reported"),
        (_image(size_bytes=1), None, "differs from what its task reported"),
        (_image(), _Emulator(content=b"another"), "differs from the image that the emulator made"),
        (_image(), _Emulator(charged=["request-1", "request-2"]), "2 charges for 1 images"),
    ],
)
@pytest.mark.usefixtures("output")
def test_each_difference_fails_the_demonstration(
    image: dict[str, Any], emulator: _Emulator | None, problem: str
) -> None:
    with pytest.raises(DemoFailed, match=problem):
        demo.verify([image], cast("EmulatorServer | None", emulator))


@pytest.mark.usefixtures("output")
def test_cost_is_printed_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[Any] = []
    monkeypatch.setenv("SEGMIND_API_KEY", KEY)
    monkeypatch.setattr(demo, "raise_on_stop_signals", lambda: None)
    monkeypatch.setattr(time, "sleep", steps.append)

    def fail(processes: Processes, key: str, console: Console) -> None:
        steps.append("start")
        raise DemoFailed(f"401 for {key}")

    monkeypatch.setattr(demo, "start_backends", fail)

    assert demo.main() == 1
    assert steps == [demo.CANCEL_SECONDS, "start"]
    printed = capsys.readouterr().out
    assert "SPENDS REAL MONEY,\nabout 6 images x 0.05 USD = 0.30 USD" in printed
    assert "401 for ***" in printed
    assert KEY not in printed


@pytest.mark.usefixtures("output")
def test_interrupt_is_not_reported_as_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SEGMIND_API_KEY", raising=False)
    monkeypatch.setattr(demo, "raise_on_stop_signals", lambda: None)

    def interrupt(processes: Processes, key: str, console: Console) -> None:
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(demo, "start_backends", interrupt)

    assert demo.main() == 130
    assert "Stopped (SIGTERM)" in capsys.readouterr().out


def test_real_backends_use_the_environments_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_BUCKET", "my-bucket")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    with Processes(tmp_path) as processes:
        backends = demo.start_backends(processes, KEY, Console(KEY))

    assert backends.emulator is None
    assert json.loads(backends.environment["AIRFLOW_CONN_IDEOGRAM_DEFAULT"])["password"] == KEY
    assert backends.environment["AIRFLOW_VAR_IDEOGRAM_BUCKET"] == "my-bucket"
    assert backends.environment["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_local_backends_need_no_key(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        backends = demo.start_backends(processes, "", Console(""))
        assert backends.emulator is not None
        buckets = [bucket["Name"] for bucket in backends.s3.list_buckets()["Buckets"]]
        charged = backends.emulator.charged_requests()
        backends.s3.close()

    assert buckets == [backends.environment["AIRFLOW_VAR_IDEOGRAM_BUCKET"]]
    assert charged == []
    assert "SEGMIND_API_KEY" not in backends.environment


def test_progress_shows_each_change_of_state_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Console(""))
    for state in (None, "queued", "queued", "deferred"):
        progress.show(
            [
                {"task_id": "generate", "map_index": 3, "state": state},
                {"task_id": "make_contact_sheet", "map_index": -1, "state": None},
            ]
        )

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines] == [["generate[3]", "queued"], ["generate[3]", "deferred"]]


def test_table_shows_address_time_cost_and_total() -> None:
    table = image_table([_image(), _image(cost_usd=None, inference_seconds=None)]).splitlines()

    assert table[1].split() == ["s3://bucket/night/lighthouse.png", "12.4", "0.05", "1024x768", "0"]
    assert table[2].split()[1:3] == ["unknown", "unknown"]
    assert table[3].split() == ["total", "of", "2", "images", "0.05"]
