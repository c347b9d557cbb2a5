"""
The comparison of what the emulator accepted and charged, what is in S3, and what Airflow's tasks reported.

An *image* is a prompt: the DAGs give each key and inputs their own prompt. A task makes one image, or those of a
dataset. An image is *paid twice* if the emulator charged two requests for it. That is *explained* if a task's log names
the person or the setting that permitted it, or if a competing run's image was stored under the key in between. A
completed request is *lost* if its image was never in S3, and neither a failed task's or row's message nor the ledger
names it, nor a warning says that it was abandoned for other inputs.
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

from airflow_provider_ideogram.account import account
from airflow_provider_ideogram.api.status import ImageStatus
from airflow_provider_ideogram.emulator.drawing import Picture, draw
from airflow_provider_ideogram.storage import thumbnail
from tests.system.experiment import EventLog, TaskKey, key_of
from tests.system.plan import BUCKET, PlannedRun
from tests.system.task_logs import TaskLogs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dev.airflow_api import AirflowApi

Json = dict[str, Any]
LEDGER_PREFIX = "_ideogram/"
#: What is no record: what a worker leaves that was killed while it probed the store, thumbnails, the account's objects.
_OTHERS = (f"{LEDGER_PREFIX}.probe-", f"{LEDGER_PREFIX}{thumbnail.FOLDER}", f"{LEDGER_PREFIX}{account.FOLDER}")
_WORKSPACE = ".dataset/"
_MANIFEST = "/manifest.jsonl"
#: The reasons of log lines for which a second charge of an image is permitted.
_PERMITTED = re.compile(
    r"\. (A person cleared the task|on_unknown_submit is 'resubmit'|The inputs were changed)"
    r": a new request is submitted"
)
_RECOVERED = re.compile(r"Request (\S+) is recovered from the account's history")
_NOT_DELETED = "could not be deleted"
#: USD by which a reported cost may differ from the charge.
_COST_TOLERANCE = 1e-4
_STATUSES = tuple(ImageStatus)


@dataclass
class Verdict:
    """
    The result of the comparison.

    :param violations: The violations of each invariant; an empty list means that it holds.
    :param facts: Counts and sums for the report.
    :param affected: The images of violated invariants.
    """

    violations: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    affected: set[str] = field(default_factory=set)


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
    :param workspaces: The keys of the datasets' working objects.
    :param manifests: Each dataset's lines, by its set.
    """

    stored: dict[str, StoredImage] = field(default_factory=dict)
    ledger: dict[str, Json] = field(default_factory=dict)
    workspaces: list[str] = field(default_factory=list)
    manifests: dict[str, list[Json]] = field(default_factory=dict)


