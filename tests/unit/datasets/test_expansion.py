from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from airflow_provider_ideogram.datasets import rows as rows_module
from airflow_provider_ideogram.datasets.expansion import Expansion, check_expansion
from airflow_provider_ideogram.datasets.rows import Item, RowChecker
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import Target

STYLES = ["DESIGN", "REALISTIC"]
SIZES = ["1024x1024", "832x1216"]


def expand(rows: Iterable[Any], variants: int | None = None, matrix: Any = None, **options: Any) -> list[Item]:
    expansion = Expansion(variants, matrix)
    defaults = options.pop("defaults", {})
    checker = RowChecker(defaults, Target("b", "day/"), options.pop("template", "{id}"), expansion=expansion, **options)
    items = list(checker.items((f"row {number}", row) for number, row in enumerate(rows)))
    assert checker.problems == []
    assert [item.row for item in items] == list(range(checker.images))
    return items


def test_variants_have_ids_and_distinct_seeds_that_stay() -> None:
    rows = [{"id": "mug", "prompt": "a mug"}, "a cat"]
    two, four = expand(rows, 2), expand(rows, 4)

    assert [item.id for item in four[:4]] == ["mug-1", "mug-2", "mug-3", "mug-4"]
    assert four[4].id.endswith("-1")
    assert len({item.request.seed for item in four[:4]}) == 4
    assert [item.request for item in two] == [item.request for item in (*four[:2], *four[4:6])]
    assert [item.key for item in two] == [item.key for item in (*four[:2], *four[4:6])]


def test_seeds_of_variants_follow_the_inputs() -> None:
    first, other, renamed = expand(
        [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}, {"id": "c", "prompt": "x"}], 1
    )
    assert first.request.seed != other.request.seed
    assert first.request.seed == renamed.request.seed


@pytest.mark.parametrize(("seed", "seeds"), [(7, [7, 8, 9]), (2**31 - 2, [2**31 - 2, 2**31 - 1, 0])])
def test_variants_count_from_a_given_seed(seed: int, seeds: list[int]) -> None:
    assert [item.request.seed for item in expand([{"prompt": "x", "seed": seed}], 3)] == seeds
    assert [item.request.seed for item in expand(["x"], 3, defaults={"seed": seed})] == seeds


def test_variants_have_distinct_seeds() -> None:
    assert len({item.request.seed for item in expand(["x"], 10_000)}) == 10_000


def test_without_variants_a_row_keeps_its_id_and_seed() -> None:
    (plain,) = expand([{"id": "mug", "prompt": "x"}])
    assert (plain.id, plain.request.seed) == ("mug", None)


def test_matrix_is_a_product_and_ids_name_the_cell() -> None:
    items = expand([{"id": "mug", "prompt": "x"}], 2, {"style_type": STYLES, "resolution": SIZES})
    assert [item.id for item in items] == [
        f"mug-{size}-{style}-{number}" for size in SIZES for style in STYLES for number in (1, 2)
    ]
    last = items[-1].request
    assert (last.resolution, last.style_type) == ("RESOLUTION_832_1216", "REALISTIC")


def test_cells_of_a_row_share_the_seeds_of_their_variants() -> None:
    items = expand(["x"], 2, {"style_type": STYLES})
    assert [item.request.seed for item in items[:2]] == [item.request.seed for item in items[2:]]


def test_further_values_do_not_change_the_other_cells() -> None:
    few = expand(["x", {"id": "a", "prompt": "y"}], 2, {"style_type": ["DESIGN"], "resolution": SIZES})
    matrix = {"resolution": ["1280x800", *SIZES], "style_type": ["ANIME", "DESIGN"]}
    many = {item.id: item for item in expand(["x", {"id": "a", "prompt": "y"}], 3, matrix, defaults={})}
    assert len(many) == 36
    assert all(many[item.id].request == item.request and many[item.id].key == item.key for item in few)


def test_row_with_its_own_value_is_not_multiplied() -> None:
    rows = [{"id": "a", "prompt": "x", "style_type": "ANIME"}, {"id": "b", "prompt": "x"}]
    items = expand(rows, None, {"style_type": STYLES})
    assert [(item.id, item.request.style_type) for item in items] == [
        ("a", "ANIME"),
        ("b-DESIGN", "DESIGN"),
        ("b-REALISTIC", "REALISTIC"),
    ]


