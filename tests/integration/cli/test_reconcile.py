"""``ideogram reconcile`` and ``ideogram recover``: each request has a state, and what can be had is stored once."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow import settings
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_provider_ideogram.account.account import FOLDER as ACCOUNT_FOLDER
from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender, day_of
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.api.history import HistoryPage, HistoryRow
from airflow_provider_ideogram.api.parameters import GenerationRequest
from airflow_provider_ideogram.cli import reconcile
from airflow_provider_ideogram.cli.evidence import Evidence, requests_of_tasks
from airflow_provider_ideogram.cli.main import main
from airflow_provider_ideogram.datasets.rows import Item
from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
from airflow_provider_ideogram.jobs.completion import fetch_and_store
from airflow_provider_ideogram.jobs.identity import attempt_group
from airflow_provider_ideogram.jobs.ledger import Ledger
from airflow_provider_ideogram.jobs.record import Intent
from airflow_provider_ideogram.storage.image_record import made_by, made_from, paid_by_group
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore
from airflow_provider_ideogram.storage.target import Target
from tests.support.s3 import answered_for
from tests.support.world import DAY, HOUR

if TYPE_CHECKING:
    from tests.support.world import World

OWNER = "posters/run/image/-1"
SPENDER = Spender("posters", "image", "ideogram-2a-txt-2-img")


@pytest.fixture(autouse=True)
def environment(ideogram_connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's database has no XComs."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setattr(reconcile, "requests_of_tasks", lambda since: iter(()))


@pytest.fixture
def empty_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's database has no tables."""
    engine = create_engine("sqlite://")
    monkeypatch.setattr(settings, "Session", sessionmaker(engine))
    yield
    engine.dispose()


class Deployment:
    """A deployment's requests and what it has of them."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = world
        self.capsys = capsys
        self.objects = ObjectStore(world.s3)
        self.ledger = Ledger(self.objects, world.bucket)

    def submit(self, prompt: str, seed: int | None = 7) -> str:
        """Submit a request, let it end, and return its id."""
        with IdeogramHook() as hook:
            request_id = hook.submit(GenerationRequest(prompt, seed=seed)).request_id
        self.world.pass_time(1)
        return request_id

    def store(self, request_id: str, key: str) -> str:
        """Store an image with its metadata, and return its ETag."""
        metadata = {"ideogram-request-id": request_id}
        return self.world.s3.put_object(Bucket=self.world.bucket, Key=key, Body=b"image", Metadata=metadata)["ETag"]

    def record(self, request_id: str | None, key: str, prompt: str, reservation: str | None = None) -> Intent:
        """Write the ledger's record of a request, or an intent without its id; return the intent."""
        request = GenerationRequest(prompt)
        target, now = Target(self.world.bucket, key), self.world.clock() - 2
        sent = GenerationRequest(prompt, seed=7)
        intent = Intent(sent, request.fingerprint, target.uri, now, OWNER, 0, reservation=reservation)
        record = self.ledger.write_intent(self.ledger.key_of(target, OWNER), intent)
        if request_id is not None:
            self.ledger.record_request(record, request_id)
        return intent

    def reserve(self, **ends: Any) -> str:
        """Reserve an amount on this day, or settle it, and return its address."""
        date = day_of(self.world.clock())
        key = f"{place_of(self.url, 'ideogram_default')[1]}{date}-1.json"

        def change(state: DayBudget | None) -> tuple[dict[str, Any], None]:
            day = state or DayBudget(date)
            name = f"r{len(day.lost)}"
            assert day.reserve(name, SPENDER, 0.05, Caps(), now=0.0, record=None) is None
            if ends:
                day.settle(name, None, **ends)
            return day.to_json(), None

        AccountStore(self.objects, self.world.bucket).update(key, DayBudget.from_json, change)
        return f"s3://{self.world.bucket}/{key}#r0"

    @property
    def url(self) -> str:
        return self.world.uri("_ideogram/")

    def end(self, key: str) -> None:
        """Delete the ledger's record of a key."""
        self.world.s3.delete_object(
            Bucket=self.world.bucket, Key=self.ledger.key_of(Target(self.world.bucket, key), OWNER)
        )

    def run(self, command: str, *arguments: str, code: int = 0, url: str | None = None) -> list[dict[str, str]]:
        """Run a command for the last ten days, and return its rows."""
        today = datetime.fromtimestamp(self.world.clock(), UTC).date()
        days = ["--from", str(today - timedelta(days=10)), "--to", str(today)]
        self.capsys.readouterr()
        assert main([command, "--account-url", url or self.url, *days, *arguments, "-o", "json"]) == code
        rows: list[dict[str, str]] = json.loads(self.capsys.readouterr().out)
        return rows

    def states(self) -> dict[str, tuple[int, float]]:
        """Return the number of requests and their cost by state."""
        return {row["state"]: (int(row["requests"]), float(row["cost_usd"])) for row in self.run("reconcile")}

    def listed(self, state: str) -> list[tuple[str, str]]:
        """Return the ids and places of the requests in a state."""
        return [(row["request_id"], row["place"]) for row in self.run("reconcile", "--list", state)]


