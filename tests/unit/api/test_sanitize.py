from __future__ import annotations

from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from tests.support.hostile import KEY


def test_redactor_shows_no_secret() -> None:
    assert KEY not in repr(Redactor(KEY))


def test_redactor_replaces_the_key_in_any_case() -> None:
    assert Redactor(KEY).text(f"a {KEY} b {KEY.lower()} c") == "a *** b *** c"
    assert Redactor().text("a b") == "a b"


def test_text_is_redacted_before_it_is_shortened() -> None:
    assert sanitize_text("x" * 290 + KEY, Redactor(KEY)) == "x" * 290 + "***"
