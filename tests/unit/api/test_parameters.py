from __future__ import annotations

import json
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ideogram.api import parameters
from airflow_provider_ideogram.api.parameters import (
    MAGIC_PROMPT_OPTIONS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    RESOLUTIONS,
    STYLE_TYPES,
    GenerationRequest,
)
from airflow_provider_ideogram.api.values import MISSING_TEXTS
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput


def test_all_resolutions_of_the_model_are_there() -> None:
    assert len(RESOLUTIONS) == len(set(RESOLUTIONS)) == 78
    assert {"RESOLUTION_512_1536", "RESOLUTION_1024_1024", "RESOLUTION_1536_640"} <= set(RESOLUTIONS)


@pytest.mark.parametrize("name", RESOLUTIONS)
def test_resolution_is_taken_in_both_spellings(name: str) -> None:
    _, width, height = name.split("_")
    for spelling in (name, f"{width}x{height}", f" {width} X {height} ", f"{width}\u00d7{height}"):
        assert GenerationRequest("a cat", resolution=spelling).resolution == name


@pytest.mark.parametrize("name", [None, *MAGIC_PROMPT_OPTIONS])
def test_magic_prompt_options(name: str | None) -> None:
    assert GenerationRequest("a cat", magic_prompt_option=name).magic_prompt_option == name


