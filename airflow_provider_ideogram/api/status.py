"""The status of an image, the same in manifest, XCom, metrics and UI. Imports nothing heavy: DAG files load it."""

from __future__ import annotations

from enum import StrEnum


class ImageStatus(StrEnum):
    """The status of a dataset's item or of a single image."""

    GENERATED = "generated"
    REUSED = "reused"
    CONTENT_BLOCKED = "content_blocked"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"

    @classmethod
    def of_error(cls, code: str | None) -> ImageStatus:
        """Return the status of an image that ended with an error, by the error's code."""
        return cls(code) if code in (cls.CONTENT_BLOCKED, cls.REJECTED, cls.EXPIRED) else cls.FAILED
