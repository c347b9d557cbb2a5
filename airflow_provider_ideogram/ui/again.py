"""
The operator's call that generates an image again, as Python to copy.

Invariant: rendered by Jinja, its arguments are the inputs that the image's record has; ``model_params`` is not among
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_ideogram.api.parameters import DEFAULT_MODEL

#: What Jinja would interpret, drop or replace: the beginning of a tag, a line feed at the end, a carriage return.
_SPECIAL_TO_JINJA = re.compile(r"\{(?=[{%#])|\r|\n\Z")
_ARGUMENTS = ("prompt", "magic_prompt_option", "resolution", "style_type", "seed", "model")


def call_again(facts: Mapping[str, Any]) -> str:
    """
    Return the call.

    :param facts: The fields of the image's record.
    """
    arguments = {name: facts.get(name) for name in _ARGUMENTS}
    if arguments["model"] == DEFAULT_MODEL:
        del arguments["model"]
    lines = [
        "from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator",
        "",
        "IdeogramGenerateImageOperator(",
        '    task_id="make_again",',
        *(f"    {name}={_literal(value)}," for name, value in arguments.items()),
    ]
    if "model" in arguments:
        lines.append("    model_params={},  # as in the first call: results do not record them")
    lines += [
        f"    s3_key={_literal(facts.get('uri'))},",
        '    if_exists="overwrite",  # generates and pays again; without it the stored image is reused',
        ")",
    ]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        value = _SPECIAL_TO_JINJA.sub(lambda found: f"{{{{ {found[0]!r} }}}}", value)
    return repr(value)
