from __future__ import annotations

import pytest

from airflow_provider_ideogram.api.prices import list_price


@pytest.mark.parametrize(
    ("model", "price"), [("ideogram-2a-txt-2-img", 0.05), ("ideogram-4", 0.111), ("ideogram-3-txt-2-img", None)]
)
def test_list_price(model: str, price: float | None) -> None:
    assert list_price(model) == price
