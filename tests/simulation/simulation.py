"""
One simulation: a DAG in a world of faults, then the healing of the world, then the last checks.

Invariant: after the world is healed, and a person has cleared what failed, every task succeeds. A state in which no
further attempt can succeed is a violation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

from airflow_provider_ideogram.exceptions import IdeogramJobFailed, IdeogramObjectExists, IdeogramResultExpired
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX
from airflow_provider_ideogram.storage.thumbnail import FOLDER
from tests.simulation.checks import Checks, cause_of
from tests.simulation.faults import Faults
from tests.simulation.kernel import EPOCH, Kernel, Process
from tests.simulation.lifecycle import Airflow, TaskInstance
from tests.simulation.profiles import PROFILES, Dag
from tests.simulation.s3 import Bucket, SimulatedS3
from tests.simulation.servers import Servers
from tests.simulation.surroundings import Running, running
from tests.simulation.vendor import Vendor

#: Seconds until the world is healed after the last task has ended, and between the rounds of clears then: the history's
#: longest delay and the longest wait for another task are three hours.
_HEALED_AFTER, _ROUNDS = (0.0, 300.0, 4_000.0, 12_000.0), (0.0, 600.0, 4 * 3600.0, 4 * 3600.0)
_NO_IMAGE = (IdeogramJobFailed, IdeogramResultExpired)


@dataclass(frozen=True)
class Result:
    """
    The end of a simulation.

    :param violations: The guarantees that did not hold.
    :param reached: How often each situation was reached.
    :param digest: A digest of the trace.
    :param trace: Everything that happened.
    """

    violations: list[str]
    reached: Counter[str]
    digest: str
    trace: list[str]


class Simulation:
    """
    One simulation.

    :param seed: Decides everything.
    :param profile: The kind of DAG.
    """

    def __init__(self, seed: int, profile: str) -> None:
        self._kernel = kernel = Kernel(f"{profile}/{seed}")
        self._dag: Dag = PROFILES[profile](kernel.rng)
        self._faults = Faults(kernel.rng, EPOCH, self._dag.excluded)
        self._checks = Checks(kernel, self._dag.policies)
        self._bucket = Bucket(self._checks.on_put)
        servers = Servers(kernel, self._faults, self._checks.count)
        self._s3 = SimulatedS3(servers, self._bucket)
        self._vendor = Vendor(servers, self._checks.on_accept)
        self._checks.vendor, self._checks.bucket = self._vendor, self._bucket.objects
        self._airflow = Airflow(servers, self._vendor, self._checks)

    def run(self) -> Result:
        """Run the simulation in the surroundings of :func:`tests.simulation.surroundings.replaced`."""
        kernel, checks = self._kernel, self._checks
        with running(Running(kernel, self._vendor, self._s3), chunk_rows=3):
            kernel.spawn(Process("world"), self._world)
            if not kernel.run():
                checks.violations.append("the tasks never end")
        reached = checks.reached + Counter({f"fault: {kind}": n for kind, n in self._faults.happened.items()})
        return Result(checks.violations, reached, kernel.digest, kernel.trace)

    def _world(self) -> None:
        kernel = self._kernel
        ends = [kernel.spawn(Process(f"airflow {task.name}"), partial(self._begin, task)) for task in self._dag.tasks]
        for end in ends:
            kernel.wait(end)
        kernel.sleep(kernel.rng.choice(_HEALED_AFTER))
        self._heal()
        healed_at = kernel.now
        for seconds in _ROUNDS:
            kernel.sleep(seconds)
            self._clear_what_failed()
        for task in self._dag.tasks:
            if task.can_begin and not self._is_done(task):
                self._checks.fail(f"{task.name} never succeeds: {task.error}")
        if any(key.startswith(DEFAULT_LEDGER_PREFIX) and FOLDER not in key for key in self._bucket.objects):
            for task in self._dag.tasks:  # what could not be deleted is deleted by the next task for the image
                task.is_limit_raised = True  # with "overwrite" it pays for all images again
                self._again(task)
        refused = any(_refuses(task) for task in self._dag.tasks)
        changed = {task.owner for task in self._dag.tasks if task.version}
        self._checks.at_end(healed_at, changed, may_refuse=refused)

    def _clear_what_failed(self) -> None:
        """Clear what failed, as the errors advise."""
        for task in self._dag.tasks:
            if not task.can_begin or self._is_done(task):
                continue
            if task.after is not None and isinstance(cause_of(task.error), _NO_IMAGE):
                self._again(task.after)  # a sensor waits for a request that will never have an image
                if task.after.state != "success":
                    continue  # Airflow begins no task after a failed one
            # The limit also counts requests that may be charged, and lost images, so that true needs don't tell.
            task.is_limit_raised |= "max_cost_usd" in str(task.error)
            self._again(task)

    def _begin(self, task: TaskInstance) -> None:
        if task.after is not None:
            self._kernel.wait(task.after.ended)
        self._kernel.sleep(task.begins_at)
        if task.can_begin:
            self._airflow.run(task)
        self._kernel.fire(task.ended)

    def _heal(self) -> None:
        self._faults.is_on = False
        self._kernel.note("the world is healed")
        for task in self._dag.tasks:
            task.clears_left, task.must_wait = 0, True

    def _again(self, task: TaskInstance) -> None:
        if task.can_begin:
            self._airflow.clear(task)
            self._airflow.run(task)

    def _is_done(self, task: TaskInstance) -> bool:
        """Return whether a task has succeeded, or rightly ends without an image."""
        if task.state == "success":
            return "ledger_uri" not in task.result  # then it has an image, and not only a request
        if task.after is not None and isinstance(cause_of(task.error), IdeogramResultExpired):
            return self._is_done(task.after)  # which has the image that the vendor no longer holds
        refusing = task if task.after is None else task.after  # of which Airflow begins no later task
        return task.state == "skipped" or _refuses(refusing)


def _refuses(task: TaskInstance) -> bool:
    """Return whether a task, or a dataset's row, refuses to replace an image."""
    return isinstance(cause_of(task.error), IdeogramObjectExists) or "if_exists is 'fail'" in str(task.error)
