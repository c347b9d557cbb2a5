"""
The commands, which both ``ideogram`` and ``airflow ideogram`` run.

Invariant: no command submits a request, so none is charged. Imports nothing heavy: each call of ``airflow`` loads it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_ideogram.exceptions import IdeogramError, IdeogramInvalidInput
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.cli.reconcile import Scope, Sums

#: The rows to print, and the exit code.
Result: TypeAlias = tuple[list[dict[str, Any]], int]

DESCRIPTION = "Account and images of the Ideogram provider; nothing that these commands do is charged"


@dataclass(frozen=True, slots=True)
class Argument:
    """
    An argument of a command.

    :param flags: Its name, or its options.
    :param options: The keyword arguments of argparse.
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """
    A command.

    :param run: Returns the rows to print and the exit code.
    """

    name: str
    help: str
    arguments: Sequence[Argument]
    run: Callable[[argparse.Namespace], Result]

    def __call__(self, options: argparse.Namespace) -> None:
        """Run it, print the rows, and end the process with the exit code."""
        sys.exit(execute(self, options))


def execute(command: Command, options: argparse.Namespace) -> int:
    """Run a command, print its rows, and return the exit code: 1 after an error or a finding."""
    # Only with this does Airflow 3 read connections from its database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from airflow.cli.simple_table import AirflowConsole
    from airflow.utils.cli import suppress_logs_and_warning

    results: list[Result] = []

    @suppress_logs_and_warning
    def run(options: argparse.Namespace) -> None:
        results.append(command.run(options))

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
    from airflow_provider_ideogram.storage.image_store import ImageStore

    objects = ImageStore(options.aws_conn_id).objects
    spend = read_spend(objects, _account_url(options), options.conn_id, options.first, options.last)
    return sum_spend(spend, options.by), 0


def _account_url(options: argparse.Namespace) -> str:
    """Return where the account's objects are; raise IdeogramInvalidInput if nothing names it, or not as an address."""
    from airflow_provider_ideogram.hooks.connection import parse_account_url
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

    if options.account_url is None:
        url = IdeogramHook(options.conn_id).settings.account_url
        if url is None:
            problem = "the connection has no account_url: give --account-url s3://BUCKET/_ideogram/"
            raise IdeogramInvalidInput.of([problem])
        return url
    try:
        return parse_account_url(options.account_url)
    except ValueError as error:
        raise IdeogramInvalidInput.of([f"--account-url: {error}"]) from error


