from __future__ import annotations

import inspect
import pickle
import re

import pytest

from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramInvalidInput

KINDS = {
    name: kind for name, kind in vars(exceptions).items() if inspect.isclass(kind) and issubclass(kind, IdeogramError)
}


def test_tree_in_the_docstring_is_the_tree() -> None:
    parents: dict[int, str] = {}
    drawn: dict[str, str | None] = {}
    for line in (exceptions.__doc__ or "").splitlines():
        if found := re.match(r"^    ([ │├└─]*)(Ideogram\w+)", line):
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            drawn[found[2]] = parents.get(depth - 1)
    assert drawn == {
        name: None if kind is IdeogramError else kind.__bases__[0].__name__ for name, kind in KINDS.items()
    }


@pytest.mark.parametrize("name", KINDS)
def test_error_survives_its_way_between_processes(name: str) -> None:
    error = KINDS[name]("what happened")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is KINDS[name]
    assert (str(again), vars(again)) == ("what happened", vars(error))


def test_invalid_input_lists_several_problems() -> None:
    assert str(IdeogramInvalidInput.of(["seed: no"])) == "seed: no. Nothing was sent or charged."
    assert str(IdeogramInvalidInput.of(["Which?"], "Task 'x'")) == "Task 'x': Which? Nothing was sent or charged."
    both = IdeogramInvalidInput.of(["a", "b"], "Task 'x'")
    assert str(both) == "Task 'x': 2 problems. Nothing was sent or charged.\n  - a\n  - b"
    assert both.reason == "Task 'x': a; b"
    assert isinstance(both, ValueError)


def test_reason_has_no_word_about_money() -> None:
    error = exceptions.IdeogramRateLimited("the rate limit is reached", "Nothing was charged. Wait.", retry_after=1.0)
    assert str(error) == "the rate limit is reached. Nothing was charged. Wait."
    assert error.reason == "the rate limit is reached"
    assert IdeogramError("what happened.").reason == "what happened"
    assert IdeogramInvalidInput.of(["seed: no"]).reason == "seed: no"
    assert pickle.loads(pickle.dumps(error)).reason == error.reason


def test_errors_have_the_attributes_of_their_handlers() -> None:
    assert exceptions.IdeogramRateLimited("x", retry_after=7.0).retry_after == 7.0
    assert exceptions.IdeogramServerUnavailable("x").retry_after is None
    assert exceptions.IdeogramTimeout("x", request_id="r-1").request_id == "r-1"
    unreachable = exceptions.job_unreachable("r-1", "no way")
    assert unreachable.request_id == "r-1"
    assert unreachable.reason == "The image of request r-1 can't be fetched or stored: no way"
    assert (unreachable.charged, exceptions.job_unreachable("r-1", "", completed=True).charged) == (None, True)
    assert "is completed and paid" in exceptions.job_unreachable("r-1", "", completed=True).advice
    assert "Request r-1 continues at the vendor" in exceptions.request_continues("r-1")


@pytest.mark.parametrize("name", KINDS)
def test_error_carries_data(name: str) -> None:
    error = KINDS[name]("what happened", "Nothing was charged.", charged=True, request_id="r-1", status_code=500)
    data = (error.reason, error.advice, error.charged, error.request_id, error.status_code)
    assert data == ("what happened", "Nothing was charged.", True, "r-1", 500)
    assert KINDS[name]("x", charged=None).charged is None
    assert KINDS[name]("x").charged is KINDS[name].charged


@pytest.mark.parametrize("name", KINDS)
def test_codes_are_unique(name: str) -> None:
    assert [other for other, kind in KINDS.items() if kind.code == KINDS[name].code] == [name]
