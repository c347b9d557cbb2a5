"""
The command ``ideogram``: what an account has spent, and whether a deployment is ready.

Invariant: no command submits a request, so none is charged.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

from airflow_provider_ideogram.account.spend import COLUMNS
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX

#: The rows to print, and the exit code.
Result: TypeAlias = tuple[list[dict[str, Any]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: The command-line arguments, by default those of the process.
    :return: The exit code: 0, or 1 after an error or a failed check.
    """
    options = _parser().parse_args(arguments)
    # Only with this does Airflow 3 read connections from its database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from airflow.cli.simple_table import AirflowConsole
    from airflow.utils.cli import suppress_logs_and_warning

    results: list[Result] = []

    @suppress_logs_and_warning
    def run(options: argparse.Namespace) -> None:
        results.append(options.command(options))

    try:
        run(options)
    except IdeogramError as error:
        sys.stderr.write(f"ideogram: {error}\n")
        return 1
    [(rows, code)] = results
    AirflowConsole().print_as(rows, options.output)
    return code


def _spend(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.account.spend import read_spend, sum_spend
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.image_store import ImageStore

    url = options.account_url or IdeogramHook(options.conn_id).settings.account_url
    if not url:
        _parser().error("the connection has no account_url: give --account-url s3://BUCKET/_ideogram/")
    objects = ImageStore(options.aws_conn_id).objects
    spend = read_spend(objects, url, options.conn_id, options.first, options.last)
    return sum_spend(spend, options.by), 0


def _doctor(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.cli.doctor import check

    checks = check(options.conn_id, options.aws_conn_id, options.bucket, options.ledger_prefix)
    return [each.to_row() for each in checks], int(any(each.has_failed for each in checks))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--conn-id", default="ideogram_default", help="the connection of type ideogram")
    common.add_argument("--aws-conn-id", default="aws_default", help="the connection of type aws")
    common.add_argument("-o", "--output", choices=("table", "json", "yaml", "plain"), default="table")
    common.add_argument("-v", "--verbose", action="store_true", help="show log lines, too")
    shown = {"parents": [common], "formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    parser = argparse.ArgumentParser(prog="ideogram", description="Nothing that this command does is charged.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    spend = commands.add_parser("spend", help="sum what the account has spent", **shown)  # type: ignore[arg-type]
    today = datetime.now(UTC).date()
    spend.add_argument("--account-url", help="where the account's objects are; the connection's by default")
    spend.add_argument("--from", dest="first", type=date.fromisoformat, default=today.replace(day=1), help="UTC day")
    spend.add_argument("--to", dest="last", type=date.fromisoformat, default=today, help="UTC day, included")
    spend.add_argument("--by", choices=tuple(COLUMNS), default="day")
    spend.set_defaults(command=_spend)

    doctor = commands.add_parser("doctor", help="check connections, S3, clock and triggerer", **shown)  # type: ignore[arg-type]
    doctor.add_argument("--bucket", help="the bucket of the images; without it, S3 is not checked")
    doctor.add_argument("--ledger-prefix", default=DEFAULT_LEDGER_PREFIX, help="the prefix of the ledger")
    doctor.set_defaults(command=_doctor)
    return parser
