from __future__ import annotations

from airflow_provider_ideogram.datasets.slice import SliceProgress


def test_many_items_of_one_kind_are_one_line() -> None:
    progress = SliceProgress()
    for number in range(50):
        progress.notes.append(("submit_failed", f"item-{number}: 502"))
    progress.notes.append(("rate_limited", "item-50: 429"))

    assert progress.summary() == ["item-0: 502 (50 such items)", "item-50: 429"]
