"""
Run triggers on one loop, as a triggerer that has just started does, and print what blocked it.

Run as ``python -m tests.support.watched_trigger JSON``, in a process of its own: what is imported and read only
once in a process, and blocks only then, is not hidden by what another test did before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.support.event_loop import blocking_calls


async def watch(triggers: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """
    Run the triggers at once, each to its first event.

    :param triggers: The class's path and the arguments of each.
    :return: ``events`` and ``blocking``, the calls that were made on the loop's thread.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.providers.common.compat.module_loading import import_string

    # What the triggerer has done before: Airflow's secrets backends are loaded, and so are the triggers' modules.
    await get_async_connection("warm_up")
    running = [import_string(path)(**kwargs).run() for path, kwargs in triggers]
    with blocking_calls() as calls:
        events = await asyncio.gather(*(anext(events) for events in running))
    return {"events": [event.payload for event in events], "blocking": calls.found}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(json.loads(sys.argv[1])))))  # noqa: T201
