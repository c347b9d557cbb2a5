"""
The three books, compared.

An *image* is a prompt: the DAGs give each key and inputs one of its own. A task makes one, or those of a dataset. It
is *paid twice* if the emulator charged it again after a job that did not fail, and *explained* if a task's log says,
before it paid again, that a person or `on_unknown_submit` wanted that, or if a rival's image had taken the key's place
in between. A paid image is *lost* if it is COMPLETED at the vendor, and was never in S3, is not named by a failed
task's or row's message, nor in the ledger, nor was given up for a run with other inputs, which a warning says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.emulator.drawing import Picture, draw
from tests.system.experiment import Diary, TaskKey, key_of
from tests.system.plan import BUCKET, PlannedRun
from tests.system.task_logs import TaskLogs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dev.airflow_api import AirflowApi

Json = dict[str, Any]
LEDGER_PREFIX = "_ideogram/"
_WORKSPACE = ".dataset/"
_MANIFEST = "/manifest.jsonl"
_PAID_AGAIN = re.compile(
    r"Since (a person cleared the task|on_unknown_submit is 'resubmit'|the vendor no longer holds its result)"
    r", a new request is submitted and charged"
)
_NOT_REMOVED = "could not be removed"
_STATUSES = tuple(ImageStatus)


@dataclass
class Verdict:
    """
    What the comparison found.

    :param violations: Broken invariants, by name; empty lists are kept ones.
    :param facts: Counts worth a line.
    :param troubled: The images of broken invariants.
    """

    violations: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class StoredImage:
    """An object in S3."""

    key: str
    request_id: str
    sha256: str


@dataclass(frozen=True)
class Bucket:
    """
    What is in S3 after a run.

    :param stored: The images, by key.
    :param ledger: The ledger's records, by key.
    :param workspaces: The keys of what datasets keep between their slices.
    :param manifests: Each dataset's lines, by its set.
    """

    stored: dict[str, StoredImage] = field(default_factory=dict)
    ledger: dict[str, Json] = field(default_factory=dict)
    workspaces: list[str] = field(default_factory=list)
    manifests: dict[str, list[Json]] = field(default_factory=dict)


class Books:
    """
    Everything that is known after a run.

    :param runs: The runs by id.
    :param charges: The emulator's.
    :param s3: A client that no fault is between.
    :param ever_stored: The request ids of all images that S3 ever took.
    :param instances: All task instances.
    :param xcoms: The results of those that succeeded, by task.
    """

    def __init__(
        self,
        runs: dict[str, PlannedRun],
        charges: list[Json],
        s3: S3Client,
        ever_stored: list[str],
        instances: list[Json],
        xcoms: dict[TaskKey, Json],
        logs: TaskLogs,
        diary: Diary,
    ) -> None:
        self.runs = runs
        self.charges = {charge["request_id"]: charge for charge in charges}
        self.instances = {key_of(one): one for one in instances}
        self.xcoms = xcoms
        self.ever_stored = set(ever_stored)
        self.logs = logs
        self.diary = diary
        self.s3 = _read_s3(s3)
        self.lines = {line["prompt"]: line for lines in self.s3.manifests.values() for line in lines}
        self.tasks_of: dict[str, list[TaskKey]] = defaultdict(list)
        for key in self.instances:
            for image in self.images_of(key):
                self.tasks_of[image].append(key)

    def images_of(self, task: TaskKey) -> list[str]:
        """Return the prompts of a task's images."""
        return self.runs[task[0]].prompts(task[1])

    def compare(self) -> Verdict:
        """Check all invariants."""
        verdict = Verdict()
        checks = (
            self._double_charges,
            self._lost_images,
            self._stored_bytes,
            self._xcoms,
            self._manifests,
            self._takeovers,
            self._stuck_tasks,
            self._unnamed_failures,
            self._left_records,
        )
        for check in checks:
            check(verdict)
        return verdict

    def _double_charges(self, verdict: Verdict) -> None:
        by_image = defaultdict(list)
        for charge in self.charges.values():
            by_image[charge["inputs"]["prompt"]].append(charge)
        doubles: list[str] = []
        explained: Counter[str] = Counter()
        after_failure = 0
        for image, charges in by_image.items():
            charges.sort(key=lambda charge: charge["accepted_at"])
            for earlier, later in pairwise(charges):
                if earlier["state"] == "FAILED":
                    after_failure += 1
                elif reason := self._why_again(image, earlier, later):
                    explained[reason] += 1
                else:
                    doubles.append(f"{image}: {earlier['request_id']} and {later['request_id']}")
                    verdict.troubled.add(image)
        verdict.violations["paid twice"] = doubles
        verdict.facts["paid again after a FAILED job"] = after_failure
        for reason, count in explained.items():
            verdict.facts[f"paid again since {reason}"] = count

    def _why_again(self, image: str, earlier: Json, later: Json) -> str:
        for task in self.tasks_of[image]:
            if reason := self._told_to_pay(task, image):
                return reason
        rivals = [self._rival_charge(image, charge) for charge in self.charges.values()]
        between = [one for one in rivals if one and earlier["accepted_at"] < one["done_at"] < later["accepted_at"]]
        return "a rival's image took the key" if between else ""

    def _told_to_pay(self, task: TaskKey, image: str) -> str:
        """Return why a task's log says that it pays again for an image, "" if it does not."""
        target = "/{}/{}.png at ".format(*_key_of(image))
        lines = [line for line in self.logs.text(task).splitlines() if target in line]
        matches = [match.group(1) for line in lines if (match := _PAID_AGAIN.search(line))]
        return matches[0] if matches else ""

    def _rival_charge(self, image: str, charge: Json) -> Json | None:
        other = charge["inputs"]["prompt"]
        return charge if other != image and _key_of(other) == _key_of(image) else None

    def _lost_images(self, verdict: Verdict) -> None:
        in_s3 = {image.request_id for image in self.s3.stored.values()}
        # An intent without a request id holds the image too: the next attempt looks it up in the history.
        in_ledger = {record["request_id"] or record["request"]["prompt"] for record in self.s3.ledger.values()}
        replaced = "paid and stored, then replaced by an image that was wanted there"
        named = "paid, not stored, and held by the failed task's message or the ledger"
        given_up = "paid and given up with a warning that names it"
        counts = Counter({replaced: 0, named: 0, given_up: 0})
        lost = []
        for request_id, charge in self.charges.items():
            if charge["state"] != "COMPLETED" or request_id in in_s3:
                continue
            image = charge["inputs"]["prompt"]
            if request_id in self.ever_stored:
                counts[replaced] += 1
            elif in_ledger & {request_id, image} or self._named_by_failure(image, request_id):
                counts[named] += 1
            elif self._given_up(image, request_id):
                counts[given_up] += 1
            else:
                lost.append(f"{image}: {request_id}")
                verdict.troubled.add(image)
        verdict.violations["paid and lost"] = lost
        verdict.facts |= counts

    def _given_up(self, image: str, request_id: str) -> bool:
        """Tell whether a run with other inputs for the key, or one that was told to, gave a paid request up."""
        key = _key_of(image)
        tasks = [task for other, tasks in self.tasks_of.items() if _key_of(other) == key for task in tasks]
        logs = [self.logs.text(task) for task in tasks]
        return any(f"Request {request_id} of" in log and "It is given up" in log for log in logs) or any(
            self._told_to_pay(task, image) for task in tasks
        )

    def _named_by_failure(self, image: str, request_id: str) -> bool:
        for task in self.tasks_of[image]:
            one = self.instances[task]
            if one["state"] == "failed" and request_id in self.logs.failure(task, one["try_number"]).text:
                return True
        return request_id in (self.lines.get(image, {}).get("error") or "")

    def _stored_bytes(self, verdict: Verdict) -> None:
        wrong = []
        for stored in self.s3.stored.values():
            charge = self.charges.get(stored.request_id)
            if charge is None or _drawn_sha256(charge) != stored.sha256:
                wrong.append(f"{stored.key}: {stored.request_id}")
        verdict.violations["stored bytes that the emulator did not make"] = wrong
        verdict.facts["objects in S3"] = len(self.s3.stored)

    def _xcoms(self, verdict: Verdict) -> None:
        wrong, payers = [], defaultdict(list)
        images = {task: xcom for task, xcom in self.xcoms.items() if not self.runs[task[0]].rows}
        for task, xcom in images.items():
            (image,) = self.images_of(task)
            stored = self.s3.stored.get(xcom["key"])
            charge = self.charges.get(xcom["request_id"])
            if charge is None or stored is None or charge["inputs"]["prompt"] != image:
                wrong.append(f"{task}: {xcom['request_id']} of {xcom['uri']} is not in the other books")
                continue
            if xcom["cost_usd"]:
                payers[xcom["request_id"]].append(task)
            if contradicts(xcom, _drawn_sha256(charge)):
                wrong.append(f"{task}: cost {xcom['cost_usd']}, reused {xcom['reused']}, or its hash is wrong")
        wrong += [f"{request_id} paid by {tasks}" for request_id, tasks in payers.items() if len(tasks) > 1]
        wrong += [f"{task} succeeded without a result" for task in self._succeeded() if task not in self.xcoms]
        verdict.violations["XComs that contradict the other books"] = wrong
        paid = [charge for charge in self.charges.values() if charge["state"] == "COMPLETED"]
        verdict.facts["charges"] = len(self.charges)
        verdict.facts["charges of COMPLETED jobs"] = len(paid)
        verdict.facts["XComs that say what was paid"] = len(payers)
        verdict.facts["XComs that say reused"] = sum(xcom["reused"] for xcom in images.values())

    def _manifests(self, verdict: Verdict) -> None:
        if not (datasets := {run_id: run for run_id, run in self.runs.items() if run.rows}):
            return
        wrong = []
        for run_id, run in datasets.items():
            lines = self.s3.manifests.get(run.image_set, [])
            wrong += [f"{run_id}: {problem}" for problem in compare_manifest(run, lines, self.xcoms.get((run_id, -1)))]
            for line in lines:
                if line["status"] in ("generated", "reused") and not self._is_in_the_books(line):
                    wrong.append(f"{run_id} row {line['row']}: {line['request_id']} is not in the other books")
                    verdict.troubled.add(line["prompt"])
        verdict.violations["manifests that contradict the other books"] = wrong
        statuses = Counter(line["status"] for line in self.lines.values())
        verdict.facts |= {f"rows of the dataset: {status}": count for status, count in statuses.items()}

    def _takeovers(self, verdict: Verdict) -> None:
        measured = [outage for outage in self.diary.outages if outage.seconds]
        if measured:
            verdict.violations["jobs of a dead triggerer that nobody took over or finished"] = [
                f"{outage.what}: {outage.seconds}" for outage in measured if None in outage.seconds.values()
            ]

    def _is_in_the_books(self, line: Json) -> bool:
        """Tell whether the image of a manifest's line was paid for, and is in S3 as it was made."""
        charge, stored = self.charges.get(line["request_id"]), self.s3.stored.get(line["key"])
        if charge is None or stored is None or charge["inputs"]["prompt"] != line["prompt"]:
            return False
        sha256 = _drawn_sha256(charge)
        return stored.request_id == line["request_id"] and stored.sha256 == sha256 and not contradicts(line, sha256)

    def _succeeded(self) -> list[TaskKey]:
        return [task for task, one in self.instances.items() if one["state"] == "success"]

    def _stuck_tasks(self, verdict: Verdict) -> None:
        stuck = [f"{task}: {one['state']}" for task, one in self.instances.items() if not _ended(one)]
        verdict.violations["stuck"] = stuck
        verdict.facts["succeeded"] = len(self._succeeded())
        verdict.facts["failed"] = len(self.instances) - len(self._succeeded()) - len(stuck)

    def _unnamed_failures(self, verdict: Verdict) -> None:
        failures = self.diary.failures.items()
        verdict.violations["failed without a named reason"] = [
            f"{task} try {number}" for (task, number), failure in failures if not failure.kind
        ]

    def _left_records(self, verdict: Verdict) -> None:
        left, explained, of_failed = [], 0, 0
        if all(self.instances[run_id, -1]["state"] == "success" for run_id, run in self.runs.items() if run.rows):
            left += self.s3.workspaces
        for key, record in self.s3.ledger.items():
            _, run_id, _, map_index = record["owner"].split("/")
            task, image = (run_id, int(map_index)), record["request"]["prompt"]
            if self.instances[task]["state"] == "failed" or self.lines.get(image, {}).get("status") == "failed":
                of_failed += 1
            elif any(f"{key} {_NOT_REMOVED}" in self.logs.text(task) for task in self.tasks_of[image]):
                explained += 1
            else:
                left.append(f"{key}: {record['request_id']} of {record['owner']}")
        verdict.violations["records left in the ledger"] = left
        verdict.facts["records of failed tasks and rows"] = of_failed
        verdict.facts["records that S3 did not let go, as a warning says"] = explained


