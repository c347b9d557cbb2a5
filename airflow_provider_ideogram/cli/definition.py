"""
``airflow ideogram``, on the versions of Airflow whose provider metadata has commands.

Invariant: it has the same commands, with the same arguments, as the console script. Imports nothing heavy: each call of
``airflow`` loads it.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_ideogram.cli.commands import DESCRIPTION, commands


def airflow_commands() -> list[Any]:
    """Return the commands as Airflow takes them."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    subcommands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=command,
            args=[Arg(flags=argument.flags, **argument.options) for argument in command.arguments],
        )
        for command in commands()
    ]
    return [GroupCommand(name="ideogram", help=DESCRIPTION, subcommands=subcommands)]
