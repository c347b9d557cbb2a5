from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api.request_id import is_request_id
from tests.support import hostile


@pytest.mark.parametrize("request_id", ["a", "0f3c1d2e-1111-4222-8333-444455556666", "req_1.2", "A" * 128])
def test_request_ids(request_id: str) -> None:
    assert is_request_id(request_id)


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "../a",
            "a\\b",
            "a b",
            "a\n",
            "a\0",
            "a%2f",
            "a?b",
            "a#b",
            "a;b",
            "a:b",
            "é",
            "\uff41",
        ],
        *["a\u200b", "a\u202e", "a\x1b[31m", "{{a}}", "A" * 129, None, 7, ["a"], {"a": 1}],
    ],
)
def test_value_that_a_path_cannot_hold_is_no_request_id(value: object) -> None:
    assert not is_request_id(value)


@given(st.from_regex(r"[A-Za-z0-9._/%\\-]{0,130}", fullmatch=True) | st.text())
def test_request_id_can_stand_in_an_address_and_in_a_key(value: str) -> None:
    if is_request_id(value):
        hostile.check_request_id(value)