def contradicts(result: Json, sha256: str) -> bool:
    """Tell whether an image's result says other bytes than these, or both that it was paid and that it was reused."""
    return bool(result["cost_usd"]) is result["reused"] or result["sha256"] != sha256


def compare_manifest(run: PlannedRun, lines: list[Json], xcom: Json | None) -> list[str]:
    """Return where a dataset's manifest is not what was ordered, or not what its task's result says."""
    wrong = []
    if [(line["row"], line["prompt"]) for line in lines] != list(enumerate(run.prompts(-1))):
        wrong.append(f"its {len(lines)} lines are not the {run.rows} rows in their order")
    wrong += [
        f"row {line['row']} is {line['status']} with error {line['error']!r}"
        for line in lines
        if (line["status"] not in ("generated", "reused")) is not bool(line["error"])
    ]
    counts = Counter(line["status"] for line in lines)
    if xcom is not None and any(xcom.get(status, 0) != counts[status] for status in _STATUSES):
        counted = {status: xcom.get(status, 0) for status in _STATUSES}
        wrong.append(f"its task counts {counted}, its lines {dict(counts)}")
    return wrong


def read_xcoms(api: AirflowApi, instances: list[Json]) -> dict[TaskKey, Json]:
    """Return the results of the tasks that succeeded, but for those without one."""
    succeeded = [one for one in instances if one["state"] == "success"]

    def read(one: Json) -> Json | None:
        try:
            found: Json = api.xcom(one)
        except httpx.HTTPStatusError:
            return None
        return found

    with ThreadPoolExecutor(2) as pool:
        found = zip(succeeded, pool.map(read, succeeded), strict=True)
        return {key_of(one): xcom for one, xcom in found if xcom}


