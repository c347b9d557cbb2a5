"""The command ``ideogram-emulator`` runs the emulator until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.running import connection_to
from airflow_provider_ideogram.emulator.server import serve
from airflow_provider_ideogram.emulator.settings import IMAGE_FORMATS, EmulatorSettings

_DEFAULTS = EmulatorSettings()
_DEFAULT_PORT = 8700


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Serve until SIGINT or SIGTERM.

    :param arguments: The command-line arguments, by default those of the process.
    :return: The exit code: 0 after a signal, 1 if the address cannot be bound.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    options["keys"] = tuple(options["keys"] or _DEFAULTS.keys)
    try:
        settings = EmulatorSettings(**options)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(Account(settings)))
    except OSError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    return 0


async def _serve(account: Account) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serve(account) as url:
        connection = connection_to(url, account.settings.keys[0])
        sys.stdout.write(f"Segmind emulator: {url}\nAIRFLOW_CONN_IDEOGRAM_DEFAULT='{connection}'\n")
        sys.stdout.flush()
        await stopped.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ideogram-emulator",
        description="Run a local server that implements Segmind's API for the Ideogram models, free of charge.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--host",
        default=_DEFAULTS.host,
        help="address to listen on; the admin calls on it need no API key",
    )
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="port to listen on, 0 for a free one")
    parser.add_argument(
        "--api-key", action="append", dest="keys", metavar="KEY", help="an accepted API key; can be repeated"
    )
    for name, text in (
        ("queue_seconds", "seconds that a job is QUEUED"),
        ("job_seconds", "seconds that a job is PROCESSING"),
        ("jitter", "relative variation of the job's seconds, 0 to 1"),
        ("clock_speed", "seconds on the emulator's clock per second of real time"),
        ("lifetime_seconds", "seconds after submission until status and result expire"),
        ("file_lifetime_seconds", "seconds after completion until an image expires"),
        ("credits", "the account's balance in USD"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=getattr(_DEFAULTS, name), metavar="NUMBER", help=text)
    parser.add_argument("--rate-limit", type=int, default=0, metavar="N", help="paid calls per minute, 0 for no limit")
    parser.add_argument("--random-seed", type=int, default=0, metavar="N", help="seed of the jitter and of drawn seeds")
    parser.add_argument(
        "--image-format", choices=IMAGE_FORMATS, default=_DEFAULTS.image_format, help="format of the images"
    )
    return parser
