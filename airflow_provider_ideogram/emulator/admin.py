"""
The admin calls: read the stats, order faults, change settings, move the time.

They ask for no key: the emulator listens on the loopback address unless told otherwise. All bodies are JSON
objects; what is not valid is answered 400.

============================  ==================================================================
``GET /_emulator/stats``      :class:`~airflow_provider_ideogram.emulator.account.Stats`
``GET /_emulator/charges``    ``{"charges": [...]}``, each a ``Charge`` of the stats, oldest first
``POST /_emulator/faults``    Queue a fault: the fields of ``Fault``
``DELETE /_emulator/faults``  Take back what is queued
``POST /_emulator/settings``  Change settings: fields of ``EmulatorSettings``
``POST /_emulator/advance``   Move the time forward by ``{"seconds": ...}``
``POST /_emulator/reset``     Forget all jobs, faults and counts
============================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.errors import ApiError
from airflow_provider_ideogram.emulator.faults import Fault
from airflow_provider_ideogram.emulator.validation import read_inputs


def add_routes(app: web.Application, account: Account) -> None:
    """Add the admin calls of an account to an application."""

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(asdict(account.stats()))

    async def charges(_: web.Request) -> web.Response:
        found = account.store.charges(account.clock.now())
        return web.json_response({"charges": [charge._asdict() for charge in found]})

    async def clear_faults(_: web.Request) -> web.Response:
        account.faults.clear()
        return web.json_response({})

    async def reset(_: web.Request) -> web.Response:
        account.reset()
        return web.json_response({})

    app.router.add_get("/_emulator/stats", stats)
    app.router.add_get("/_emulator/charges", charges)
    app.router.add_post("/_emulator/faults", _ordering(lambda order: account.faults.add(Fault(**order))))
    app.router.add_delete("/_emulator/faults", clear_faults)
    app.router.add_post("/_emulator/settings", _ordering(account.configure))
    app.router.add_post("/_emulator/advance", _ordering(lambda order: account.clock.advance(**order)))
    app.router.add_post("/_emulator/reset", reset)


def _ordering(obey: Callable[[dict[str, Any]], None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that takes a JSON object and answers 400 where it can't be obeyed."""

    async def handler(request: web.Request) -> web.Response:
        order = read_inputs(await request.read())
        try:
            obey(order)
        except (TypeError, ValueError) as problem:
            raise ApiError(400, str(problem)) from problem
        return web.json_response({})

    return handler
