from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.request_id import is_request_id


@pytest.mark.parametrize("request_id", ["a", "0f3c1d2e-1111-4222-8333-444455556666", "req_1.2", "A" * 128])
def test_request_ids(request_id: str) -> None:
    assert is_request_id(request_id)


@pytest.mark.parametrize(
    "value", ["", ".", "..", "-a", "a/b", "a b", "a\n", "a%2f", "é", "A" * 129, None, 7, ["a"], {"a": 1}]
)
def test_what_cannot_stand_in_a_path_is_no_request_id(value: object) -> None:
    assert not is_request_id(value)