def test_values_of_every_parameter_have_labels() -> None:
    matrix = {
        "magic_prompt_option": ["ON", None],
        "resolution": ["RESOLUTION_1024_1024"],
        "seed": [0, 7.0],
        "model": ["ideogram-3"],
        "model_params": [{"guidance": 3, "mode": "fast"}, {"palette": ["warm"]}, {}],
    }
    ids = [item.id.removeprefix("a-").split("-", 2) for item in expand([{"id": "a", "prompt": "x"}], None, matrix)]
    assert len(ids) == 12
    assert {option for option, _, _ in ids} == {"ON", "none"}
    assert ids[0][1:] == ["1024x1024", "0-ideogram-3-guidance=3,mode=fast"]
    assert ids[1][2].removeprefix("0-ideogram-3-").isalnum()
    assert ids[-1][2] == "7-ideogram-3-none"


def test_number_of_the_row_in_a_key_is_that_of_the_input() -> None:
    keys = [
        item.key for item in expand([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}], 2, template="{row}/{id}")
    ]
    assert keys == ["day/0/a-1", "day/0/a-2", "day/1/b-1", "day/1/b-2"]


def test_identical_rows_share_their_variants_if_deduped() -> None:
    items = expand([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}], 2, dedupe=True)
    assert [item.copy_of for item in items] == ["", "", "day/a-1", "day/a-2"]


def test_bad_row_is_told_once_whatever_its_images() -> None:
    checker = RowChecker({}, Target("b", "day/"), "{id}", expansion=Expansion(3))
    rows = [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}, {"id": "a-1", "prompt": "z"}, ""]
    assert len(list(checker.items((f"row {number}", row) for number, row in enumerate(rows)))) == 6
    assert [problem.split(":")[0] for problem in checker.problems] == ["row 1", "row 3"]


def test_more_images_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_IMAGES", 4)
    assert len(expand(["x", "y"], 2)) == 4
    with pytest.raises(IdeogramInvalidInput, match="the rows make more than 4 images, a task's limit"):
        expand(["x", "y", "z"], 2)


@pytest.mark.parametrize(
    ("variants", "matrix", "said"),
    [
        (0, None, "variants: 0 is not a whole number from 1 to 100,000"),
        (True, None, "variants: True is not"),
        ("4", None, "variants: '4' is not"),
        (100_001, None, "variants: 100001 is not"),
        (None, [], "matrix: must be a mapping of parameters to lists of values, not list"),
        (None, {"style": ["DESIGN"]}, "matrix: 'style' is not a parameter. Did you mean 'style_type'?"),
        (None, {3: ["DESIGN"]}, "matrix: 3 is not a parameter"),
        (None, {"prompt": ["a"]}, "matrix: prompt is not a parameter of a matrix"),
        (None, {"style_type": "DESIGN"}, "matrix: style_type must have a list of values"),
        (None, {"style_type": []}, "matrix: style_type must have a list of values"),
        (None, {"style_type": ["DESIGNS"]}, "matrix: style_type: 'DESIGNS' is not valid. Did you mean 'DESIGN'?"),
        (None, {"resolution": ["1024x1024", "RESOLUTION_1024_1024"]}, "resolution has the value '1024x1024' twice"),
        (None, {"seed": [-1], "resolution": ["1x1"]}, "; seed: -1 is not within"),
        (2, {"seed": [1, 2]}, "variants, matrix: both choose the seeds"),
        (100_000, {"style_type": STYLES, "seed": None}, "seed must have a list"),
        (
            100_000,
            {
                "style_type": STYLES,
                "resolution": ["1024x1024", "512x1536", "576x1408", "576x1472", "576x1536", "640x1024"],
            },
            "make 1,200,000 images of a row",
        ),
    ],
)
def test_mistake_in_variants_or_matrix(variants: Any, matrix: Any, said: str) -> None:
    assert said in "\n".join(check_expansion(variants, matrix))


def test_valid_variants_and_matrix_have_no_problems() -> None:
    assert check_expansion(4, {"style_type": STYLES, "resolution": ("1024x1024",)}) == []
    assert check_expansion(None, None) == []
