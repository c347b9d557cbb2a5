"""
The form of the vendor's request ids.

Invariant: a valid id can be used in the API's paths and in S3 keys unchanged. Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

import re

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_request_id(value: object) -> bool:
    """Return whether the value has the form of a request id."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None
