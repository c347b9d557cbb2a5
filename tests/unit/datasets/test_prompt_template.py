from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_ideogram.datasets.prompt_template import PromptTemplate, check_prompt_template
from airflow_provider_ideogram.datasets.rows import Item, RowChecker
from airflow_provider_ideogram.storage.target import Target


def check(template: str, *rows: Any) -> tuple[list[Item], RowChecker]:
    checker = RowChecker({}, Target("b", "day/"), "{id}", prompt_template=PromptTemplate(template))
    return list(checker.items((f"line {number}", row) for number, row in enumerate(rows, 1))), checker


def prompt(template: str, row: Any) -> str:
    (item,), _ = check(template, row)
    return item.request.prompt


def problem(template: str, row: Any) -> str:
    items, checker = check(template, row)
    assert items == []
    return checker.problems[0]


@pytest.mark.parametrize(
    ("template", "row", "expected"),
    [
        ("A {product}, {background}", {"product": "mug", "background": "grey"}, "A mug, grey"),
        ("{prompt}, studio light", "a mug", "a mug, studio light"),
        ("{Product} { size }", {" product": "mug", "Size": 3}, "mug 3"),
        ("{product} {product:>5}", {"product": "mug"}, "mug   mug"),
        ("{price:.2f} EUR", {"price": 3}, "3.00 EUR"),
        ("{price:.2f} EUR", {"price": "3.5"}, "3.50 EUR"),
        ("{price:,}", {"price": "1234"}, "1,234"),
        ("{price:.1%}", {"price": Decimal("0.251")}, "25.1%"),
        ("{count:03d}", {"count": "7.0"}, "007"),
        ("{count} mugs", {"count": 3.0}, "3 mugs"),
        ("{count} mugs", {"count": 0}, "0 mugs"),
        ("{day:%d %B %Y}", {"day": date(2026, 11, 6)}, "06 November 2026"),
        ("{day:%H:%M}", {"day": datetime(2026, 11, 6, 7, 8)}, "07:08"),
        ("{day:%A}", {"day": "2026-11-26"}, "Thursday"),
        ("{style_type} {id}", {"style_type": "DESIGN", "id": 7}, "DESIGN 7"),
        ("{model_name} {prompts}", {"model_name": "x", "prompts": "y"}, "x y"),
    ],
)
def test_prompt_is_made_of_the_columns(template: str, row: Any, expected: str) -> None:
    assert check_prompt_template(template) == []
    assert prompt(template, row) == expected


@pytest.mark.parametrize(
    "value", ["{{ var.value.secret }}", "{product.__class__}", "{0}", "}{", "{% raw %}", "%s", "\\"]
)
def test_value_is_never_read_as_a_template(value: str) -> None:
    assert prompt("a {product}", {"product": value}) == f"a {value}"


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        ("{product}", {"id": "a"}, "line 1: has no column 'product', which prompt_template names"),
        ("{product}", {"product": None}, "line 1: column 'product' is empty"),
        ("{product}", {"product": ""}, "line 1: column 'product' is empty"),
        ("{product}", {"product": " \t"}, "line 1: column 'product' is empty"),
        ("{product}", {"product": float("nan")}, "line 1: column 'product' is empty"),
        ("{product}", {"product": Decimal("sNaN")}, "line 1: column 'product' is empty"),
        ("{product}", {"product": float("inf")}, "column 'product': inf can't be written: it is not a finite number"),
        ("{product}", {"product": True}, "column 'product': True can't be written: it is neither text"),
        ("{product}", {"product": ["a"]}, "column 'product': a value of type list can't be written"),
        ("{product:.2f}", {"product": "a"}, "column 'product': 'a' can't be written in the format '.2f'"),
        ("{product:d}", {"product": "1.5"}, "'1.5' is not an integer"),
        ("{product:%d}", {"product": "today"}, "column 'product': 'today' can't be written in the format '%d'"),
        ("{product:zz}", {"product": 1}, "column 'product': 1 can't be written in the format 'zz'"),
        ("{product:.2f}", {"product": 10**5000}, "column 'product': an integer of thousands of digits"),
        ("{product}", {"product": "x", "Product": "y"}, "has two columns 'product'"),
        ("{product}", {"product": "x", "prompt": "y"}, "has a prompt, and prompt_template does not contain {prompt}"),
        ("{product}", "a mug", "has a prompt, and prompt_template does not contain {prompt}"),
        ("{product}", {"product": "x", "resolutoin": "y"}, "Did you mean 'resolution'?"),
        ("{product}", {"product": "x" * 20_000}, "prompt: has 20,000 characters"),
        ("{product}", {"product": "\0"}, "prompt: holds a NUL character"),
    ],
)
def test_bad_row_is_told_with_its_column(template: str, row: Any, said: str) -> None:
    assert said in problem(template, row)


def test_columns_of_the_template_are_not_unknown() -> None:
    _, checker = check("{product}", {"product": "x", "price": 3})
    assert set(checker.unknown_columns) == {"price"}
    assert checker.needed_columns == ("product",)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{product.name}", "has {product.name}: only columns' names can be used"),
        ("{product[0]}", "only columns' names can be used"),
        ("{product!r}", "only columns' names can be used"),
        ("{product()}", "only columns' names can be used"),
        ("{}", "has {}, which names no column"),
        ("{ }", "which names no column"),
        ("{0}", "has {0}, which names no column"),
        ("{product", "expected '}'"),
        ("product}", "Single '}'"),
        ("a photo", "names no column"),
        ("", "names no column"),
        ("{{product}}", "has a doubled brace"),
        ("{{ product }} of {product}", "has a doubled brace"),
        ("{product:{width}}", "whose format is not a plain one"),
        ("{product:>99999}", "whose format is not a plain one"),
        (5, "must be text, not int"),
    ],
)
def test_mistake_in_a_template(template: Any, said: str) -> None:
    (problem,) = check_prompt_template(template)
    assert problem.startswith("prompt_template: ")
    assert said in problem
