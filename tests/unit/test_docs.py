"""
The statements of README.md and the pages in docs/, compared with the code.

Python blocks are imported as DAG files are. One that can't be has an HTML comment ``<!-- not executed: why -->``
before it, and must be valid Python all the same.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import BaseOperator
from markdown_it import MarkdownIt
from markdown_it.token import Token
from packaging.version import Version

import airflow_provider_ideogram
from airflow_provider_ideogram import exceptions
from airflow_provider_ideogram.api.parameters import CHECKS, GenerationRequest
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.cli.commands import commands as commands_of_ideogram
from airflow_provider_ideogram.datasets.manifest import failed_line
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.emulator import cli, faults
from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.admin import add_routes
from airflow_provider_ideogram.emulator.running import RunningEmulator
from airflow_provider_ideogram.emulator.settings import EmulatorSettings
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS
from airflow_provider_ideogram.operators import (
    IdeogramGenerateDatasetOperator,
    IdeogramGenerateImageOperator,
    IdeogramReviewOperator,
)
from airflow_provider_ideogram.storage.image_record import ImageRecord
from tests.support.airflow_version import DagBag

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
#: The lines that blocks with a single call leave out.
PRELUDE = """\
from airflow_provider_ideogram.operators import IdeogramGenerateDatasetOperator, IdeogramGenerateImageOperator
"""
#: Features in the blocks that not every version of Airflow has.
SINCE = {"airflow.sdk": Version("3.0"), "IdeogramRetryPolicy": Version("3.3"), "IdeogramReviewOperator": Version("3.1")}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    executed: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        before = ""
        for token in tokens(page):
            if token.type == "fence" and token.info in languages:
                executed = not before.startswith("<!-- not executed: ")
                found.append(Block(page, (token.map or [0])[0] + 1, token.info, token.content, executed))
            before = token.content if token.type == "html_block" else ""
    return found


def tables(page: Path, *header: str) -> list[list[str]]:
    """Return the rows of all tables with these columns, as they are written."""
    found: list[list[str]] = []
    row: list[str] = []
    wanted = False
    for token, content in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            row.append(content.content)
        elif token.type == "thead_close":
            wanted = tuple(row) == header
        elif token.type == "tr_close" and wanted and content.type != "thead_close":
            found.append(row)
    assert found, f"{page.name} has no table {header}"
    return found


def named(text: str) -> list[str]:
    """Return what is marked as code in a text."""
    return re.findall(r"`([^`]+)`", text)


def listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def prose(page: Path) -> str:
    return " ".join(page.read_text().split())


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    found = zip(tokens(page), tokens(page)[1:], strict=False)
    return {slug(text.content.replace("`", "")) for heading, text in found if heading.type == "heading_open"}


@cache
def parameters_of(operator: type[BaseOperator]) -> dict[str, Any]:
    """Return the parameters that the package's classes add to Airflow's, with their defaults."""
    own = [kind for kind in operator.__mro__ if kind.__module__.startswith("airflow_provider_ideogram.")]
    signatures = [inspect.signature(vars(kind)["__init__"]) for kind in own if "__init__" in vars(kind)]
    return {
        name: parameter.default
        for signature in signatures
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def as_written(default: Any) -> str:
    return "" if default is inspect.Parameter.empty else str(default)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_imported_as_a_dag_file(block: Block, tmp_path: Path) -> None:
    compile(block.code, str(block), "exec")
    if not block.executed:
        return
    missing = [what for what, since in SINCE.items() if what in block.code and Version(airflow_version) < since]
    if missing:
        pytest.skip(f"Airflow {airflow_version} has no {', '.join(missing)}")
    file = tmp_path / "dag_of_the_docs.py"
    file.write_text(PRELUDE + block.code)

    bag = DagBag(dag_folder=str(file), safe_mode=False)

    assert bag.import_errors == {}
    assert len(bag.dags) == block.code.count("@dag")


def test_dags_of_both_operators_are_among_them() -> None:
    code = [block.code for block in blocks("python") if block.executed and "@dag" in block.code]
    for operator in (IdeogramGenerateImageOperator, IdeogramGenerateDatasetOperator):
        assert any(f" {operator.__name__}(" in text for text in code)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_valid(block: Block) -> None:
    json.loads(block.code)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.code.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{program} ")]


@pytest.mark.skipif(Version(airflow_version) < Version("3.0"), reason="Airflow 2's commands have other names")
def test_commands_of_airflow_are_taken_by_it() -> None:
    from airflow.cli.cli_parser import get_parser

    assert len(commands("airflow")) >= 5
    for arguments in commands("airflow"):
        get_parser().parse_args(arguments)


def test_other_commands_are_taken() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {arguments[0] for arguments in commands("make")} <= set(targets)
    assert commands("ideogram-emulator")
    for arguments in commands("ideogram-emulator"):
        cli._parser().parse_args([argument for argument in arguments if argument != "&"])


def test_common_options_of_the_command_are_those_of_its_commands() -> None:
    flags = {
        command.name: {flag for argument in command.arguments for flag in argument.flags}
        for command in commands_of_ideogram()
    }
    for options, which, _ in tables(DOCS / "account.md", "option", "commands", "meaning"):
        written = flags.keys() - set(named(which)) if which.startswith("all") else set(named(which))
        for option in named(options):
            assert {name for name, known in flags.items() if option in known} == written, option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    inline = [child for token in tokens(page) for child in token.children or ()]
    for token in inline:
        address = str(token.attrGet("href") or token.attrGet("src") or "")
        if not address or re.match(r"https?://", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), address
        assert target.is_relative_to(ROOT), address
        if anchor:
            assert anchor in anchors(target), address


def test_every_page_is_linked_from_the_first() -> None:
    text = (DOCS / "index.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"]({page.name})" not in text] == ["index.md"]


def test_parameters_of_an_image_are_the_operators() -> None:
    rows = tables(DOCS / "image-operator.md", "parameter", "default", "meaning")

    known = parameters_of(IdeogramGenerateImageOperator)
    written = {named(name)[0]: default.strip("`").replace("none", "None") for name, default, _ in rows}
    assert written == {name: as_written(default) for name, default in known.items()}
    templated = {named(name)[0] for name, *_ in rows if "†" in name}
    assert templated == set(IdeogramGenerateImageOperator.template_fields)


def test_parameters_of_a_dataset_are_the_operators() -> None:
    rows = tables(DOCS / "datasets.md", "parameter", "default", "meaning")

    known, image = parameters_of(IdeogramGenerateDatasetOperator), parameters_of(IdeogramGenerateImageOperator)
    assert {named(name)[0]: default.strip("`") for name, default, _ in rows} == {
        name: as_written(default) for name, default in known.items() if name not in image
    }
    templated = {named(name)[0] for name, *_ in rows if "†" in name}
    assert templated == set(IdeogramGenerateDatasetOperator.template_fields) - image.keys()
    *others, last = [name for name in image if name not in known]
    assert f"without {listed(others)} and `{last}`" in prose(DOCS / "datasets.md")


def test_parameters_of_a_review_are_the_operators() -> None:
    rows = tables(DOCS / "review.md", "parameter", "default", "meaning")
    known = {name: as_written(default) for name, default in parameters_of(IdeogramReviewOperator).items()}
    written = {named(name)[0]: default.strip("`").replace(" days", " days, 0:00:00") for name, default, _ in rows}
    assert written == known
    assert {named(name)[0] for name, *_ in rows if "†" in name} == set(IdeogramReviewOperator.template_fields)


def test_choices_are_the_operators() -> None:
    rows = tables(DOCS / "image-operator.md", "parameter", "default", "meaning")
    meanings = {named(name)[0]: named(meaning) for name, _, meaning in rows}
    for name, valid in IdeogramGenerateImageOperator.choices.items():
        assert set(valid) <= set(meanings[name]), name


def test_fields_of_an_image_are_the_records() -> None:
    names = [field.name for field in fields(ImageRecord)]

    rows = tables(DOCS / "image-operator.md", "field", "type", "meaning")
    assert [named(name) for name, *_ in rows] == [[name] for name in names]
    json_types = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    assert [kind for _, kind, _ in rows] == [
        re.sub(r"\w+", lambda found: json_types.get(found[0], "null"), str(field.type)).replace(" | ", " or ")
        for field in fields(ImageRecord)
    ]
    assert listed(names) in prose(DOCS / "datasets.md")


def test_result_without_waiting_is_the_operators() -> None:
    *names, last = ["request_id", "submitted_at", *CHECKS, "fingerprint", "ledger_uri"]
    assert f"returns {listed(names)} and `{last}`" in prose(DOCS / "image-operator.md")


def test_keys_of_a_manifests_line_are_its_own() -> None:
    item = Item(0, "a", GenerationRequest("a lighthouse"), "a.png")
    [sentence] = re.findall(r"Each line has the same keys: [^.]*\.", prose(DOCS / "datasets.md"))
    *others, last = map(str, ImageStatus)
    values = f"({listed(others)} or `{last}`)"
    line = failed_line(item, IdeogramError(""), None)
    assert named(sentence.replace(values, "")) == list(line)


def test_extras_of_the_connection_are_those_that_are_read() -> None:
    rows = [row for row in tables(DOCS / "connection.md", "field", "default", "meaning") if row[0].startswith("Extra ")]
    assert [named(row[0]) for row in rows] == [[name] for name in EXTRA_FIELDS]


def test_lines_to_watch_are_logged() -> None:
    """A documented line is what the package logs or raises, with an ellipsis for what differs."""
    package = Path(airflow_provider_ideogram.__file__).parent
    texts = [text for file in package.rglob("*.py") for text in texts_of(ast.parse(file.read_text()))]
    for line, *_ in tables(DOCS / "operations.md", "line", "level", "what it means"):
        [documented] = named(line)
        assert any(documented in text for text in texts), documented


def test_documented_messages_are_raised() -> None:
    package = Path(airflow_provider_ideogram.__file__).parent
    texts = [text for file in package.rglob("*.py") for text in texts_of(ast.parse(file.read_text()))]
    for message, *_ in tables(DOCS / "troubleshooting.md", "message", "cause", "money", "remedy"):
        for part in named(message)[0].split("…"):
            assert any(part.strip() in text for text in texts), message


def texts_of(tree: ast.AST) -> list[str]:
    constants = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [re.sub(r"%(\.\d)?[sdf]", "…", text) for text in constants]


def test_each_error_has_its_remedy() -> None:
    rows = tables(DOCS / "troubleshooting.md", "class", "`reason`", "cause", "money", "remedy")
    documented = {named(name)[0]: named(code)[0] for name, code, *_ in rows}
    assert documented == {kind.__name__: kind.code for kind in error_classes()}


def error_classes() -> list[type[exceptions.IdeogramError]]:
    """Return the classes of errors that are raised: all but the base classes of the groups."""
    groups = (
        exceptions.IdeogramError,
        exceptions.IdeogramNotCharged,
        exceptions.IdeogramTemporaryError,
        exceptions.IdeogramJobError,
    )
    return [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.IdeogramError) and kind not in groups
    ]


def test_orders_to_the_emulator_are_those_that_it_takes() -> None:
    page = DOCS / "testing.md"
    kinds = faults._INTERRUPTIONS + faults._ALTERATIONS + faults._OUTCOMES
    rows = tables(page, "`kind`", "what happens", "options")
    assert {kind for row in rows for kind in named(row[0])} == set(kinds)
    assert {name for row in rows for name in named(row[2])} <= {field.name for field in fields(faults.Fault)}
    operations = [name for row in tables(page, "`on`", "what") for name in named(row[0])]
    assert operations == [*faults.OPERATIONS, faults.JOB]


def test_documented_marks_are_those_of_the_emulator() -> None:
    marks = [named(row[0])[0] for row in tables(DOCS / "testing.md", "mark", "what happens")]
    assert all(len(faults.marked_faults(mark)) == 1 for mark in marks)
    known = {f"[[fault:{name}]]" for name in faults._MARKED_FAULTS}
    assert set(marks) == known | {"[[fault:503]]", "[[result:base64]]", "[[slow:30]]"}


def test_admin_calls_are_those_of_the_emulator() -> None:
    app = web.Application()
    add_routes(app, Account(EmulatorSettings()))
    routes = [f"{route.method} {route.resource.canonical}" for route in app.router.routes() if route.resource]
    rows = tables(DOCS / "testing.md", "call", "what it does")
    assert [named(row[0])[0] for row in rows] == [route for route in routes if not route.startswith("HEAD ")]


def test_settings_are_those_of_the_emulator() -> None:
    rows = tables(DOCS / "testing.md", "setting", "default", "meaning")
    assert {named(name)[0]: default.strip("`") for name, default, _ in rows} == {
        field.name: field.default[0] if isinstance(field.default, tuple) else str(field.default)
        for field in fields(EmulatorSettings)
        if field.name not in ("host", "port")
    }


def test_methods_of_the_running_emulator_are_there() -> None:
    rows = tables(DOCS / "testing.md", "`ideogram_emulator.…`", "")
    names = {name.partition("(")[0] for row in rows for name in named(row[0])}
    assert names == {name for name in vars(RunningEmulator) if not name.startswith("_")} | {"url"}
