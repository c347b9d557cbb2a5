"""
The console script ``ideogram``.

Invariant: it has the same commands, with the same arguments, as ``airflow ideogram``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow_provider_ideogram.cli.commands import DESCRIPTION, commands, execute


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: The command-line arguments, by default those of the process.
    :return: The exit code: 0, or 1 after an error or a finding.
    """
    options = _parser().parse_args(arguments)
    return execute(options.command, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ideogram", description=DESCRIPTION)
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in commands():
        own = added.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for argument in command.arguments:
            own.add_argument(*argument.flags, **argument.options)
        own.set_defaults(command=command)
    return parser