@pytest.mark.parametrize("name", [None, *STYLE_TYPES])
def test_style_types(name: str | None) -> None:
    assert GenerationRequest("a cat", style_type=name).style_type == name


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Table:
    """Refuses comparison and truth as a DataFrame does."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("resolution", "RESOLUTION_1024_1O24", "Did you mean 'RESOLUTION_1024_1024'?"),
        ("resolution", "resolution_512_1536", "Did you mean 'RESOLUTION_512_1536'?"),
        ("resolution", "1020x1020", "The nearest is 1024x1024"),
        ("resolution", "99999x1", "The nearest is 1536x512"),
        ("resolution", 1024, "must be text, not int"),
        ("resolution", "~", "Valid are RESOLUTION_512_1536"),
        ("magic_prompt_option", "auto", "Did you mean 'AUTO'?"),
        ("magic_prompt_option", True, "must be text, not bool"),
        ("style_type", "Realistik", "Did you mean 'REALISTIC'?"),
        ("style_type", "RENDER3D", "Did you mean 'RENDER_3D'?"),
        ("style_type", "~", "Valid are GENERAL, REALISTIC, DESIGN, RENDER_3D, ANIME"),
        ("seed", -1, "-1 is not within 0..2147483647"),
        ("seed", MAX_SEED + 1, "is not within"),
        ("seed", True, "True is not an integer"),
        ("seed", 1.5, "1.5 is not an integer"),
        ("seed", "1.5", "'1.5' is not an integer"),
        ("seed", float("inf"), "inf is not an integer"),
        ("seed", 10**100, "… is not within"),
        ("seed", Table(), "a value of type Table is not an integer"),
        ("seed", "seven", "'seven' is not an integer"),
        ("prompt", "", "must not be empty"),
        ("prompt", " \n\t", "must not be empty"),
        ("prompt", None, "must be text, not NoneType"),
        ("prompt", "None", "is 'None', which a template renders for a missing value"),
        ("prompt", " nan\n", "which a template renders for a missing value"),
        ("prompt", "<NA>", "which a template renders for a missing value"),
        ("prompt", Table(), "must be text, not Table"),
        ("prompt", "x" * (MAX_PROMPT_CHARACTERS + 1), "has 10,001 characters, at most 10,000 are sent"),
        ("prompt", "a \ud83d cat", "lone surrogate"),
        ("prompt", "a \0 cat", "holds a NUL character"),
        ("model", "", "is not a model's slug, such as 'ideogram-2a-txt-2-img'"),
        ("model", "../v1/other", "is not a model's slug"),
        ("model", "a/b", "is not a model's slug"),
        ("model", None, "is not a model's slug"),
        ("model", Table(), "a value of type Table is not a model's slug"),
        ("resolution", Table(), "must be text, not Table"),
        ("resolution", "RESOLUTION_832_1217", "The nearest is RESOLUTION_832_1216"),
        ("resolution", "832x1217", "The nearest is 832x1216"),
        ("model_params", [], "must be a mapping"),
        ("model_params", Table(), "must be a mapping"),
        ("model_params", {1: 2}, "must be a mapping of parameter names"),
        ("model_params", {"seed": 1, "prompt": "x"}, "prompt, seed must be given as parameters of their own"),
        ("model_params", {"x": object()}, "cannot be sent as JSON"),
        ("model_params", {"x": float("nan")}, "cannot be sent as JSON"),
        ("model_params", {"x": {1: 2, "b": 3}}, "the name 1 is no text"),
        ("model_params", {"x": [({None: 2},)]}, "the name None is no text"),
        ("model_params", {"x": "\ud800"}, "surrogates not allowed"),
        ("model_params", {"\ud800": 1}, "surrogates not allowed"),
        ("model_params", {"x": _nested(100_000)}, "cannot be sent as JSON"),
    ],
)
def test_problem_names_the_value_and_the_nearest_valid_one(name: str, value: Any, said: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        GenerationRequest(**{"prompt": "a cat", name: value})
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")
    assert "Nothing was sent or charged" in str(caught.value)


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        GenerationRequest("", "MAYBE", "1x1", "CUBISM", -1, "/", {"seed": 1})
    message = str(caught.value)
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [f"  - {name}" for name in parameters.CHECKS]


@pytest.mark.parametrize(
    ("given_seed", "seed"),
    [
        *((missing, None) for missing in (None, "", "None", "nan", "<NA>", float("nan"), Decimal("NaN"))),
        *((seven, 7) for seven in (7, "7", " 7 ", "7.0", 7.0, Decimal(7), Decimal("7.00"), Fraction(7))),
        (0, 0),
        (MAX_SEED, MAX_SEED),
    ],
)
def test_seed_is_taken_as_templates_and_tables_write_it(given_seed: Any, seed: int | None) -> None:
    assert GenerationRequest("a cat", seed=given_seed).seed == seed


@pytest.mark.parametrize("prompt", ["x" * MAX_PROMPT_CHARACTERS, " a\ncat ", "猫 🐈"])
def test_prompt_is_sent_unchanged(prompt: str) -> None:
    assert GenerationRequest(prompt).body()["prompt"] == prompt


def test_body_has_set_parameters_and_those_of_the_model() -> None:
    request = GenerationRequest("a cat", None, "1024x768", None, 7, "sister", {"guidance": 3})
    assert request.body() == {"prompt": "a cat", "resolution": "RESOLUTION_1024_768", "seed": 7, "guidance": 3}
    assert GenerationRequest("a cat", model_params=None).body() == {  # type: ignore[arg-type]
        "prompt": "a cat",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1024_1024",
        "style_type": "GENERAL",
    }


@pytest.mark.parametrize("model", ["ideogram-3-txt-2-img", "ideogram-4"])
def test_later_models_receive_a_resolution_as_a_size(model: str) -> None:
    request = GenerationRequest("a cat", resolution="RESOLUTION_1024_768", model=model)
    assert request.body()["resolution"] == "1024x768"


def test_model_params_are_not_those_of_the_caller() -> None:
    given_params = {"guidance": 3}
    request = GenerationRequest("a cat", model_params=given_params)
    given_params["guidance"] = 4
    assert request.body()["guidance"] == 3


def test_seed_is_drawn_from_the_whole_range_of_the_page() -> None:
    rng = random.Random(1)
    drawn = {GenerationRequest("a cat").with_seed(rng).seed for _ in range(500)}
    assert len(drawn) > 490
    assert all(seed is not None and 100 <= seed <= 999_999 for seed in drawn)
    assert max(seed or 0 for seed in drawn) > 900_000
    request = GenerationRequest("a cat", seed=0)
    assert request.with_seed(rng) is request


# An object made by an earlier version is reused by a later one only as long as these stay what they are.
@pytest.mark.parametrize(
    ("request_", "fingerprint"),
    [
        (
            GenerationRequest("a cat"),
            "9630db135b2a63dda206facf08837109a0ce966520214a4dc3e7b369d9f5c05d",
        ),
        (
            GenerationRequest(
                "eine Katze \u2013 猫", "OFF", "1536x640", "ANIME", 42, "ideogram-3-txt-2-img", {"b": [1], "a": 0.5}
            ),
            "0caf9001ac3d8eb74f6fe5733f5c32403ce4ace523bc8bed65ca90a563ce12c4",
        ),
    ],
)
def test_fingerprint_is_stable_across_versions(request_: GenerationRequest, fingerprint: str) -> None:
    assert request_.fingerprint == fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a cat "},
        {"magic_prompt_option": "ON"},
        {"resolution": "1024x960"},
        {"style_type": None},
        {"seed": 8},
        {"seed": None},
        {"model": "sister"},
        {"model_params": {"a": 1, "b": 3}},
        {"model_params": {}},
    ],
)
def test_fingerprint_depends_on_every_input(other: dict[str, Any]) -> None:
    inputs: dict[str, Any] = {"prompt": "a cat", "seed": 7, "model_params": {"a": 1, "b": 2}}
    assert GenerationRequest(**inputs).fingerprint != GenerationRequest(**{**inputs, **other}).fingerprint


def test_fingerprint_is_of_the_meaning_not_of_the_spelling() -> None:
    one = GenerationRequest("a cat", resolution="512x1536", seed=7, model_params={"a": 1, "b": 2})
    other = GenerationRequest("a cat", resolution="RESOLUTION_512_1536", seed="7", model_params={"b": 2, "a": 1})  # type: ignore[arg-type]
    assert one.fingerprint == other.fingerprint


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé猫"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz"), inner, max_size=3),
    max_leaves=6,
)


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
        lambda text: text.strip() not in ("", *MISSING_TEXTS)
    ),
    resolution=st.none() | st.sampled_from(RESOLUTIONS),
    seed=st.none() | st.integers(0, MAX_SEED),
    model_params=st.dictionaries(st.text("pqr", min_size=1), _json, max_size=3),
)
def test_inputs_survive_json(
    prompt: str, resolution: str | None, seed: int | None, model_params: dict[str, Any]
) -> None:
    request = GenerationRequest(prompt, resolution=resolution, seed=seed, model_params=model_params)
    again = GenerationRequest.from_inputs(json.loads(json.dumps(request.inputs())))
    assert again == request
    assert again.fingerprint == request.fingerprint
