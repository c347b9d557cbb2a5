"""
The admin calls: read the stats, queue faults, change settings, advance the clock.

They need no API key; the emulator listens on the loopback address by default. All bodies are JSON objects. An invalid
body is answered with 400.

=====================================  ==================================================================
``GET /_emulator/stats``               :class:`~airflow_provider_ideogram.emulator.account.Stats`
``GET /_emulator/requests``            ``{"requests": [...]}``, each an ``AcceptedRequest``, oldest first
``GET /_emulator/charges``             ``{"charges": [...]}``: those that are COMPLETED
``POST /_emulator/teammate-requests``  Add a teammate's request: ``{"inputs": {...}, "model": ...}``
``POST /_emulator/faults``             Queue a fault: the fields of ``Fault``
``DELETE /_emulator/faults``           Remove all queued faults
``POST /_emulator/settings``           Change settings: fields of ``EmulatorSettings``
``POST /_emulator/advance``            Move the clock forward by ``{"seconds": ...}``
``POST /_emulator/reset``              Delete all jobs, faults and counts
=====================================  ==================================================================
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

    async def requests(_: web.Request) -> web.Response:
        return web.json_response({"requests": [request._asdict() for request in account.requests()]})

    async def charges(_: web.Request) -> web.Response:
        return web.json_response({"charges": [request._asdict() for request in account.charges()]})

    def add_teammate_request(fields: dict[str, Any]) -> dict[str, Any]:
        return {"request_id": account.add_teammate_request(**fields).request_id}

    async def clear_faults(_: web.Request) -> web.Response:
        account.faults.clear()
        return web.json_response({})

    async def reset(_: web.Request) -> web.Response:
        account.reset()
        return web.json_response({})

    app.router.add_get("/_emulator/stats", stats)
    app.router.add_get("/_emulator/requests", requests)
    app.router.add_get("/_emulator/charges", charges)
    app.router.add_post("/_emulator/teammate-requests", _command(add_teammate_request))
    app.router.add_post("/_emulator/faults", _command(lambda fields: account.faults.add(Fault(**fields))))
    app.router.add_delete("/_emulator/faults", clear_faults)
    app.router.add_post("/_emulator/settings", _command(account.configure))
    app.router.add_post("/_emulator/advance", _command(lambda fields: account.clock.advance(**fields)))
    app.router.add_post("/_emulator/reset", reset)


def _command(
    execute: Callable[[dict[str, Any]], dict[str, Any] | None],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that executes a command with the JSON body, and answers 400 if a field is not valid."""

    async def handler(request: web.Request) -> web.Response:
        fields = read_inputs(await request.read())
        try:
            result = execute(fields)
        except (TypeError, ValueError) as error:
            raise ApiError(400, str(error)) from error
        return web.json_response(result or {})

    return handler
