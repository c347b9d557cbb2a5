"""
What an image costs by the vendor's published prices: an estimate before the fact.

Invariant: the true cost is in the response of the completed request; nothing here replaces it where that is known.
"""

from __future__ import annotations

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL

#: USD an image: the price of the default model, and the vendor's averages of August 2026 for its sister models.
LIST_PRICES = {
    DEFAULT_MODEL: 0.05,
    "ideogram-2a-img-2-img": 0.05,
    "ideogram-turbo-txt-2-img": 0.063,
    "ideogram-txt-2-img": 0.10,
    "ideogram-3": 0.065,
    "ideogram-3-remix": 0.075,
    "ideogram-3-reframe": 0.042,
    "ideogram-4": 0.111,
    "ideogram-4-fast": 0.075,
}


def list_price(model: str = DEFAULT_MODEL) -> float | None:
    """Return the estimated price of an image in USD, None for a model without a published price."""
    return LIST_PRICES.get(model)
