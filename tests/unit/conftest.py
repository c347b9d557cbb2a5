"""The mark `slow` of unit tests that use the S3 server."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest selects the tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the S3 server: a call takes ten milliseconds, and a test makes many."""
    for item in items:
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