def _key_of(image: str) -> tuple[str, str]:
    """Return what rivals have in common: the set and the number."""
    name, _, number = image.split()
    return name, number


def _ended(task_instance: Json) -> bool:
    return task_instance["state"] in ("success", "failed")


def _read_s3(s3: S3Client) -> Bucket:
    bucket = Bucket()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            key = item["Key"]
            answer = s3.get_object(Bucket=BUCKET, Key=key)
            content = answer["Body"].read()
            if key.startswith(LEDGER_PREFIX) and _WORKSPACE in key:
                bucket.workspaces.append(key)
            elif key.startswith(LEDGER_PREFIX):
                bucket.ledger[key] = json.loads(content)
            elif key.endswith(_MANIFEST):
                bucket.manifests[key.split("/")[-2]] = [json.loads(line) for line in content.splitlines()]
            else:
                request_id = answer["Metadata"].get("ideogram-request-id", "")
                bucket.stored[key] = StoredImage(key, request_id, hashlib.sha256(content).hexdigest())
    return bucket


_hashes: dict[str, str] = {}


def _drawn_sha256(charge: Json) -> str:
    """Return the hash of the image that a charge was for, drawn again."""
    request_id = charge["request_id"]
    if request_id not in _hashes:
        inputs = charge["inputs"]
        picture = Picture(
            charge["model"],
            inputs["prompt"],
            inputs["magic_prompt_option"],
            inputs["resolution"],
            inputs["style_type"],
            charge["seed"],
            "png",
        )
        _hashes[request_id] = hashlib.sha256(draw(picture)).hexdigest()
    return _hashes[request_id]
