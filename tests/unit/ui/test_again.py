from __future__ import annotations

import ast
from typing import Any

import pytest
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from airflow_provider_ideogram.ui.again import call_again
from tests.unit.ui.conftest import record


def _call(facts: dict[str, Any]) -> dict[str, Any]:
    """Run the call, and return the arguments that are left of it after Airflow has rendered them."""
    statements = ast.parse(call_again(facts)).body
    assert len(statements) == 2
    call = statements[1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    arguments = {str(one.arg): ast.literal_eval(one.value) for one in call.value.keywords}
    IdeogramGenerateImageOperator(**arguments)
    environment = SandboxedEnvironment()  # Airflow's, but for its filters
    return {
        name: environment.from_string(value).render() if isinstance(value, str) else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize(
    "prompt",
    [
        "A cat",
        "{{ ds }} {% if x %} {# no #}",
        "{{{{ twice }}}} {{{ thrice }}} {",
        "ends in a line break\n",
        "two\n\n",
        "carriage\rreturn\r\nand\r",
        "'single' \"double\" \\ back \u202e slash",
        "{% raw %}{{ x }}{% endraw %}",
        "{\n{",
    ],
)
def test_call_passes_on_the_very_prompt(prompt: str) -> None:
    arguments = _call(record("bucket", prompt=prompt))
    assert arguments["prompt"] == prompt
    assert arguments["seed"] == 1
    assert arguments["s3_key"] == "s3://bucket/1.png"
    assert arguments["if_exists"] == "overwrite"


def test_sister_model_is_named_and_its_parameters_asked_for() -> None:
    facts = record("bucket", model="another-model", style_type=None)
    arguments = _call(facts)
    assert (arguments["model"], arguments["style_type"], arguments["model_params"]) == ("another-model", None, {})
    assert "model_params" not in call_again(record("bucket"))
