"""
What must hold in every simulation, whatever happens: the guarantees of ``docs/money-and-failure.md``.

Invariant: a check compares what the code under test says or does with the true state of the world, and never with what
the code believes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.datasets.rows import MANIFEST
from airflow_provider_ideogram.exceptions import IdeogramError
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX
from airflow_provider_ideogram.storage.thumbnail import FOLDER
from tests.simulation.s3 import BUCKET, StoredObject
from tests.simulation.submits import AFTER_UNKNOWN, Policy, Reason, Submit, may_follow

if TYPE_CHECKING:
    from airflow_provider_ideogram.emulator.jobs import Job
    from tests.simulation.kernel import Kernel, Process
    from tests.simulation.lifecycle import TaskInstance
    from tests.simulation.vendor import Vendor

_METADATA = "ideogram-"
_TOLERANCE = 0.001


class Checks:
    """
    The checks of one simulation.

    :param kernel: The clock.
    :param policies: What the DAG says, by task instance's name.
    """

    def __init__(self, kernel: Kernel, policies: Mapping[str, Policy]) -> None:
        self._kernel, self._policies = kernel, policies
        self.vendor: Vendor | None = None
        self.bucket: Mapping[str, StoredObject] = {}
        self.reached: Counter[str] = Counter()
        self.violations: list[str] = []
        self.submits: dict[str, Submit] = {}
        self._of_image: dict[str, list[Submit]] = defaultdict(list)
        #: The lines of the last manifest that a task wrote.
        self._manifests: dict[str, list[Mapping[str, Any]]] = {}
        #: When each task last wrote its manifest.
        self._written_at: dict[str, float] = {}
        #: The last version of each of the ledger's records.
        self._records: dict[str, Mapping[str, Any]] = {}
        #: Every version of each image that was ever stored, by key and ETag.
        self._stored: dict[tuple[str, str], StoredObject] = {}

    def count(self, situation: str) -> None:
        """Count a situation that was reached."""
        self.reached[situation] += 1

    def fail(self, text: str) -> None:
        """Note a violation."""
        self._kernel.note(f"VIOLATION {text}")
        self.violations.append(text)

    def on_accept(self, job: Job) -> None:
        """Check that a submit follows its intent, and that no image is paid twice without a reason."""
        assert self.vendor is not None
        routine = self._kernel.routine
        task: TaskInstance = routine.process.task
        policy = self._policies[task.name]
        if policy.is_sensor:
            self.fail(f"sensor {task.name} submitted {job.request_id[:8]}")
        intent = routine.notes.pop("intent", None) or self._without_ledger(task, job, policy)
        if intent is None:
            return
        submit = Submit(
            job=job,
            task=task,
            image=_image_of(intent),
            key=intent["target"].removeprefix(f"s3://{BUCKET}/"),
            fingerprint=intent["fingerprint"],
            max_tries=intent["max_tries"],
            intent_at=intent["intent_at"],
            visible_at=self.vendor.account.visible_at[job.request_id],
            history_read_at=routine.notes.pop("history read at", None),
            deaths=task.deaths - routine.process.is_orphan,  # the loss of its own process excuses later submits
            is_orphan=routine.process.is_orphan,
        )
        routine.notes["submit"] = submit
        for earlier in self._of_image[submit.image]:
            if earlier.is_live:
                self._check_pair(earlier, submit, policy)
        self._of_image[submit.image].append(submit)
        self.submits[job.request_id] = submit
        self._check_budget(submit, policy)
        if routine.process.is_orphan:
            self.count("submit by a process that Airflow had failed")

    def _without_ledger(self, task: TaskInstance, job: Job, policy: Policy) -> Mapping[str, Any] | None:
        if policy.durable:
            self.fail(f"{job.request_id[:8]} was submitted without an intent in the ledger")
            return None
        now = self._kernel.now
        return {
            "target": f"{task.name}: {job.prompt}",  # the request has no key, so no image counts as stored
            "owner": task.owner,
            "fingerprint": str(job.prompt),
            "max_tries": task.max_tries,
            "intent_at": now,
        }

    def _check_budget(self, submit: Submit, policy: Policy) -> None:
        """Check that a dataset task does not spend more than it may; a clear does not raise the limit."""
        limit = None if submit.task.is_limit_raised else policy.max_cost_usd
        # Documented of ``max_cost_usd``: a submit that was answered 500, 502 or 503 does not count, even if accepted,
        # once another one took its place, for whatever reason.
        replaced = (each for each in self._of_task(submit) if each.is_answered_5xx and each.excuse)
        answered = sum(each.job.price for each in replaced)
        spent = self._spent(submit.task, submit.max_tries) - answered
        if limit is not None and spent > limit + _TOLERANCE:
            self.fail(f"{submit.task.name} spends {spent:.2f} USD, and may spend {limit:.2f}")

    def _of_task(self, submit: Submit) -> list[Submit]:
        """Return the submits of a task's group of attempts."""
        group = submit.task, submit.max_tries
        return [each for each in self.submits.values() if (each.task, each.max_tries) == group]

    def _spent(self, task: TaskInstance, max_tries: int | None = None) -> float:
        """Return what a task's requests cost, or those of a group of its attempts."""
        return sum(
            submit.job.price
            for submit in [*self.submits.values()]
            if submit.task is task and submit.is_live and max_tries in (None, submit.max_tries)
        )

    def _check_pair(self, earlier: Submit, submit: Submit, policy: Policy) -> None:
        """Check that a submit may follow an earlier one for the same image."""
        is_same_call = policy.is_function and earlier.task is submit.task and earlier.max_tries == submit.max_tries
        if earlier.fingerprint != submit.fingerprint and not is_same_call:
            return
        # Documented of an unknown submit: of several that may have been accepted, a search takes the oldest.
        if earlier.excuse is None and self._is_one_of_several(earlier):
            earlier.excuse = "the history showed an older one, which was taken"
        is_stored = earlier.stored_at is not None
        reason = (
            self._may_replace(earlier, submit, policy)
            if is_stored
            else may_follow(earlier, submit, policy, self.submits.values())
        )
        if reason is not None:
            self.count(f"paid again: {reason}")
        elif earlier.excuse is None:
            self.fail(f"{submit.image}: {submit.request_id[:8]} pays again for {earlier.request_id[:8]}")
        # It may have followed several: one that may have been accepted outweighs the others.
        submit.consent = reason if reason in AFTER_UNKNOWN else submit.consent or reason
        if not is_stored:
            earlier.excuse = earlier.excuse or reason or "a violation"

    def _may_replace(self, earlier: Submit, submit: Submit, policy: Policy) -> Reason | None:
        """Return why a submit may follow one whose image was stored."""
        is_own = earlier.task is submit.task and earlier.max_tries == submit.max_tries
        if submit.key.endswith("/"):
            return None if is_own else Reason.PREFIX
        there = self.bucket.get(submit.key)
        if there is None or there.metadata.get(f"{_METADATA}fingerprint") != submit.fingerprint:
            return Reason.REPLACED
        if there.metadata.get(f"{_METADATA}request-id") != earlier.request_id:
            return Reason.ANOTHER_STORED  # which is compared as well
        return Reason.OVERWRITE if policy.if_exists == "overwrite" and not is_own else None

    def on_put(self, key: str, stored: StoredObject) -> None:
        """Note what is stored: intents, request ids, and images."""
        if key.startswith(DEFAULT_LEDGER_PREFIX):
            if _is_record(key):
                self._on_record(key, json.loads(stored.body))
            return
        if key.endswith(MANIFEST):
            name = self._kernel.process.task.name
            self._manifests[name] = [json.loads(line) for line in stored.body.splitlines()]
            self._written_at[name] = self._kernel.now
            return
        self._stored[key, stored.etag.strip('"')] = stored
        submit = self.submits.get(stored.metadata.get(f"{_METADATA}request-id", ""))
        if submit is not None:
            if key == submit.key or (submit.key.endswith("/") and key.startswith(submit.key)):
                submit.stored_at = submit.stored_at or self._kernel.now
            else:
                submit.is_elsewhere = True
            if self._kernel.process.is_orphan:
                self.count("image stored by a process that Airflow had failed")

    def _on_record(self, key: str, record: Mapping[str, Any]) -> None:
        before, self._records[key] = self._records.get(key), record
        if before is not None and record["request_id"] is None and before["fingerprint"] != record["fingerprint"]:
            self._give_up(before)
        submit = self.submits.get(record["request_id"] or "")
        if submit is not None:
            submit.is_recorded = True
            submit.is_adopted |= record["owner"] != submit.task.owner
        elif record["request_id"] is None:
            if before is not None and before["request_id"] is None and before["owner"] != record["owner"]:
                for earlier in self._of_image[_image_of(record)]:
                    earlier.is_adopted |= not earlier.is_recorded
            self._kernel.routine.notes["intent"] = record

    def _give_up(self, record: Mapping[str, Any]) -> None:
        """Note that the requests of a record are given up for other inputs; another task's must not be running."""
        process, now = self._kernel.process, self._kernel.now
        for earlier in self._of_image[_image_of(record)]:
            if earlier.fingerprint != record["fingerprint"] or earlier.stored_at is not None or earlier.excuse:
                continue
            is_running = now < earlier.job.done_at and now < earlier.job.record_expires_at
            if earlier.task is not process.task and earlier.request_id == record["request_id"] and is_running:
                self.fail(f"{earlier.image}: {process.name} gives up {earlier.request_id[:8]} of another task")
            earlier.excuse = Reason.OTHER_INPUTS

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Count what a trigger found out."""
        for report in event["requests"].values():
            self.count(f"polled: {report['outcome']}")

    def on_slice_end(
        self, task: TaskInstance, process: Process, state: str, result: Any, error: BaseException | None
    ) -> None:
        """Check what a slice returns or raises."""
        cause = cause_of(error)
        if isinstance(cause, IdeogramError):
            self.count(f"error: {cause.code}")
            self._check_charged(task, cause)
        elif state == "failed":
            self.fail(f"{task.name} ends with an error that is not the provider's: {error!r}")
        if state == "success" and not process.is_orphan:
            self.check_result(task, result)
        self.count(f"slice ends: {state}{' unseen' if process.is_orphan else ''}")

    def _check_charged(self, task: TaskInstance, error: IdeogramError) -> None:
        """Check what an error says of the money."""
        submit = self.submits.get(error.request_id or "")
        if submit is None or error.charged is None:
            return
        is_charged = submit.is_live and submit.job.done_at <= self._kernel.now
        if error.charged is True and not is_charged:
            self.fail(f"{task.name}: the error says that {submit.request_id[:8]} was charged: {error}")
        if error.charged is False and submit.is_live:
            self.fail(f"{task.name}: the error says that {submit.request_id[:8]} was not charged: {error}")

    def check_result(self, task: TaskInstance, result: Mapping[str, Any]) -> None:
        """Check the XCom of an image against the object that was stored."""
        if "manifest_uri" in result:
            self._check_dataset(task, result)
        elif "uri" in result:
            self._check_image(task, result)

    def _check_dataset(self, task: TaskInstance, result: Mapping[str, Any]) -> None:
        """Check the XCom of a dataset, and the manifest that its process wrote."""
        lines = self._manifests[task.name]
        rows = [line["row"] for line in lines]
        if rows != list(range(result["total"])):
            self.fail(f"{task.name}: the manifest has the rows {rows}, and {result['total']} are planned")
        counted = Counter(line["status"] for line in lines)
        said = {status.value: result[status.value] for status in ImageStatus if result[status.value]}
        if said != counted:
            self.fail(f"{task.name}: counts {said}, and truly {dict(counted)}")
        # Documented of ``cost_usd``: what the run was charged, all attempts included. Beside the lines these are lost
        # images, as far as a worker lived to count them, and requests of another task that this one takes from the
        # history after its own submit.
        named = [self.submits[line["request_id"]] for line in lines if line["request_id"] in self.submits]
        adopted = sum(each.job.price for each in named if each.is_adopted and each.task is not task)
        cost, spent = sum(line["cost_usd"] or 0.0 for line in lines), self._spent(task) + adopted
        if not cost - _TOLERANCE <= result["cost_usd"] <= spent + _TOLERANCE:
            self.fail(
                f"{task.name}: cost_usd is {result['cost_usd']}, its lines have {cost:.2f}, and {spent:.2f} was spent"
            )
        for line in lines:
            self.count(f"line: {line['status']}")
            if line["error"] is None:
                self._check_image(task, line)

    def _check_image(self, task: TaskInstance, line: Mapping[str, Any]) -> None:
        """Check the description of an image."""
        stored = self._stored.get((line["key"], line["etag"]))
        submit = self.submits.get(line["request_id"])
        if stored is None or submit is None:
            self.fail(f"{task.name} names an image that was never stored: {line['key']} {line['etag']}")
            return
        facts = {
            "sha256": hashlib.sha256(stored.body).hexdigest(),
            "size_bytes": len(stored.body),
            "request_id": stored.metadata.get(f"{_METADATA}request-id"),
            "prompt": submit.inputs["prompt"],
            "seed": submit.inputs["seed"],
            "cost_usd": 0.0 if line["reused"] else submit.job.price,
        }
        for name, fact in facts.items():
            is_unknown = line[name] is None and name in ("prompt", "seed") and self._policies[task.name].is_sensor
            if line[name] != fact and not is_unknown:
                self.fail(f"{task.name}: {name} is {line[name]!r}, and truly {fact!r}")
        is_own = submit.task is task and submit.max_tries == task.max_tries
        is_own = is_own and line["key"].startswith(submit.key)  # and is not the copy for another row
        # Documented of "reuse": an attempt after a success that Airflow did not see has another run's manifest only.
        ends = [at for name, at in self._written_at.items() if name != task.name]
        is_others_line = submit.stored_at is not None and any(at > submit.stored_at for at in ends)
        # Documented of a target: a task that takes over another one's unknown submit has its charge.
        if line["reused"] and is_own and not (is_others_line or submit.is_adopted):
            self.fail(f"{task.name} paid for {submit.request_id[:8]} and calls it reused")
        # Documented: a sensor reports the charge of the request that another task submitted. A task that submits after
        # another one's unknown submit, and then takes that from the history, has its charge.
        may_be_others = self._policies[task.name].is_sensor or submit.is_adopted
        if not line["reused"] and submit.task is not task and not may_be_others:
            self.fail(f"{task.name} did not pay for {submit.request_id[:8]} and calls it its own")

    def at_end(self, healed_at: float, changed: Collection[str], *, may_refuse: bool) -> None:
        """
        Check that no paid image was given up, and that the ledger is empty.

        :param healed_at: When further attempts could succeed: a file that was gone by then is lost.
        :param changed: The task instances whose inputs were changed, by their names in the ledger.
        :param may_refuse: Whether a task refuses to replace an image, and so does not tidy up after another one.
        """
        own = [key for key in self.bucket if key.startswith(DEFAULT_LEDGER_PREFIX)]
        records = {key: json.loads(self.bucket[key].body) for key in own if _is_record(key)}
        held = {record["request_id"] for record in records.values()}
        in_doubt = {(each["target"], each["fingerprint"]) for each in records.values() if each["request_id"] is None}
        for submit in self.submits.values():
            is_stored = submit.stored_at is not None or submit.is_elsewhere
            is_lost = submit.job.file_expires_at <= healed_at
            # The second guarantee: the next attempt finds it by its record. Which records may be left is checked below.
            is_held = submit.request_id in held or (submit.image, submit.fingerprint) in in_doubt
            is_excused = submit.excuse or self._is_one_of_several(submit)
            # Documented of ``durable=False``: without a ledger the second guarantee ends with the process.
            is_excused = is_excused or not self._policies[submit.task.name].durable
            if submit.is_live and not (is_stored or is_excused or is_lost or is_held):
                self.fail(f"{submit.image}: {submit.request_id[:8]} is paid, and its image was given up")
        # A dataset's state stays unless images are reused; the object of a killed worker's probe and thumbnails stay.
        left = [key for key in own if not key.endswith("/state.json") and "/.probe-" not in key and FOLDER not in key]
        # Documented of "reuse": an image of the same inputs is the result, whatever the record says. So the record of a
        # row that was changed, and changed back while its first image is stored, stays as well.
        left = [key for key in left if key not in records or not self._is_of_changed(records[key], changed)]
        # So does that of a row that ``max_failures`` leaves without an image: it is kept for the next attempt.
        lines = [line for manifest in self._manifests.values() for line in manifest if line["error"]]
        without_image = {f"{DEFAULT_LEDGER_PREFIX}{line['key']}.json" for line in lines}
        left = [key for key in left if key not in without_image]
        if left and not may_refuse:
            self.fail(f"the ledger is not empty: {', '.join(left)}")

    def _is_one_of_several(self, submit: Submit) -> bool:
        """Return whether a submit followed an unknown one whose image was stored since."""
        same = [other for other in self._of_image[submit.image] if other.inputs == submit.inputs]
        sent_at = submit.job.submitted_at
        return submit.consent in AFTER_UNKNOWN and any(
            other.job.submitted_at < sent_at < (other.stored_at or 0.0) for other in same
        )

    def _is_of_changed(self, record: Mapping[str, Any], changed: Collection[str]) -> bool:
        """Return whether a record is of inputs that were changed since, and of which there is an image now."""
        image = self.bucket.get(record["target"].removeprefix(f"s3://{BUCKET}/"))
        if image is None or record["owner"] not in changed:
            return False
        # An image that a sensor stored has no inputs.
        return bool(image.metadata.get(f"{_METADATA}fingerprint") != record["fingerprint"])


def _image_of(intent: Mapping[str, Any]) -> str:
    """Return what names the image: the target, and below a prefix the task instance as well."""
    target: str = intent["target"]
    return f"{target}{intent['owner']}" if target.endswith("/") else target


def _is_record(key: str) -> bool:
    """Return whether an object below the ledger's prefix is a record."""
    return not any(folder in key for folder in (".dataset/", "/.probe-", FOLDER))


def cause_of(error: BaseException | None) -> BaseException | None:
    """Return the provider's error behind Airflow's."""
    context = getattr(
        error, "__context__", None
    )  # Airflow's error is raised without a cause, so that a log has one text
    return context if not isinstance(error, IdeogramError) and isinstance(context, IdeogramError) else error