class Comparison:
    """
    All data of a run, and the checks of the invariants.

    :param runs: The runs by id.
    :param requests: The requests that the emulator accepted, with state and cost.
    :param s3: A client of the S3 server without faults.
    :param ever_stored: The request ids of all images that were ever stored in S3.
    :param instances: All task instances.
    :param xcoms: The results of those that succeeded, by task.
    :param logs: The tasks' logs.
    :param events: What was done to the system.
    """

    def __init__(
        self,
        runs: dict[str, PlannedRun],
        requests: list[Json],
        s3: S3Client,
        ever_stored: list[str],
        instances: list[Json],
        xcoms: dict[TaskKey, Json],
        logs: TaskLogs,
        events: EventLog,
    ) -> None:
        self.runs = runs
        self.requests = {request["request_id"]: request for request in requests}
        self.instances = {key_of(one): one for one in instances}
        self.xcoms = xcoms
        self.ever_stored = set(ever_stored)
        self.logs = logs
        self.events = events
        self.s3 = _read_s3(s3)
        self.lines = {line["prompt"]: line for lines in self.s3.manifests.values() for line in lines}
        self.tasks_of: dict[str, list[TaskKey]] = defaultdict(list)
        for key in self.instances:
            for image in self.images_of(key):
                self.tasks_of[image].append(key)

    def images_of(self, task: TaskKey) -> list[str]:
        """Return the prompts of a task's images."""
        return self.runs[task[0]].prompts(task[1])

    def run(self) -> Verdict:
        """Check all invariants."""
        verdict = Verdict()
        checks = (
            self._double_charges,
            self._lost_images,
            self._stored_bytes,
            self._xcoms,
            self._costs,
            self._recoveries,
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
        for request in self.requests.values():
            by_image[request["inputs"]["prompt"]].append(request)
        doubles: list[str] = []
        explained: Counter[str] = Counter()
        after_failure = 0
        for image, requests in by_image.items():
            requests.sort(key=lambda request: request["accepted_at"])
            for earlier, later in pairwise(requests):
                if earlier["state"] == "FAILED":
                    after_failure += 1
                elif reason := self._why_again(image, earlier, later):
                    explained[reason] += 1
                else:
                    doubles.append(f"{image}: {earlier['request_id']} and {later['request_id']}")
                    verdict.affected.add(image)
        verdict.violations["paid twice"] = doubles
        verdict.facts["submitted again after a FAILED request, which costs nothing"] = after_failure
        for reason, count in explained.items():
            verdict.facts[f"paid again: {reason}"] = count

    def _why_again(self, image: str, earlier: Json, later: Json) -> str:
        for task in self.tasks_of[image]:
            if reason := self._permission(task):
                return reason
        competing = [self._competing_request(image, request) for request in self.requests.values()]
        between = [one for one in competing if one and earlier["accepted_at"] < one["done_at"] < later["accepted_at"]]
        return "a competing run's image was stored under the key" if between else ""

    def _permission(self, task: TaskKey) -> str:
        """Return why a task's log says that its image may be paid again, "" if it does not."""
        if self.runs[task[0]].rows:  # the line does not name the row
            return ""
        match = _PERMITTED.search(self.logs.text(task))
        return match.group(1) if match else ""

    def _competing_request(self, image: str, request: Json) -> Json | None:
        other = request["inputs"]["prompt"]
        return request if other != image and _key_of(other) == _key_of(image) else None

    def _lost_images(self, verdict: Verdict) -> None:
        in_s3 = {image.request_id for image in self.s3.stored.values()}
        # An intent without a request id holds the image too: the next attempt looks it up in the history.
        in_ledger = {record["request_id"] or record["request"]["prompt"] for record in self.s3.ledger.values()}
        replaced = "paid and stored, then replaced by the image of other inputs"
        named = "paid, not stored, and named by the failed task's message or the ledger"
        abandoned = "paid and abandoned with a warning that names it"
        counts = Counter({replaced: 0, named: 0, abandoned: 0})
        lost = []
        for request_id, request in self.requests.items():
            if request["state"] != "COMPLETED" or request_id in in_s3:
                continue
            image = request["inputs"]["prompt"]
            if request_id in self.ever_stored:
                counts[replaced] += 1
            elif in_ledger & {request_id, image} or self._named_by_failure(image, request_id):
                counts[named] += 1
            elif self._abandoned(image, request_id):
                counts[abandoned] += 1
            else:
                lost.append(f"{image}: {request_id}")
                verdict.affected.add(image)
        verdict.violations["paid and lost"] = lost
        verdict.facts |= counts

    def _abandoned(self, image: str, request_id: str) -> bool:
        """Return whether a run abandoned a paid request, because of other inputs or because a user permitted it."""
        key = _key_of(image)
        tasks = [task for other, tasks in self.tasks_of.items() if _key_of(other) == key for task in tasks]
        logs = [self.logs.text(task) for task in tasks]
        return any(f"Request {request_id} of" in log and "It is abandoned" in log for log in logs) or any(
            self._permission(task) for task in tasks
        )

    def _named_by_failure(self, image: str, request_id: str) -> bool:
        for task in self.tasks_of[image]:
            one = self.instances[task]
            if one["state"] == "failed" and request_id in self.events.failure(one).text:
                return True
        return request_id in (self.lines.get(image, {}).get("error") or "")

    def _stored_bytes(self, verdict: Verdict) -> None:
        wrong = []
        for stored in self.s3.stored.values():
            request = self.requests.get(stored.request_id)
            if request is None or _drawn_sha256(request) != stored.sha256:
                wrong.append(f"{stored.key}: {stored.request_id}")
        verdict.violations["stored bytes that the emulator did not make"] = wrong
        verdict.facts["objects in S3"] = len(self.s3.stored)

    def _xcoms(self, verdict: Verdict) -> None:
        wrong, payers = [], defaultdict(list)
        images = self._image_xcoms()
        for task, xcom in images.items():
            (image,) = self.images_of(task)
            stored = self.s3.stored.get(xcom["key"])
            request = self.requests.get(xcom["request_id"])
            if request is None or stored is None or request["inputs"]["prompt"] != image:
                wrong.append(f"{task}: {xcom['request_id']} of {xcom['uri']} is not at the vendor or in S3")
                continue
            if xcom["cost_usd"]:
                payers[xcom["request_id"]].append(task)
            if contradicts(xcom, _drawn_sha256(request)):
                wrong.append(f"{task}: cost {xcom['cost_usd']}, reused {xcom['reused']}, or its hash is wrong")
        wrong += [f"{request_id} paid by {tasks}" for request_id, tasks in payers.items() if len(tasks) > 1]
        wrong += [f"{task} succeeded without a result" for task in self._succeeded() if task not in self.xcoms]
        verdict.violations["XComs that contradict the vendor or S3"] = wrong
        completed = [request for request in self.requests.values() if request["state"] == "COMPLETED"]
        verdict.facts["accepted requests"] = len(self.requests)
        verdict.facts["charged requests"] = len(completed)
        verdict.facts["XComs with a cost"] = len(payers)
        verdict.facts["XComs of reused images"] = sum(xcom["reused"] for xcom in images.values())

    def _costs(self, verdict: Verdict) -> None:
        """Compare each reported cost with the charge of its request."""
        reported = {str(task): xcom for task, xcom in self._image_xcoms().items()}
        reported |= {line["prompt"]: line for line in self.lines.values() if line["status"] in ("generated", "reused")}
        verdict.violations["costs that differ from the charge"] = [
            f"{name}: {result['cost_usd']}, {result['original_cost_usd']} of {result['request_id']}"
            for name, result in reported.items()
            if (request := self.requests.get(result["request_id"])) and not has_true_cost(result, request["cost_usd"])
        ]
        verdict.facts["charged in USD"] = round(sum(request["cost_usd"] for request in self.requests.values()), 4)
        verdict.facts["reported in USD"] = round(sum(result["cost_usd"] or 0 for result in reported.values()), 4)

    def _recoveries(self, verdict: Verdict) -> None:
        """Count the requests that outlived their record and were found in the account's history."""
        recovered = {match for task in self.instances for match in _RECOVERED.findall(self.logs.text(task))}
        verdict.facts["requests recovered from the account's history"] = len(recovered)

    def _image_xcoms(self) -> dict[TaskKey, Json]:
        return {task: xcom for task, xcom in self.xcoms.items() if not self.runs[task[0]].rows}

    def _manifests(self, verdict: Verdict) -> None:
        if not (datasets := {run_id: run for run_id, run in self.runs.items() if run.rows}):
            return
        wrong = []
        for run_id, run in datasets.items():
            lines = self.s3.manifests.get(run.image_set, [])
            wrong += [f"{run_id}: {problem}" for problem in compare_manifest(run, lines, self.xcoms.get((run_id, -1)))]
            for line in lines:
                if line["status"] in ("generated", "reused") and not self._is_paid_and_stored(line):
                    wrong.append(f"{run_id} row {line['row']}: {line['request_id']} is not at the vendor or in S3")
                    verdict.affected.add(line["prompt"])
        verdict.violations["manifests that contradict the vendor or S3"] = wrong
        statuses = Counter(line["status"] for line in self.lines.values())
        verdict.facts |= {f"rows of the dataset: {status}": count for status, count in statuses.items()}

    def _takeovers(self, verdict: Verdict) -> None:
        measured = [outage for outage in self.events.outages if outage.seconds]
        if measured:
            verdict.violations["triggers of a killed triggerer that no other one ran or finished"] = [
                f"{outage.what}: {outage.seconds}" for outage in measured if None in outage.seconds.values()
            ]

    def _is_paid_and_stored(self, line: Json) -> bool:
        """Return whether the image of a manifest's line was accepted by the vendor, and is in S3 as it was made."""
        request, stored = self.requests.get(line["request_id"]), self.s3.stored.get(line["key"])
        if request is None or stored is None or request["inputs"]["prompt"] != line["prompt"]:
            return False
        sha256 = _drawn_sha256(request)
        return stored.request_id == line["request_id"] and stored.sha256 == sha256 and not contradicts(line, sha256)

    def _succeeded(self) -> list[TaskKey]:
        return [task for task, one in self.instances.items() if one["state"] == "success"]

    def _stuck_tasks(self, verdict: Verdict) -> None:
        stuck = [f"{task}: {one['state']}" for task, one in self.instances.items() if not _ended(one)]
        verdict.violations["stuck"] = stuck
        verdict.facts["succeeded"] = len(self._succeeded())
        verdict.facts["failed"] = len(self.instances) - len(self._succeeded()) - len(stuck)

    def _unnamed_failures(self, verdict: Verdict) -> None:
        failures = self.events.failures.items()
        verdict.violations["failed without a named reason"] = [
            f"{task} try {number}" for (task, number), failure in failures if not failure.reason
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
            elif any(f"{key} {_NOT_DELETED}" in self.logs.text(task) for task in self.tasks_of[image]):
                explained += 1
            else:
                left.append(f"{key}: {record['request_id']} of {record['owner']}")
        verdict.violations["records left in the ledger"] = left
        verdict.facts["records of failed tasks and rows"] = of_failed
        verdict.facts["records that could not be deleted, as a warning says"] = explained


def contradicts(result: Json, sha256: str) -> bool:
    """Return whether a result has another hash, or is both paid and reused, or neither."""
    return bool(result["cost_usd"]) is result["reused"] or result["sha256"] != sha256


def has_true_cost(result: Json, charged_usd: float) -> bool:
    """Return whether a result has the charge of its request as its original cost, and as its own unless reused."""
    own = 0.0 if result["reused"] else charged_usd
    return (
        result["cost_usd"] is not None
        and result["original_cost_usd"] is not None
        and abs(result["cost_usd"] - own) < _COST_TOLERANCE
        and abs(result["original_cost_usd"] - charged_usd) < _COST_TOLERANCE
        and not result["cost_is_estimate"]
    )


def compare_manifest(run: PlannedRun, lines: list[Json], xcom: Json | None) -> list[str]:
    """Return the differences of a dataset's manifest from its rows and from its task's result."""
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
    """Return the results of the tasks that succeeded and have one."""
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
    """Return the set and the number, which competing images share."""
    name, _, number = image.split()
    return name, number


def _ended(task_instance: Json) -> bool:
    return task_instance["state"] in ("success", "failed")


def _read_s3(s3: S3Client) -> Bucket:
    bucket = Bucket()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            key = item["Key"]
            if key.startswith(_OTHERS):
                continue
            response = s3.get_object(Bucket=BUCKET, Key=key)
            content = response["Body"].read()
            if key.startswith(LEDGER_PREFIX) and _WORKSPACE in key:
                bucket.workspaces.append(key)
            elif key.startswith(LEDGER_PREFIX):
                bucket.ledger[key] = json.loads(content)
            elif key.endswith(_MANIFEST):
                bucket.manifests[key.split("/")[-2]] = [json.loads(line) for line in content.splitlines()]
            else:
                request_id = response["Metadata"].get("ideogram-request-id", "")
                bucket.stored[key] = StoredImage(key, request_id, hashlib.sha256(content).hexdigest())
    return bucket


_hashes: dict[str, str] = {}


def _drawn_sha256(request: Json) -> str:
    """Return the hash of a request's image, which is drawn again."""
    request_id = request["request_id"]
    if request_id not in _hashes:
        inputs = request["inputs"]
        picture = Picture(
            request["model"],
            inputs["prompt"],
            inputs["magic_prompt_option"],
            inputs["resolution"],
            inputs["style_type"],
            request["seed"],
            "png",
        )
        _hashes[request_id] = hashlib.sha256(draw(picture)).hexdigest()
    return _hashes[request_id]
