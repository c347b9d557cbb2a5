"""The emulated models."""

from __future__ import annotations

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL

#: USD per request: the vendor's averages of August 2026.
VENDOR_PRICES = {
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
