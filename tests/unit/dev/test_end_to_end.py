from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from dev import end_to_end
from dev.emulator_server import EmulatorServer
from dev.end_to_end import EndToEndFailed

GENERATED = len(end_to_end.ROWS)
KEYS = [f"images/{number}.png" for number in range(end_to_end.IMAGES)]


def _content(key: str) -> bytes:
    return f"bytes of {key}".encode()


class _S3:
    """A store that has each image, and these keys in the ledger."""

    def __init__(self, ledger: Sequence[str] = ()) -> None:
        self.ledger = ledger

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Body": io.BytesIO(b"" if Key.endswith("manifest.jsonl") else _content(Key))}

    def list_objects_v2(self, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803
        return {"Contents": [{"Key": key} for key in self.ledger]} if self.ledger else {}


class _Emulator:
    """An emulator with these charges and images."""

    def __init__(self, charged: Sequence[str] = KEYS, content: Callable[[str], bytes] = _content) -> None:
        self.charged = charged
        self.content = content

    def image(self, request_id: str, content_type: str) -> bytes:
        return self.content(request_id)

    def charged_requests(self) -> list[str]:
        return list(self.charged)


def _report(keys: Sequence[str] = KEYS, generated: int = GENERATED, **changes: str) -> dict[str, Any]:
    images = [
        {
            "key": key,
            "request_id": key,
            "content_type": "image/png",
            "sha256": hashlib.sha256(_content(key)).hexdigest(),
        }
        | changes
        for key in keys
    ]
    return {"images": images, "summary": {"generated": generated}}


def _compare(report: dict[str, Any], s3: _S3, emulator: _Emulator) -> None:
    end_to_end.compare(report, cast("Any", s3), cast("EmulatorServer", emulator))


def test_equal_results_pass() -> None:
    _compare(_report(), _S3(), _Emulator())


@pytest.mark.parametrize(
    ("report", "s3", "emulator", "problem"),
    [
        (_report(KEYS[1:]), _S3(), _Emulator(), "8 images"),
        (_report(generated=2), _S3(), _Emulator(), "the dataset's summary is {'generated': 2}"),
        (_report(sha256="0"), _S3(), _Emulator(), "differs from what its task reported"),
        (_report(), _S3(), _Emulator(content=lambda _: b"another"), "differs from the image that the emulator made"),
        (_report(), _S3(), _Emulator([*KEYS, "failed"]), "10 charges, not one for each image"),
        (_report(), _S3(), _Emulator([*KEYS[1:], "a"]), "9 charges, not one for each image"),
        (_report(), _S3(ledger=["_ideogram/x"]), _Emulator(), r"the ledger is not empty: \['_ideogram/x'\]"),
    ],
)
def test_each_difference_fails(report: dict[str, Any], s3: _S3, emulator: _Emulator, problem: str) -> None:
    with pytest.raises(EndToEndFailed, match=problem):
        _compare(report, s3, emulator)
