"""The table of S3 stores in the documentation."""

from __future__ import annotations

import pytest

from dev.run_info import commit_and_date
from dev.s3_server import S3Server
from dev.s3_stores import BEGIN, DOCUMENT, END, HEADER, STORES, Features, _version, _with_table, features_of


def test_table_is_replaced_and_the_rest_is_kept() -> None:
    document = f"before\n{BEGIN}\n\n| an old row |\n\n{END}\nafter\n"
    row = ("moto", "yes", "yes", "lower", "5 passed, 0 failed")

    written = _with_table(document, [row])

    assert written.startswith(f"before\n{BEGIN}\n\n| {' | '.join(HEADER)} |\n")
    assert written.endswith(f"| {' | '.join(row)} |\n\nPackage of commit {commit_and_date()}.\n\n{END}\nafter\n")
    assert "an old row" not in written
    assert _with_table(written, [row]) == written


@pytest.mark.parametrize("name", STORES)
def test_documented_store_is_the_pinned_version(name: str) -> None:
    _, packages = STORES[name]
    title = ", ".join([name, *(f"{package} {_version(package)}" for package in packages)])
    [row] = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {title} |")]
    assert row.endswith(" passed, 0 failed |")


def test_features_are_those_of_the_server(s3_server: str) -> None:
    assert features_of(S3Server(s3_server)) == Features(True, True, "lower")