def _doctor(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.cli.doctor import check

    checks = check(options.conn_id, options.aws_conn_id, options.bucket, options.ledger_prefix)
    return [each.to_row() for each in checks], int(any(each.has_failed for each in checks))


def _plan(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.cli.plan import is_refused, load_dag, plan

    rows = plan(load_dag(options.dag_id), options.first, options.last or options.first, options.conf)
    return rows, int(any(map(is_refused, rows)))


def _reconcile(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.cli.reconcile import Sums, reconcile, spend_row
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.image_store import ImageStore

    objects, scope, sums = ImageStore(options.aws_conn_id).objects, _scope(options), Sums()
    with IdeogramHook(options.conn_id) as hook:
        found = reconcile(hook, objects, scope, sums)
        listed = [finding.to_row() for finding in found if finding.state in options.list]
    rows = listed if options.list else [*sums.to_rows(), spend_row(objects, scope)]
    return rows, int(_warn_of(sums) or bool(sums.unreadable))


def _recover(options: argparse.Namespace) -> Result:
    from airflow_provider_ideogram.cli.reconcile import State, Sums, reconcile
    from airflow_provider_ideogram.cli.recover import STORED, Recovery
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.storage.image_store import ImageStore

    store = ImageStore(options.aws_conn_id, options.s3_extra_args, options.ledger_prefix)
    states = frozenset({State.RECOVERABLE, *([State.FOREIGN] if options.include_foreign else [])})
    sums = Sums()
    with IdeogramHook(options.conn_id) as hook:
        recovery = Recovery(hook, store, options.ledger_prefix, options.prefix, states)
        rows = list(recovery.run(reconcile(hook, store.objects, _scope(options), sums)))
    return rows, int(_warn_of(sums) or any(row["result"] != STORED for row in rows))


def _warn_of(sums: Sums) -> bool:
    """Say what can't be read, and return whether there is anything."""
    sys.stderr.writelines(f"ideogram: {problem}\n" for problem in sums.problems)
    return bool(sums.problems)


def _scope(options: argparse.Namespace) -> Scope:
    from airflow_provider_ideogram.account.account import place_of
    from airflow_provider_ideogram.cli.reconcile import Scope

    url = _account_url(options)
    places = options.images or [Target(place_of(url, options.conn_id)[0], "")]
    return Scope(options.first, options.last, places, options.ledger_prefix, url, options.conn_id)


def _folder(text: str) -> Target:
    """Return the prefix of an address ``s3://bucket/prefix/``, whose prefix may be empty."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address s3://BUCKET/PREFIX/")
    return Target(bucket, key if key.endswith("/") or not key else f"{key}/")


def _prefix(text: str) -> Target:
    """Return the prefix of an address, which must not be empty."""
    folder = _folder(text)
    if not folder.key:
        raise argparse.ArgumentTypeError(f"{text!r} names no prefix: s3://BUCKET/PREFIX/")
    return folder


def _days(first: str, last: str, first_default: date | None, last_default: date | None) -> list[Argument]:
    return [
        Argument(("--from",), {"dest": "first", "type": date.fromisoformat, "default": first_default, "help": first}),
        Argument(("--to",), {"dest": "last", "type": date.fromisoformat, "default": last_default, "help": last}),
    ]


def _option(flag: str, text: str, **options: Any) -> Argument:
    return Argument((flag,), {"help": text, **options})


def commands() -> list[Command]:
    """Return all commands."""
    today = datetime.now(UTC).date()
    conn_id = _option("--conn-id", "The connection of type ideogram", default="ideogram_default")
    aws_conn_id = _option("--aws-conn-id", "The connection of type aws", default="aws_default")
    shown = [
        Argument(
            ("-o", "--output"),
            {"choices": ("table", "json", "yaml", "plain"), "default": "table", "help": "Output format"},
        ),
        Argument(("-v", "--verbose"), {"action": "store_true", "help": "Show log lines, too"}),
    ]
    account = _option("--account-url", "Where the account's objects are; the connection's by default")
    ledger = _option("--ledger-prefix", "The prefix of the ledger", default=DEFAULT_LEDGER_PREFIX)
    month = _days("First UTC day", "Last UTC day, included", today.replace(day=1), today)
    by = _option("--by", "What to sum by", choices=("day", "dag", "task", "model"), default="day")
    bucket = _option("--bucket", "The bucket of the images; without it, S3 is not checked")
    plan_arguments = [
        Argument(("dag_id",), {"help": "The DAG"}),
        *_days("First UTC day of the runs", "Last UTC day, included; the first by default", today, None),
        _option("--conf", "The configuration of the runs as JSON", type=json.loads, default={}),
    ]
    compared = [
        conn_id,
        aws_conn_id,
        account,
        *_days("First UTC day of the requests", "Last UTC day, included", today - timedelta(days=6), today),
        _option(
            "--images",
            "s3://BUCKET/PREFIX/ that has images, several times for several; by default the bucket of the account",
            action="append",
            type=_folder,
            default=None,
        ),
        ledger,
        *shown,
    ]
    listed = _option(
        "--list",
        "Show the requests of this state instead of the sums; several times for several",
        action="append",
        choices=("stored", "running", "recoverable", "lost", "failed", "foreign"),
        default=[],
    )
    rescued = [
        _option("--prefix", "s3://BUCKET/PREFIX/ for images whose targets are unknown or taken", type=_prefix),
        _option("--include-foreign", "Also store those not known to be this deployment's", action="store_true"),
        _option("--s3-extra-args", "Arguments of put_object as JSON, such as encryption", type=json.loads, default={}),
    ]
    return [
        Command(
            "reconcile", "Compare the vendor's history with images, ledger and spend", [*compared, listed], _reconcile
        ),
        Command("recover", "Store paid images that no task has stored", [*compared, *rescued], _recover),
        Command("spend", "Sum what the account has spent", [conn_id, aws_conn_id, account, *month, by, *shown], _spend),
        Command(
            "doctor",
            "Check connections, S3, clock and triggerer",
            [conn_id, aws_conn_id, bucket, ledger, *shown],
            _doctor,
        ),
        Command("plan", "Show what a DAG would generate, and for how much at most", [*plan_arguments, *shown], _plan),
    ]
