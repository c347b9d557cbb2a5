from __future__ import annotations

import json

import pytest

from airflow_provider_ideogram.reviews.review import UNDO_SECONDS, DecisionRefused, Review, ReviewClosed
from tests.unit.reviews.examples import at, entry, review


def test_state_is_read_as_it_was_written() -> None:
    written = review(write_args={"ServerSideEncryption": "AES256"}, entries=[entry("a", "redo", "bluer")])
    assert Review.from_json(json.loads(json.dumps(written.to_json()))) == written


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"entries": [1]},
        {"entries": None},
        {"entries": [{"image": ["a"], "decision": "approve", "note": None, "by": "x", "at": "2026-11-26"}]},
        {"entries": [{"image": "a", "decision": "approve", "note": None, "by": "x", "at": "yesterday"}]},
        {"images": 7},
        {"images": [["a"]]},
        {"deadline": "soon"},
        {"more": 1},
    ],
    ids=str,
)
def test_other_forms_are_errors(changes: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        Review.from_json(review().to_json() | changes)


def test_last_decision_counts_and_each_stays_on_record() -> None:
    found = review()
    assert found.add([entry("a", "approve"), entry("b", "reject")])
    assert found.add([entry("a", "reject", by="bob"), entry("b", None)])
    assert [(one.image, one.decision, one.by) for one in found.entries] == [
        ("a", "approve", "alice"), ("b", "reject", "alice"), ("a", "reject", "bob"), ("b", None, "alice"),
    ]  # fmt: skip
    assert {image: one.by for image, one in found.decisions().items()} == {"a": "bob"}
    assert found.counts() == {"approved": 0, "rejected": 1, "redo": 0, "undecided": 2}


def test_decision_that_stands_is_not_added_again() -> None:
    found = review(entries=[entry("a", "approve")])
    assert not found.add([entry("a", "approve", second=9), entry("b", None)])
    assert found.add([entry("a", "approve", "lovely")])
    assert found.add([entry("a", "approve", "lovely", by="bob")])
    assert len(found.entries) == 3


@pytest.mark.parametrize(("image", "decision", "why"), [("x", "approve", "not in this"), ("a", "redo", "made again")])
def test_what_is_not_possible_is_refused(image: str, decision: str, why: str) -> None:
    with pytest.raises(DecisionRefused, match=why):
        review(allow_redo=False).add([entry(image, decision)])


def test_closed_review_takes_no_decision() -> None:
    with pytest.raises(ReviewClosed):
        review(closed_at=at(5)).add([entry("a", "approve")])


def test_last_decision_can_be_undone_before_the_end() -> None:
    found = review("a", "b", entries=[entry("a", "approve"), entry("b", "reject", second=10)])
    assert not found.is_finished(at(10 + UNDO_SECONDS - 1))
    assert found.is_finished(at(10 + UNDO_SECONDS))
    found.add([entry("b", None, second=12)])
    assert not found.is_finished(at(100))


def test_person_ends_it_with_undecided_images() -> None:
    found = review(finished_by="alice")
    assert found.is_finished(at(1))
    assert found.close(at(1))
    assert not found.timed_out
    assert not found.close(at(2))


def test_deadline_closes_it() -> None:
    found = review(entries=[entry("a", "approve")])
    assert not found.close(at(3599))
    assert found.close(at(3600))
    assert found.timed_out


def test_decision_in_the_last_seconds_is_in_time() -> None:
    found = review("a", entries=[entry("a", "approve", second=3599)])
    assert found.close(at(3600))
    assert not found.timed_out


def test_review_that_is_opened_again_waits_for_a_person() -> None:
    found = review("a", "b", entries=[entry("a", "approve"), entry("b", "reject")], closed_at=at(60), timed_out=True)
    found.reopen(["a", "c"], "second", at(100), at(200))
    assert found.counts() == {"approved": 1, "rejected": 0, "redo": 0, "undecided": 1}
    found.reopen(["a"], "third", at(100), at(200))
    assert not found.is_finished(at(190))
    found.add([entry("a", "reject", second=120)])
    assert found.is_finished(at(190))
