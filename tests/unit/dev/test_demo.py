from __future__ import annotations

import hashlib
import json

import pytest

from dev import demo
from dev.demo import DemoFailed
from dev.demo_report import Console, Progress, image_table
from dev.processes import Processes

KEY = "sg-very-secret"


def an_image(**changes):
    content = b"bytes of an image"
    image = {
        "uri": "s3://bucket/night/lighthouse.png",
        "bucket": "bucket",
        "key": "night/lighthouse.png",
        "request_id": "request-1",
        "content_type": "image/png",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "width": 1024,
        "height": 768,
        "inference_seconds": 12.44,
        "cost_usd": 0.05,
    }
    return image | changes


class Emulator:
    """Stands for an emulator that made one image."""

    def __init__(self, content=b"bytes of an image", charged=("request-1",)):
        self.content = content
        self.charged = charged

    def image(self, request_id, content_type):
        return self.content

    def charged_requests(self):
        return list(self.charged)


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    (tmp_path / "lighthouse.png").write_bytes(b"bytes of an image")
    return tmp_path


@pytest.mark.usefixtures("output")
def test_images_that_were_made_charged_and_stored_once_are_right():
    demo.verify([an_image()], Emulator())
    demo.verify([an_image()], None)


@pytest.mark.parametrize(
    ("image", "emulator", "problem"),
    [
        (an_image(sha256="0" * 64), None, "not what its task reported"),
        (an_image(size_bytes=1), None, "not what its task reported"),
        (an_image(), Emulator(content=b"another"), "not what the emulator made"),
        (an_image(), Emulator(charged=["request-1", "request-2"]), "charged: 2, images: 1"),
    ],
)
@pytest.mark.usefixtures("output")
def test_any_difference_fails_the_demonstration(image, emulator, problem):
    with pytest.raises(DemoFailed, match=problem):
        demo.verify([image], emulator)


def test_the_cost_is_said_before_anything_else(monkeypatch, capsys, output):
    steps = []
    monkeypatch.setenv("SEGMIND_API_KEY", KEY)
    monkeypatch.setattr(demo, "raise_on_stop_signals", lambda: None)
    monkeypatch.setattr(demo.time, "sleep", steps.append)

    def fail(processes, key, console):
        steps.append("start")
        raise DemoFailed(f"401 for {key}")

    monkeypatch.setattr(demo, "start_backends", fail)

    assert demo.main() == 1
    assert steps == [demo.REGRET_SECONDS, "start"]
    printed = capsys.readouterr().out
    assert "SPENDS REAL MONEY,\n6 images x 0.05 USD = 0.30 USD" in printed
    assert "401 for ***" in printed
    assert KEY not in printed


def test_an_interrupt_is_told_from_a_failure(monkeypatch, capsys, output):
    monkeypatch.delenv("SEGMIND_API_KEY", raising=False)
    monkeypatch.setattr(demo, "raise_on_stop_signals", lambda: None)

    def interrupt(processes, key, console):
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(demo, "start_backends", interrupt)

    assert demo.main() == 130
    assert "Stopped (SIGTERM)" in capsys.readouterr().out


def test_the_real_backends_take_the_environments_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("S3_BUCKET", "my-bucket")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    with Processes(tmp_path) as processes:
        backends = demo.start_backends(processes, KEY, Console(KEY))

    assert backends.emulator is None
    assert json.loads(backends.environment["AIRFLOW_CONN_IDEOGRAM_DEFAULT"])["password"] == KEY
    assert backends.environment["AIRFLOW_VAR_IDEOGRAM_BUCKET"] == "my-bucket"
    assert backends.environment["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert list(tmp_path.iterdir()) == []


def test_the_local_backends_are_reached_without_a_key(tmp_path):
    with Processes(tmp_path) as processes:
        backends = demo.start_backends(processes, "", Console(""))
        buckets = [bucket["Name"] for bucket in backends.s3.list_buckets()["Buckets"]]
        charged = backends.emulator.charged_requests()
        backends.s3.close()

    assert buckets == [backends.environment["AIRFLOW_VAR_IDEOGRAM_BUCKET"]]
    assert charged == []
    assert "SEGMIND_API_KEY" not in backends.environment


def test_progress_shows_each_change_of_state_once(capsys):
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


def test_the_table_shows_place_time_cost_and_total():
    table = image_table([an_image(), an_image(cost_usd=None, inference_seconds=None)]).splitlines()

    assert table[1].split() == ["s3://bucket/night/lighthouse.png", "12.4", "0.05", "1024x768", "0"]
    assert table[2].split()[1:3] == ["unknown", "unknown"]
    assert table[3].split() == ["total", "of", "2", "images", "0.05"]
