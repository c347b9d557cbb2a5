"""``airflow ideogram`` has the commands and arguments of ``ideogram``."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import pytest

from airflow_provider_ideogram.account.spend import COLUMNS
from airflow_provider_ideogram.cli.commands import commands
from airflow_provider_ideogram.cli.definition import airflow_commands
from airflow_provider_ideogram.cli.main import _parser
from airflow_provider_ideogram.cli.reconcile import State
from airflow_provider_ideogram.get_provider_info import get_provider_info

ARGUMENTS = {
    "spend": ["--by", "dag", "--from", "2026-11-01"],
    "doctor": ["--bucket", "images"],
    "plan": ["posters", "--conf", '{"theme": "cats"}'],
    "reconcile": ["--images", "s3://images/posters", "--list", "lost", "--list", "recoverable"],
    "recover": ["--prefix", "s3://images/rescued", "--include-foreign"],
}


def of_airflow(name: str) -> argparse.ArgumentParser:
    """Return the parser that Airflow makes of a command."""
    [group] = airflow_commands()
    [command] = [each for each in group.subcommands if each.name == name]
    parser = argparse.ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser


def test_metadata_names_the_function() -> None:
    [path] = get_provider_info()["cli"]
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is airflow_commands
    assert [command.name for command in commands()] == ["reconcile", "recover", "spend", "doctor", "plan"]


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_both_read_the_same_arguments(name: str) -> None:
    own: dict[str, Any] = vars(_parser().parse_args([name, *ARGUMENTS[name]]))
    assert own.pop("command").name == name
    assert own == vars(of_airflow(name).parse_args(ARGUMENTS[name]))


def test_choices_are_those_of_the_commands() -> None:
    choices = {
        (command.name, flag): argument.options.get("choices")
        for command in commands()
        for argument in command.arguments
        for flag in argument.flags
    }
    assert choices["spend", "--by"] == tuple(COLUMNS)
    assert choices["reconcile", "--list"] == tuple(State)


@pytest.mark.parametrize("address", ["images", "https://images/", "s3://", "s3://images/"])
def test_prefix_that_names_no_folder_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["recover", "--prefix", address])
    assert address in capsys.readouterr().err


def test_error_ends_airflow_with_its_exit_code(
    ideogram_connection: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    [group] = airflow_commands()
    spend = next(each for each in group.subcommands if each.name == "spend")
    with pytest.raises(SystemExit) as ended:
        spend.func(of_airflow("spend").parse_args([]))
    assert ended.value.code == 1
    assert "give --account-url" in capsys.readouterr().err
