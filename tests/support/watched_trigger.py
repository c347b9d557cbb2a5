"""
Run triggers on one event loop, as a triggerer does after its start, and print the blocking calls.

Run as ``python -m tests.support.watched_trigger JSON``, in a new process: a call that blocks only once in a process,
such as an import, would otherwise be hidden by earlier tests.
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
    :return: ``events`` and ``blocking``, the blocking calls on the loop's thread.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.providers.common.compat.module_loading import import_string

    # The triggerer has loaded Airflow's secrets backends and the triggers' modules before.
    await get_async_connection("warm_up")
    running = [import_string(path)(**kwargs).run() for path, kwargs in triggers]
    with blocking_calls() as calls:
        events = await asyncio.gather(*(anext(events) for events in running))
    return {"events": [event.payload for event in events], "blocking": calls.found}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(json.loads(sys.argv[1])))))  # noqa: T201
