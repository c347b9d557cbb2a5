"""
The triggerer: polls requests by the package's own decisions, on the virtual clock.

The package's coroutines need an event loop, which has no virtual clock that a whole simulation shares. The polls, their
waits and the event are the package's; the loop over them is written again here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.calls import get_status
from airflow_provider_ideogram.exceptions import IdeogramError
from tests.simulation.surroundings import connection_settings
from tests.simulation.vendor import SimulatedClient

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.triggers.request import IdeogramTrigger
    from tests.simulation.kernel import Kernel
    from tests.simulation.vendor import Vendor


def await_event(kernel: Kernel, vendor: Vendor, trigger: IdeogramTrigger) -> Mapping[str, Any]:
    """Return the event that the trigger fires."""
    polls = trigger._new_polls()
    kernel.sleep(trigger.not_before - kernel.now)
    if polls:
        _watch(kernel, SimulatedClient(vendor, connection_settings()), trigger, polls)
    else:
        kernel.sleep(trigger.deadline - kernel.now)
    reports = {poll.request_id: poll.report() for poll in polls}
    return {"requests": reports, "payload": trigger.payload, "error": None}


def _watch(kernel: Kernel, client: SimulatedClient, trigger: IdeogramTrigger, polls: list[RequestPoll]) -> None:
    """Poll until enough requests are settled or the deadline passes."""
    rng = Random(kernel.rng.random())
    missing = len(polls) if trigger.min_settled is None else min(trigger.min_settled, len(polls))
    queue = [(kernel.now + poll.delay(kernel.now, rng), number) for number, poll in enumerate(polls)]
    heapq.heapify(queue)
    while missing:
        at, number = heapq.heappop(queue)
        if at >= trigger.deadline:
            kernel.sleep(trigger.deadline - kernel.now)
            return
        kernel.sleep(at - kernel.now)
        poll = polls[number]
        try:
            poll.on_status(client.run(get_status(poll.request_id), 1), kernel.now)
        except IdeogramError as error:
            poll.on_error(error, kernel.now)
        if poll.settled:
            missing -= 1
        else:
            heapq.heappush(queue, (kernel.now + poll.delay(kernel.now, rng), number))