@contextmanager
def during_the_reading(act: Callable[[], object]) -> Iterator[None]:
    """Act once the bucket's ledger and images are read."""
    add_place = Evidence.add_place

    def then_act(evidence: Evidence, place: Target) -> None:
        add_place(evidence, place)
        act()

    with mock.patch.object(Evidence, "add_place", then_act):
        yield


@pytest.fixture
def deployment(world: World, capsys: pytest.CaptureFixture[str]) -> Deployment:
    return Deployment(world, capsys)


class TestReconcile:
    def test_each_request_has_a_state_and_the_sums_are_the_historys(self, deployment: Deployment) -> None:
        world = deployment.world
        lost = deployment.submit("lost")
        deployment.record(lost, "lost.png", "lost")
        named = deployment.submit("named as lost")
        deployment.reserve(lost_request_id=named)
        world.pass_time(8 * DAY)
        for number in range(2):
            deployment.store(deployment.submit(f"stored {number}"), f"{number}.png")
        recoverable = deployment.submit("recoverable")
        deployment.record(recoverable, "recoverable.png", "recoverable")
        deployment.submit("failed [[fault:failed]]")
        deployment.submit("made elsewhere")
        world.emulator.add_teammate_request({"prompt": "a teammate's"})
        world.pass_time(HOUR)
        storing = deployment.submit("about to be stored")
        deployment.record(storing, "storing.png", "about to be stored")
        world.emulator.configure(job_seconds=600)
        running = deployment.submit("running")
        deployment.record(running, "running.png", "running")

        assert deployment.states() == {
            "stored": (2, 0.1),
            "running": (2, 0.05),
            "recoverable": (1, 0.05),
            "lost": (2, 0.1),
            "failed": (1, 0.0),
            "foreign": (2, 0.1),
            "total": (10, 0.4),
            "recorded": (1, 0.05),
        }
        assert deployment.listed("recoverable") == [(recoverable, world.uri("recoverable.png"))]
        assert {request_id for request_id, _ in deployment.listed("lost")} == {lost, named}
        assert world.submits == 9

    def test_several_outputs_cost_once(self, deployment: Deployment) -> None:
        deployment.world.emulator.configure(outputs=3)
        deployment.store(deployment.submit("three"), "three.png")
        assert deployment.states()["total"] == (1, 0.05)

    def test_pages_are_read_to_the_end(self, deployment: Deployment) -> None:
        for number in range(205):
            deployment.world.emulator.add_teammate_request({"prompt": f"{number}"})
        deployment.world.pass_time(60)
        assert deployment.states()["total"] == (205, 10.25)

    def test_rows_that_cannot_be_read_are_counted(self, deployment: Deployment) -> None:
        deployment.submit("readable")
        deployment.world.emulator.add_teammate_request({"prompt": "x"})
        with mock.patch("airflow_provider_ideogram.api.history.is_request_id", side_effect=[True, False]):
            rows = deployment.run("reconcile", code=1)
        assert {"state": "unreadable", "requests": "1", "cost_usd": "0.0"} in rows

    def test_unknown_submit_is_found_by_its_inputs(self, deployment: Deployment) -> None:
        request_id = deployment.submit("unknown")
        deployment.record(None, "unknown.png", "unknown")
        deployment.world.pass_time(HOUR)
        assert deployment.listed("recoverable") == [(request_id, deployment.world.uri("unknown.png"))]

    def test_item_of_a_dataset_is_found_by_its_inputs(self, deployment: Deployment) -> None:
        request_id = deployment.submit("planned")
        item = Item(0, "a", GenerationRequest("planned"), "set/a")
        lines = json.dumps(item.to_json()) + "\n[]\n"
        deployment.world.put("_ideogram/set/.dataset/x/todo-000001-000000.jsonl", lines.encode())
        assert deployment.listed("running") == [(request_id, deployment.world.uri("set/a"))]
        deployment.world.pass_time(HOUR)
        assert deployment.listed("recoverable") == [(request_id, deployment.world.uri("set/a"))]

    def test_manifest_spares_the_reading_of_images(self, deployment: Deployment) -> None:
        stored, gone = deployment.submit("stored"), deployment.submit("gone")
        etag = deployment.store(stored, "set/a").strip('"')
        lines = [
            {"request_id": stored, "key": "set/a", "etag": etag},
            {"request_id": gone, "key": "set/b", "etag": "x"},
        ]
        manifest = "".join(json.dumps(line) + "\n" for line in lines)
        deployment.world.put("set/manifest.jsonl", manifest.encode())
        deployment.world.pass_time(HOUR)
        with mock.patch.object(ObjectStore, "head") as head:
            assert deployment.listed("stored") == [(stored, deployment.world.uri("set/a"))]
        head.assert_not_called()
        assert deployment.listed("recoverable") == [(gone, "")]

    def test_request_of_a_task_is_known_by_its_xcom(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known, elsewhere = deployment.submit("without a ledger"), deployment.submit("in another bucket")
        deployment.world.pass_time(HOUR)
        deployment.world.s3.create_bucket(Bucket=(bucket := f"{deployment.world.bucket}-2"))
        deployment.world.s3.put_object(
            Bucket=bucket, Key="a.png", Body=b"image", Metadata={"ideogram-request-id": elsewhere}
        )
        tasks = [(known, None), (elsewhere, {"uri": f"s3://{bucket}/a.png"})]
        monkeypatch.setattr(reconcile, "requests_of_tasks", lambda since: iter(tasks))
        assert deployment.listed("recoverable") == [(known, "")]
        assert deployment.listed("stored") == [(elsewhere, f"s3://{bucket}/a.png")]

    def test_bucket_that_cannot_be_read_is_an_error(self, deployment: Deployment) -> None:
        with answered_for("ListObjectsV2", ""):
            assert main(["reconcile", "--account-url", deployment.url]) == 1
        assert "s3" in deployment.capsys.readouterr().err

    def test_image_that_its_task_stores_meanwhile_is_no_missing_one(self, deployment: Deployment) -> None:
        world, request_id = deployment.world, deployment.submit("slow")
        deployment.record(request_id, "slow.png", "slow")
        world.pass_time(HOUR)

        def end() -> None:
            deployment.store(request_id, "slow.png")
            deployment.end("slow.png")

        with during_the_reading(end):
            assert deployment.run("recover", "--prefix", world.uri("rescued/")) == []
        assert deployment.listed("stored") == [(request_id, world.uri("slow.png"))]
        assert world.object_keys("rescued/") == []

    def test_record_of_a_later_request_is_left_to_it(self, deployment: Deployment) -> None:
        world, first = deployment.world, deployment.submit("first")
        deployment.record(first, "a.png", "first")
        world.pass_time(HOUR)

        def submit_again() -> None:
            deployment.end("a.png")
            deployment.record(deployment.submit("second"), "a.png", "second")

        with during_the_reading(submit_again):
            assert deployment.run("recover") == []
        assert world.object_keys("_ideogram/a.png") == ["_ideogram/a.png.json"]

    def test_age_counts_to_the_beginning_of_the_reading(self, deployment: Deployment) -> None:
        request_id = deployment.submit("planned")
        lines = json.dumps(Item(0, "a", GenerationRequest("planned"), "set/a").to_json()) + "\n"
        deployment.world.put("_ideogram/set/.dataset/x/todo-000001-000000.jsonl", lines.encode())
        with during_the_reading(lambda: deployment.world.pass_time(HOUR)):
            assert deployment.listed("running") == [(request_id, deployment.world.uri("set/a"))]

    @pytest.mark.usefixtures("empty_database")
    @pytest.mark.parametrize("command", ["reconcile", "recover"])
    def test_database_that_cannot_be_read_is_told(
        self, command: str, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reconcile, "requests_of_tasks", requests_of_tasks)
        assert main([command, "--account-url", deployment.url]) == 1
        assert "Airflow's database can't be read here" in deployment.capsys.readouterr().err

    def test_error_of_the_program_is_no_unreadable_database(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reconcile, "requests_of_tasks", lambda since: iter([None]))
        with pytest.raises(TypeError):
            main(["reconcile", "--account-url", deployment.url])

    def test_address_without_a_slash_is_the_same_one(self, deployment: Deployment) -> None:
        deployment.reserve(lost_request_id="lost")
        sums = {row["state"]: row["requests"] for row in deployment.run("reconcile", url=deployment.url.rstrip("/"))}
        assert sums["recorded"] == "1"


class TestRecover:
    def test_image_is_stored_as_its_task_would(self, deployment: Deployment) -> None:
        world, reservation = deployment.world, deployment.reserve()
        request_id = deployment.submit("recoverable")
        deployment.record(request_id, "images/a.png", "recoverable", reservation)
        world.pass_time(HOUR)

        [row] = deployment.run("recover")

        assert (row["result"], row["place"]) == ("stored", world.uri("images/a.png"))
        assert world.stored("images/a.png") == world.emulator.image_bytes(request_id)
        head = world.s3.head_object(Bucket=world.bucket, Key="images/a.png")
        assert made_from(head, GenerationRequest("recoverable"))
        assert paid_by_group(head, attempt_group(OWNER, 0))
        assert (made_by(head), head["Metadata"]["ideogram-original-cost-usd"]) == (request_id, "0.05")
        assert world.object_keys("_ideogram/images/") == []
        assert deployment.states()["recorded"] == (1, 0.05)
        assert deployment.run("recover") == []
        assert world.submits == 1

    def test_list_price_is_not_settled_as_charged(self, deployment: Deployment) -> None:
        reservation = deployment.reserve()
        request_id = deployment.submit("of unknown cost")
        deployment.record(request_id, "a.png", "of unknown cost", reservation)
        deployment.world.pass_time(HOUR)
        with mock.patch("airflow_provider_ideogram.api.history.number_of", return_value=None):
            [row] = deployment.run("recover")
        assert row["result"] == "stored"
        [spend] = deployment.run("spend")
        assert (spend["images"], spend["unknown"], spend["spent_usd"]) == ("0", "1", "0.05")

    @pytest.mark.parametrize("target", ["a.png", "folder/"])
    def test_image_that_is_there_by_now_is_stored(self, target: str, deployment: Deployment) -> None:
        world, reservation = deployment.world, deployment.reserve()
        request_id = deployment.submit("recoverable")
        intent = deployment.record(request_id, target, "recoverable", reservation)
        key = target if target == "a.png" else f"{target}{intent.attempt_group[:8]}-{request_id}.png"
        world.pass_time(HOUR)

        def store_before(*arguments: Any, **options: Any) -> Any:
            deployment.store(request_id, key)
            return fetch_and_store(*arguments, **options)

        with mock.patch("airflow_provider_ideogram.cli.recover.fetch_and_store", store_before):
            [row] = deployment.run("recover")

        assert (row["result"], row["place"]) == ("stored", world.uri(key))
        assert [name for name in world.object_keys() if ACCOUNT_FOLDER not in name] == [key]
        assert deployment.states()["recorded"] == (1, 0.05)

    def test_bucket_that_is_missing_has_no_other_object(self, deployment: Deployment) -> None:
        deployment.submit("made elsewhere")
        deployment.world.pass_time(HOUR)
        [row] = deployment.run("recover", "--prefix", "s3://missing-bucket/x/", "--include-foreign", code=1)
        assert "NoSuchBucket" in row["detail"]

    def test_object_is_never_replaced(self, deployment: Deployment) -> None:
        world = deployment.world
        request_id = deployment.submit("recoverable")
        deployment.record(request_id, "a.png", "recoverable")
        world.put("a.png", b"another image")
        world.pass_time(HOUR)

        [row] = deployment.run("recover", code=1)
        assert (row["result"], row["detail"]) == ("not stored", f"{world.uri('a.png')} has another object")
        [row] = deployment.run("recover", "--prefix", world.uri("rescued"))

        assert row["place"] == world.uri(f"rescued/{request_id}.png")
        assert world.stored("a.png") == b"another image"
        assert world.stored(f"rescued/{request_id}.png") == world.emulator.image_bytes(request_id)

    def test_store_without_conditional_writes_is_refused(self, deployment: Deployment) -> None:
        request_id = deployment.submit("recoverable")
        deployment.record(request_id, "a.png", "recoverable")
        deployment.world.pass_time(HOUR)
        with mock.patch.object(ObjectStore, "put", side_effect=ConditionsNotSupported):
            [row] = deployment.run("recover", code=1)
        assert "no conditional writes" in row["detail"]

    def test_foreign_requests_are_stored_when_asked_for(self, deployment: Deployment) -> None:
        request_id = deployment.submit("made elsewhere")
        prefix = deployment.world.uri("rescued/")
        assert deployment.run("recover", "--prefix", prefix, "--include-foreign") == []  # it may be a task's
        deployment.world.pass_time(HOUR)
        assert deployment.run("recover", "--prefix", prefix) == []
        [row] = deployment.run("recover", "--prefix", prefix, "--include-foreign")
        assert row["place"] == f"{prefix}{request_id}.png"

    def test_image_that_is_no_image_is_not_stored(self, deployment: Deployment) -> None:
        request_id = deployment.submit("broken [[fault:not-image]]")
        deployment.record(request_id, "a.png", "broken [[fault:not-image]]")
        deployment.world.pass_time(HOUR)
        [row] = deployment.run("recover", code=1)
        assert row["result"] == "not stored"
        assert "a.png" not in deployment.world.object_keys()


def test_memory_does_not_grow_with_the_history(deployment: Deployment) -> None:
    world = deployment.world
    row = HistoryRow("id", "ideogram-2a-txt-2-img", {"prompt": "x" * 500}, world.clock(), "COMPLETED", None, 0.05)
    today = datetime.fromtimestamp(world.clock(), UTC).date()
    scope = reconcile.Scope(today, today, [Target(world.bucket, "")], "_ideogram/", deployment.url, "ideogram_default")

    def peak_of(pages: int) -> int:
        """Return the bytes that the reconciliation of so many pages takes at most."""
        history = (
            HistoryPage([replace(row, request_id=f"request-{page}-{number}") for number in range(100)], 100)
            for page in range(pages)
        )
        sums = reconcile.Sums()
        tracemalloc.start()
        with mock.patch.object(IdeogramHook, "read_history", return_value=history):
            for _ in reconcile.reconcile(IdeogramHook(), deployment.objects, scope, sums):
                pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (sums.requests.total(), sums.micros.total()) == (100 * pages, 5_000_000 * pages)
        return peak

    peak_of(1)  # loads what is loaded once
    assert peak_of(30) < peak_of(10) + (1 << 19)
