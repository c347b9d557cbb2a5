from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator


def _operator(**arguments: Any) -> IdeogramGenerateDatasetOperator:
    if "prompts_path" not in arguments:
        arguments.setdefault("prompts", ["a cat"])
    return IdeogramGenerateDatasetOperator(**{"task_id": "make", "s3_prefix": "s3://my-bucket/day", **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompts_path": "s3://my-bucket/prompts/{{ ds }}.jsonl", "s3_prefix": "s3://{{ params.bucket }}/x"},
        {"key_template": "{row:06}-{id}.png", "max_in_flight": 1, "max_failures": 0.5, "max_cost_usd": 0},
        {"prompts": "{{ ti.xcom_pull('rows') }}", "requests_per_minute": 0, "dedupe": True},
        {"variants": 4, "matrix": {"style_type": ["{{ params.style }}"]}, "key_template": "{row}/{id}"},
        {"matrix": "{{ params.matrix }}"},
        {"gates": {"blank": "redo", "my_checks.is_sharp": "fail"}, "max_attempts": 20, "provenance": "xmp"},
        {"outputs": ["parquet", "imagefolder"], "key_template": "{id}.webp"},
    ],
)
def test_valid_arguments(arguments: dict[str, Any]) -> None:
    operator = _operator(**arguments)
    assert {name: getattr(operator, name) for name in arguments} == arguments


def test_numbers_durations_and_paths_are_read() -> None:
    operator = _operator(
        prompts_path=PurePosixPath("rows.jsonl"),
        timeout=timedelta(hours=1),
        poll_interval=Decimal(2),
        max_in_flight=7.0,
        max_cost_usd=Decimal("1.50"),
        requests_per_minute=Decimal(30),
    )
    assert (operator.prompts_path, operator.timeout, operator.poll_interval) == ("rows.jsonl", 3600.0, 2.0)
    numbers = operator.max_in_flight, operator.max_cost_usd, operator.requests_per_minute
    assert numbers == (7, 1.5, 30.0)
    assert [type(number) for number in numbers] == [int, float, float]


def test_paths_of_airflows_object_storage_are_read() -> None:
    operator = _operator(
        prompts_path=ObjectStoragePath("s3://aws_default@my-bucket/rows.csv"),
        s3_prefix=ObjectStoragePath("s3://my-bucket/day"),
    )
    assert (operator.prompts_path, operator.s3_prefix) == ("s3://my-bucket/rows.csv", "s3://my-bucket/day")
    assert _operator(prompts_path=ObjectStoragePath("file:///tmp/rows.csv")).prompts_path == "file:///tmp/rows.csv"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompts": ["a"], "prompts_path": "x.jsonl"}, "prompts, prompts_path: give one of them"),
        ({"prompts": None}, "prompts, prompts_path: give one of them"),
        (
            {"prompts": "a cat"},
            "prompts: must be a list of rows, or a table of pandas, polars, pyarrow or numpy, not str",
        ),
        ({"prompts": PurePosixPath("rows.csv")}, "not PurePosixPath; pass a file as prompts_path"),
        ({"prompts": {"prompt": "a cat"}}, "prompts: must be a list of rows"),
        ({"prompts": {"a cat"}}, "numpy, not set"),
        ({"gates": ["blank"]}, "gates: must be a mapping of gates to 'fail' or 'redo', not list"),
        ({"gates": {"blank": "redo"}, "max_attempts": 0}, "max_attempts: 0 is not a whole number from 1 to 20"),
        ({"outputs": "parquet"}, "outputs: must be a list of parquet and imagefolder, not str"),
        ({"outputs": ["imagefolder"]}, "outputs, key_template: an image folder needs keys that end in .png"),
        ({"provenance": "c2pa"}, "provenance: 'c2pa' is not valid. Valid are xmp"),
        ({"prompts": (prompt for prompt in ["a cat"])}, "prompts: is a generator, which can be read once only"),
        ({"prompts": map(str, [1])}, "prompts: is a map, which can be read once only"),
        ({"prompts_path": "rows.xlsx"}, "prompts_path: 'rows.xlsx' does not end in .jsonl"),
        ({"prompts_path": "gs://bucket/rows.csv"}, "is neither on S3 (s3://) nor a file on the worker"),
        ({"prompts_path": "s3://other@bucket/rows.csv"}, "names another connection than aws_conn_id"),
        ({"s3_prefix": "s3://other@bucket/day"}, "is not of the form s3://bucket/key"),
        ({"allow_empty": 1}, "allow_empty: 1 is neither True nor False"),
        ({"s3_prefix": "day"}, "names no bucket"),
        ({"max_in_flight": 0}, "max_in_flight: 0 is not a whole number from 1 up"),
        ({"max_in_flight": 1.5}, "max_in_flight: 1.5 is not a whole number from 1 up"),
        ({"max_in_flight": True}, "max_in_flight: True is not"),
        ({"requests_per_minute": -1}, "requests_per_minute: -1 is not"),
        ({"max_failures": float("nan")}, "max_failures: nan is not"),
        ({"max_failures": None}, "max_failures: None is not"),
        ({"max_cost_usd": "5"}, "max_cost_usd: '5' is not an amount from 0 up"),
        ({"resolution": "1x1"}, "resolution: "),
        ({"timeout": timedelta(0)}, "timeout: datetime.timedelta(0) is not a number of seconds"),
        ({"prompts_path": 5}, "prompts_path: must be a path, not 5"),
        ({"dedupe": "no"}, "dedupe: 'no' is neither True nor False"),
        ({"prompt_template": "{product.name}"}, "prompt_template: has {product.name}: only columns' names can be used"),
        ({"prompt_template": "{{ params.product }}"}, "prompt_template: has a doubled brace"),
        ({"variants": 0}, "variants: 0 is not a whole number from 1"),
        ({"variants": 2, "key_template": "{row}"}, "all images of a row would have the same key"),
        ({"matrix": {"seed": [1, 2]}, "key_template": "{row}"}, "all images of a row would have the same key"),
        ({"matrix": {"style": ["DESIGN"]}}, "matrix: 'style' is not a parameter. Did you mean 'style_type'?"),
        *[
            ({"key_template": template}, "does not make a key of {id} or {row}")
            for template in (
                "same",
                "{id.__class__}",
                "{id[0]}",
                "{id:{row.__class__}}",
                "{}",
                "{0}",
                "{name}",
                "{id",
                "{row:zz}",
                None,
            )
        ],
    ],
)
def test_mistake_shows_while_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        _operator(**arguments)
    assert said in str(caught.value)
