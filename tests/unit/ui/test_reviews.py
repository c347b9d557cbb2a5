"""Decisions in the gallery: who may decide, from where, and that none is lost."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from html import unescape
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.models.log import Log
from sqlalchemy import select

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.reviews.images import read_images
from airflow_provider_ideogram.reviews.store import ReviewStore
from airflow_provider_ideogram.storage.objects import ConditionsNotSupported, ObjectStore
from airflow_provider_ideogram.ui import handlers
from airflow_provider_ideogram.ui.gate import MAX_BODY_BYTES
from airflow_provider_ideogram.ui.objects import Reader
from tests.support.s3 import answered
from tests.unit.reviews.examples import entry, review
from tests.unit.ui.conftest import RUN, AuthManager, Database, record, store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUN_PATH = f"/dags/cats/runs/{RUN}"
PAGE = f"{RUN_PATH}/tasks/review"
STATE = f"{PAGE}/review/-1"
DECISIONS = f"{STATE}/decisions"
FROM_PAGE = {"X-Ideogram-Review": "1", "Sec-Fetch-Site": "same-origin", "Origin": "http://airflow.example"}
OWNER = f"cats/{RUN}/review/-1"


@pytest.fixture
def reviewed(database: Database, s3: S3Client, s3_bucket: str) -> ReviewStore:
    """The open review of three images of the DAG ``cats``."""
    images = [record(s3_bucket, number) for number in range(3)]
    for number, image in enumerate(images):
        store(s3, image)
        database.add_task("cats", xcoms={"return_value": image}, map_index=number)
    found = ReviewStore.of(ObjectStore(s3), s3_bucket, "_ideogram/", OWNER)
    found.write_images(read_images(images, ObjectStore(s3)))
    found.update(lambda _: review(*(image["request_id"] for image in images), owner=OWNER))
    database.add_run("cats", state="running")
    xcom = {"uri": found.uri, "total": 3}
    database.add_task("cats", "review", state="deferred", operator="IdeogramReviewOperator", xcoms={"review": xcom})
    return found


def _decided(found: ReviewStore) -> list[tuple[str, str | None, str | None, str]]:
    state = found.read()
    assert state is not None
    return [(one.image, one.decision, one.note, one.by) for one in state.entries]


async def _decide(gallery: httpx.AsyncClient, image: str, decision: str | None, **more: Any) -> httpx.Response:
    body = {"decisions": [{"image": image, "decision": decision, **more.pop("note", {})}], **more}
    return await gallery.post(DECISIONS, json=body, headers=FROM_PAGE)


async def test_decision_is_stored_and_in_the_audit_log(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, database: Database
) -> None:
    answer = await _decide(gallery, "request-0", "approve")
    assert answer.status_code == 200
    answer = await _decide(gallery, "request-1", "redo", note={"note": "bluer"}, since=1)
    said = answer.json()
    assert [said[name] for name in ("approved", "rejected", "redo", "undecided", "known")] == [1, 0, 1, 1, 2]
    assert [one["image"] for one in said["entries"]] == ["request-1"]
    assert _decided(reviewed) == [
        ("request-0", "approve", None, "alice"),
        ("request-1", "redo", "bluer", "alice"),
    ]
    with database.engine.connect() as connection:
        logs = connection.execute(select(Log.event, Log.owner, Log.dag_id, Log.task_id, Log.run_id, Log.extra)).all()
    assert [tuple(row)[:5] for row in logs] == [("ideogram_review", "alice", "cats", "review", RUN)] * 2
    assert json.loads(logs[1].extra)["decisions"] == [{"image": "request-1", "decision": "redo", "note": "bluer"}]


async def test_reviewers_at_once_lose_nothing(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    async def decide(user: str, image: str) -> None:
        headers = FROM_PAGE | {"Authorization": f"Bearer {user}"}
        body = {"decisions": [{"image": image, "decision": "approve"}]}
        answer = await gallery.post(DECISIONS, json=body, headers=headers)
        assert answer.status_code == 200

    await asyncio.gather(*(decide(user, f"request-{number}") for number in range(3) for user in ("ann", "bob")))
    assert {(image, by) for image, _, _, by in _decided(reviewed)} == {
        (f"request-{number}", user) for number in range(3) for user in ("ann", "bob")
    }


async def test_who_may_only_read_cannot_decide(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, auth_manager: AuthManager
) -> None:
    assert "data-decide" in (await gallery.get(PAGE)).text
    gallery.cookies.set("_token", "viewer")
    page = (await gallery.get(PAGE)).text
    assert "data-decide" not in page
    assert "You may look, but not decide" in page
    assert (await _decide(gallery, "request-0", "approve")).status_code == 403
    assert ("PUT", "TASK_INSTANCE", "cats", "viewer") in auth_manager.asked
    gallery.cookies.clear()
    assert (await _decide(gallery, "request-0", "approve")).status_code == 401
    assert _decided(reviewed) == []


async def test_user_of_another_dag_neither_sees_nor_decides(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, auth_manager: AuthManager
) -> None:
    auth_manager.denied["guest"] = {"cats"}
    gallery.cookies.set("_token", "guest")
    for path in (PAGE, STATE, RUN_PATH):
        answer = await gallery.get(path)
        assert answer.status_code == 403
        assert "Cat number" not in answer.text
    # Neither does the right to another DAG help.
    answer = await gallery.post(f"{DECISIONS}?dag_id=dogs", json={"decisions": []}, headers=FROM_PAGE)
    assert answer.status_code == 403
    assert _decided(reviewed) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"X-Ideogram-Review": None},
    ],
    ids=str,
)
async def test_page_of_another_site_is_refused(
    headers: dict[str, str | None], gallery: httpx.AsyncClient, reviewed: ReviewStore
) -> None:
    body = json.dumps({"decisions": [{"image": "request-0", "decision": "approve"}]})
    sent = {"Content-Type": "application/json", **FROM_PAGE, **headers}
    answer = await gallery.post(
        DECISIONS, content=body, headers={name: value for name, value in sent.items() if value is not None}
    )
    assert answer.status_code == 403
    assert _decided(reviewed) == []


@pytest.mark.usefixtures("reviewed")
async def test_same_origin_is_seen_without_fetch_metadata(gallery: httpx.AsyncClient) -> None:
    headers = {"X-Ideogram-Review": "1", "Origin": "http://airflow.example"}
    assert (await gallery.post(DECISIONS, json={"decisions": []}, headers=headers)).status_code == 200


async def test_methods_of_the_addresses(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    assert (await gallery.head(STATE)).status_code == 200
    for method, path, allowed in (
        ("GET", DECISIONS, "POST"),
        ("HEAD", DECISIONS, "POST"),
        ("POST", STATE, "GET, HEAD"),
    ):
        answer = await gallery.request(method, path, headers=FROM_PAGE)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert _decided(reviewed) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decisions": [{"image": "request-0", "decision": "burn"}]},
        {"decisions": [{"image": "request-9", "decision": "approve"}]},
        {"decisions": [{"image": "request-0", "decision": "redo", "note": "x" * 1001}]},
        {"decisions": [], "since": -1},
        {"decisions": [{"image": "request-0", "decision": "approve"}] * 51},
    ],
    ids=range(6),
)
async def test_other_bodies_are_refused(body: Any, gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    assert (await gallery.post(DECISIONS, json=body, headers=FROM_PAGE)).status_code == 422
    assert _decided(reviewed) == []


async def test_large_body_is_refused_unread(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    answer = await gallery.post(DECISIONS, content=b" " * (MAX_BODY_BYTES + 1), headers=FROM_PAGE)
    assert answer.status_code == 413
    assert _decided(reviewed) == []


async def test_closed_review_takes_nothing(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    reviewed.update(lambda _: review("request-0", owner=OWNER, closed_at=1.0, entries=[entry("request-0", "approve")]))
    answer = await _decide(gallery, "request-0", "reject")
    assert (answer.status_code, "has ended" in answer.json()["problem"]) == (409, True)
    page = (await gallery.get(PAGE)).text
    assert "The review has ended." in page
    assert "data-decide" not in page


async def test_person_ends_the_review(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    assert (await _decide(gallery, "request-0", "approve", finish=True)).json()["finished"]
    state = reviewed.read()
    assert state is not None
    assert (state.finished_by, state.counts()["undecided"]) == ("alice", 2)


async def test_missing_right_is_said_in_words(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_ideogram.ui.client._connect", lambda _: ObjectStore(s3))
    monkeypatch.setattr("airflow_provider_ideogram.ui.client._made", None)
    for refused, verb in (("PutObject", "write"), ("GetObject", "read")):
        with answered(s3, refused, 403):
            answer = await _decide(gallery, "request-0", "approve")
        assert answer.status_code == 502
        problem = answer.json()["problem"]
        assert f"AccessDenied: the API server may not {verb} the review" in problem
        assert f"needs s3:{refused} below" in problem
    assert _decided(reviewed) == []


async def test_problem_ends_with_one_full_stop(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConditionsNotSupported

    monkeypatch.setattr(ObjectStore, "put", refuse)
    problem = (await _decide(gallery, "request-0", "approve")).json()["problem"]
    assert "no conditional writes" in problem
    assert problem.endswith(".")
    assert not problem.endswith("..")
    assert _decided(reviewed) == []


@pytest.mark.usefixtures("reviewed")
async def test_storage_without_a_client_is_said_in_words(
    gallery: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_seconds: float) -> ObjectStore:
        raise IdeogramStorageError("The connection 'x' is not defined")

    monkeypatch.setattr(handlers, "Reader", partial(Reader, objects=fail))
    for answer, action in (
        (await gallery.get(STATE), "read"),
        (await _decide(gallery, "request-0", "approve"), "change"),
    ):
        assert (answer.status_code, answer.json()) == (502, {"problem": f"the {action} failed (IdeogramStorageError)."})


async def test_review_that_is_damaged_or_missing_is_no_answer_of_s3(
    gallery: httpx.AsyncClient, reviewed: ReviewStore, s3: S3Client
) -> None:
    bucket, key = reviewed.prefix.bucket, f"{reviewed.prefix.key}review.json"
    s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    page = unescape((await gallery.get(PAGE)).text)
    assert re.search(r"The review review can't be read: the read failed \(\w*Error\)\.", page)
    s3.delete_object(Bucket=bucket, Key=key)
    page = unescape((await gallery.get(PAGE)).text)
    assert "The review review can't be read: the read failed (ReviewMissing)." in page


async def test_page_shows_the_images_with_their_decisions(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    await _decide(gallery, "request-1", "reject", note={"note": "<b>too dark</b>"})
    page = (await gallery.get(PAGE)).text
    assert re.findall(r'data-image="([^"]+)"', page) == ["request-0", "request-1", "request-2"]
    assert re.findall(r'data-decision="([^"]+)"', page) == ["reject"]
    assert "<b>too dark" not in page
    assert 'data-known="1"' in page
    assert "review.js" in page
    undecided = (await gallery.get(f"{PAGE}?decision=undecided")).text
    assert re.findall(r'data-image="([^"]+)"', undecided) == ["request-0", "request-2"]
    link = re.findall(r'class="card" href="/ideogram([^"?]+)', page)[1]
    assert (await gallery.get(f"{link}/file")).content == b"\x89PNG image"


@pytest.mark.usefixtures("reviewed")
async def test_run_shows_each_image_once_and_the_review(gallery: httpx.AsyncClient) -> None:
    await _decide(gallery, "request-1", "approve")
    page = (await gallery.get(RUN_PATH)).text
    assert page.count('class="card"') == 3
    assert "2 of 3 images wait for a decision" in page
    assert re.findall(r'data-decision="([^"]+)"', page) == ["approve"]
    found = (await gallery.get(f"{RUN_PATH}?decision=approve")).text
    assert re.findall(r'data-image="([^"]+)"', found) == ["request-1"]
    assert "review.js" not in page


@pytest.mark.parametrize("uri", [None, 7, "s3://{bucket}/elsewhere/review.json", "s3://{bucket}/{own}x"])
async def test_only_the_tasks_own_review_is_read_and_changed(
    uri: Any, gallery: httpx.AsyncClient, reviewed: ReviewStore, database: Database, s3: S3Client
) -> None:
    bucket = reviewed.prefix.bucket
    if isinstance(uri, str):
        uri = uri.format(bucket=bucket, own=f"{reviewed.prefix.key}review.json")
        s3.copy_object(
            Bucket=bucket,
            Key=uri.removeprefix(f"s3://{bucket}/"),
            CopySource=f"{bucket}/{reviewed.prefix.key}review.json",
        )
    database.add_task("cats", "other", operator="IdeogramReviewOperator", xcoms={"review": {"uri": uri}})
    path = f"{RUN_PATH}/tasks/other/review/-1"
    assert (await gallery.get(path)).status_code == 404
    answer = await gallery.post(f"{path}/decisions", json={"decisions": []}, headers=FROM_PAGE)
    assert answer.status_code == 404


async def test_review_of_another_owner_is_not_taken(gallery: httpx.AsyncClient, reviewed: ReviewStore) -> None:
    reviewed.update(lambda _: review("request-0", owner="dogs/run/review/-1"))
    assert (await _decide(gallery, "request-0", "approve")).status_code == 502
    assert _decided(reviewed) == []
    assert "can&#39;t be read" in (await gallery.get(PAGE)).text
