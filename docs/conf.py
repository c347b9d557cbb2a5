"""
The documentation site, made by `make docs` of `docs/`, the measurements and the docstrings.

Sphinx's source folder is the whole checkout, so that links between its Markdown files lead to the same places on the
site as in a checkout.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from airflow_provider_ideogram import __version__

# What a fixture's decorator returns hides the function, and so its docstring.
pytest.fixture = lambda function: function

# GitHub renders Mermaid diagrams; the site shows their text.
lexers["mermaid"] = TextLexer()

project = "airflow-provider-ideogram"
release = version = __version__

root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/_reference/*", "benchmarks/results/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "docs/_build"]
templates_path = [str(Path(__file__).parent / "_templates")]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_copybutton", "sphinx_design"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]  # for tabs

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
# Other projects' inventories are on the network; all of this one must be there, but for internals that signatures and
# docstrings name.
nitpick_ignore_regex = [(r"py:.*", r"(?!airflow_provider_ideogram).*")]
nitpick_ignore = [
    (f"py:{kind}", f"airflow_provider_ideogram.{name}")
    for kind, name in (
        ("class", "api.history.HistoryPage"),
        ("class", "api.history.HistoryRow"),
        ("class", "api.sanitize.Redactor"),
        ("class", "emulator.account.Account"),
        ("class", "emulator.jobs.Outcome"),
        ("class", "hooks.client.SegmindClient"),
        ("class", "operators.base.IdeogramBaseOperator"),
        ("class", "operators.base.IdeogramTask"),
        ("class", "operators.job.IdeogramJobTask"),
        ("meth", "api.polling.RequestPoll.report"),
        ("mod", "jobs.recovery"),
    )
]

html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_copy_source = False
html_additional_pages = {"index": "to-index.html"}
