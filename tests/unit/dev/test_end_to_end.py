from __future__ import annotations

import hashlib
import io

import pytest

from dev import end_to_end
from dev.end_to_end import EndToEndFailed

GENERATED = len(end_to_end.ROWS)
KEYS = [f"images/{number}.png" for number in range(end_to_end.IMAGES)]


def content(key):
    return f"bytes of {key}".encode()


class S3:
    """Stands for a store in which each image is."""

    def __init__(self, ledger=()):
        self.ledger = ledger

    def get_object(self, Bucket, Key):  # noqa: N803 - as boto3 has them
        return {"Body": io.BytesIO(b"" if Key.endswith("manifest.jsonl") else content(Key))}

    def list_objects_v2(self, Bucket, Prefix):  # noqa: N803
        return {"Contents": [{"Key": key} for key in self.ledger]} if self.ledger else {}


class Emulator:
    """Stands for an emulator that made each image, and a job that failed."""

    def __init__(self, charged=(*KEYS, "failed"), bytes_of=content):
        self.charged = charged
        self.bytes_of = bytes_of

    def image(self, request_id, content_type):
        return self.bytes_of(request_id)

    def charged_requests(self):
        return list(self.charged)


def report(keys=KEYS, generated=GENERATED, **changes):
    images = [
        {"key": key, "request_id": key, "content_type": "image/png", "sha256": hashlib.sha256(content(key)).hexdigest()}
        | changes
        for key in keys
    ]
    return {"images": images, "summary": {"generated": generated}}


def test_what_is_in_all_books_alike_is_right():
    end_to_end.compare(report(), S3(), Emulator())


@pytest.mark.parametrize(
    ("told", "s3", "emulator", "problem"),
    [
        (report(KEYS[1:]), S3(), Emulator(), "8 images"),
        (report(generated=2), S3(), Emulator(), "of the dataset {'generated': 2}"),
        (report(sha256="0"), S3(), Emulator(), "not what its task reported"),
        (report(), S3(), Emulator(bytes_of=lambda _: b"another"), "not what the emulator made"),
        (report(), S3(), Emulator(charged=KEYS), "9 charges"),
        (report(), S3(), Emulator(charged=[*KEYS[1:], "a", "b"]), "10 charges, not one for each image"),
        (report(), S3(ledger=["_ideogram/x"]), Emulator(), r"the ledger is not empty: \['_ideogram/x'\]"),
    ],
)
def test_any_difference_is_a_failure(told, s3, emulator, problem):
    with pytest.raises(EndToEndFailed, match=problem):
        end_to_end.compare(told, s3, emulator)
