"""The page of an account, as the API server would serve it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest
from airflow.models.connection import Connection
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from sqlalchemy.orm import Session

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.ui import account as account_module
from tests.support.account import Account, account
from tests.support.s3 import answered_for
from tests.unit.ui.conftest import RUN, AuthManager, Database

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator

__all__ = ["account"]
PATH = "/account/ideogram_default"
CATS, DOGS = Spender("cats", "generate", "ideogram-2a-txt-2-img"), Spender("dogs", "generate", "ideogram-2a-txt-2-img")
KEY = "emulator-key"


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """No test reads what another one has read."""
    with mock.patch.multiple(account_module, _credits={}, _days={}):
        yield


def today() -> date:
    return datetime.fromtimestamp(time.time(), UTC).date()


class Objects:
    """Writes the account's objects."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self.url = f"s3://{bucket}/shared/"
        self._store = AccountStore(ObjectStore(s3), bucket)
        self._prefix = place_of(self.url, "ideogram_default")[1]

    def write(self, name: str, state: Any) -> None:
        self._store.update(f"{self._prefix}{name}", lambda value: value, lambda _: (state.to_json(), None))

    def write_day(self, days_ago: int, *settled: tuple[Spender, float | None], lost: str | None = None) -> None:
        """Write a day on which these images were made; one without a cost is still open, or lost."""
        day = DayBudget((today() - timedelta(days=days_ago)).isoformat())
        for number, (spender, usd) in enumerate(settled):
            assert day.reserve(f"{number}", spender, 0.05, Caps(), now=0.0, record=None) is None
            if usd is not None or lost is not None:
                day.settle(f"{number}", usd, lost_request_id=lost)
        self.write(f"{day.date}-1.json", day)


@pytest.fixture
def objects(s3: S3Client, s3_bucket: str, account: Account) -> Objects:
    """An account with an address, a limit and budgets."""
    objects = Objects(s3, s3_bucket)
    caps = {"max_cost_usd_per_day": 10, "max_cost_usd_per_month": 100, "max_cost_usd_per_dag_and_day": 5}
    account(account_url=objects.url, requests_per_minute=50, **caps)
    return objects


def cells(page: httpx.Response, section: str) -> list[list[str]]:
    """Return the texts of the table of a section, without its head."""
    part = page.text.split(f'aria-labelledby="{section}"')[1].split("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)[1:]
    return [[re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row)] for row in rows]


class TestAuthorisation:
    async def test_who_may_read_the_connection_sees_its_account(
        self,
        gallery: httpx.AsyncClient,
        auth_manager: AuthManager,
        objects: Objects,
        ideogram_emulator: RunningEmulator,
    ) -> None:
        gallery.cookies.set("_token", "guest")
        assert (await gallery.get(PATH)).status_code == 403
        assert auth_manager.asked == [("GET", "CONNECTION", "ideogram_default", "guest")]
        gallery.cookies.clear()
        assert (await gallery.get(PATH)).status_code == 401
        assert ideogram_emulator.stats().calls == {}
        gallery.cookies.set("_token", "alice")
        assert (await gallery.get(PATH)).status_code == 200

    async def test_connections_are_listed_that_the_user_may_read(
        self, gallery: httpx.AsyncClient, database: Database, ideogram_connection: str
    ) -> None:
        with Session(database.engine) as session:
            session.add(Connection("team_b", conn_type="ideogram"))
            session.add(Connection("warehouse", conn_type="postgres"))
            session.commit()
            try:
                listed = (await gallery.get("/account")).text
                gallery.cookies.set("_token", "guest")
                denied = (await gallery.get("/account")).text
            finally:
                session.query(Connection).delete()
                session.commit()
        assert re.findall(r'href="/ideogram/account/(\w+)"', listed) == ["ideogram_default", "team_b"]
        assert "There is no connection of type ideogram that you may see" in denied

    @pytest.mark.parametrize("conn_id", ["missing", "aws_default"])
    async def test_other_connections_are_not_found(
        self, conn_id: str, gallery: httpx.AsyncClient, s3: S3Client
    ) -> None:
        assert (await gallery.get(f"/account/{conn_id}")).status_code == 404

    async def test_names_of_other_dags_are_hidden(
        self, gallery: httpx.AsyncClient, auth_manager: AuthManager, objects: Objects, database: Database
    ) -> None:
        auth_manager.denied["alice"] = {"dogs"}
        objects.write_day(1, (DOGS, None), lost="request-7")
        objects.write_day(0, (DOGS, 0.05))
        database.add_run("dogs")
        database.add_task("dogs", state="failed", xcoms={"failure": {"reason": "unknown_submit"}})
        page = await gallery.get(PATH)
        assert "dogs" not in page.text
        assert [row[1:] for row in cells(page, "waits")] == [["another DAG", "request-7"]]


class TestPage:
    async def test_shows_everything(
        self, gallery: httpx.AsyncClient, objects: Objects, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(credits=12.5)
        objects.write_day(29, (CATS, 1.0))
        objects.write_day(30, (CATS, 7.77))
        objects.write_day(3, (CATS, 0.04), (DOGS, None))
        objects.write_day(0, (CATS, 0.05), (DOGS, 4.97), (CATS, None))
        limiter = AccountLimiter()
        limiter.configure(50, time.time())
        for _ in range(20):
            limiter.ask("flow", time.time())
        limiter.limited(time.time(), 40)
        objects.write("limit-1of1.json", limiter)

        page = await gallery.get(PATH)

        assert "12.50 USD" in page.text
        assert "25 a minute, none before" in page.text  # halved by the 429
        assert re.search(r"<dd>\d+ submits, about", page.text)
        rows = cells(page, "spend")
        assert len(rows) == 30
        assert rows[0] == [today().isoformat(), "2", "0", "0", "5.02 USD", "1", "0.05 USD"]
        assert rows[-1][4] == "1.00 USD"
        assert "7.77" not in page.text
        assert page.text.count('<rect class="spent"') == 3
        assert page.text.count('<rect class="reserved"') == 2
        budgets = {row[0]: row[2:6] for row in cells(page, "budgets")}
        assert budgets["max_cost_usd_per_day"] == ["5.02 USD", "0.05 USD", "4.93 USD", "10.00 USD"]
        assert budgets["max_cost_usd_per_dag_and_day of dogs"] == ["4.97 USD", "0.00 USD", "0.03 USD", "5.00 USD"]
        assert "1 requests of earlier days have not ended; 0.05 USD stay reserved" in page.text

    async def test_key_is_not_in_it(self, gallery: httpx.AsyncClient, objects: Objects) -> None:
        page = await gallery.get(PATH)
        assert KEY not in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert page.headers["Cache-Control"] == "no-store"
        assert "style=" not in page.text  # which the policy forbids

    async def test_what_waits_for_a_person(
        self, gallery: httpx.AsyncClient, objects: Objects, database: Database
    ) -> None:
        database.add_run("cats")
        for index, reason in enumerate(("unknown_submit", "request_failed")):
            failure = {"failure": json.dumps({"reason": reason})}
            database.add_task("cats", map_index=index, state="failed", xcoms=failure)
        database.add_task("cats", "running", state="running", xcoms={"failure": {"reason": "unknown_submit"}})
        with mock.patch.object(account_module, "DAYS", 3650):  # the database's rows are of a day in the past
            page = await gallery.get(PATH)
        assert re.findall(r'data-airflow href="([^"]*)"', page.text) == [
            f"/dags/cats/runs/{RUN.replace(':', '%3A').replace('+', '%2B')}/tasks/generate/mapped/0"
        ]

    async def test_nothing_waits(self, gallery: httpx.AsyncClient, objects: Objects) -> None:
        page = await gallery.get(PATH)
        assert '<p class="muted">Nothing that you may see.</p>' in page.text
        assert "no-store" in page.headers["Cache-Control"]

    async def test_nothing_is_not_said_of_what_was_not_read(self, gallery: httpx.AsyncClient, objects: Objects) -> None:
        objects.write_day(1, (CATS, None))
        with answered_for("GetObject", "_account/"):
            page = await gallery.get(PATH)
        assert "Nothing that" not in page.text
        assert "Which requests are open or lost is unknown" in page.text

    @pytest.mark.parametrize(("failures", "is_complete"), [(2, True), (3, False)])
    async def test_other_failures_do_not_hide_what_waits(
        self, failures: int, is_complete: bool, gallery: httpx.AsyncClient, objects: Objects, database: Database
    ) -> None:
        database.add_run("cats")
        for index in range(9):
            database.add_task("cats", "blocked", map_index=index, state="failed", xcoms={"failure": {"reason": "x"}})
        for index in range(failures):
            failure: Any = {"reason": "unknown_submit"} if index % 2 else json.dumps({"reason": "submit_failed"})
            database.add_task("cats", map_index=index, state="failed", xcoms={"failure": failure})
        with mock.patch.multiple(account_module, DAYS=3650, _MAX_IN_DOUBT=2):
            page = await gallery.get(PATH)
        assert len(re.findall("data-airflow href", page.text)) == 2
        assert "These tasks, of all connections, failed" in page.text
        assert ("Only the newest 2 such failures are looked through" not in page.text) == is_complete

    @pytest.mark.parametrize("entity", ["TASK_INSTANCE", "XCOM"])
    async def test_failures_are_shown_to_who_may_read_xcoms(
        self, entity: str, gallery: httpx.AsyncClient, auth_manager: AuthManager, objects: Objects, database: Database
    ) -> None:
        auth_manager.hidden[entity] = {"alice"}
        objects.write_day(1, (CATS, None), lost="request-7")
        database.add_run("cats")
        database.add_task("cats", state="failed", xcoms={"failure": {"reason": "unknown_submit"}})
        with mock.patch.object(account_module, "DAYS", 3650):
            page = await gallery.get(PATH)
        assert "data-airflow href" not in page.text
        assert [row[1:] for row in cells(page, "waits")] == [["cats.generate", "request-7"]]

    async def test_unchanged_days_are_read_once_and_credits_for_a_minute(
        self, gallery: httpx.AsyncClient, objects: Objects, ideogram_emulator: RunningEmulator
    ) -> None:
        objects.write_day(1, (CATS, 0.04))
        await gallery.get(PATH)
        with mock.patch.object(AccountStore, "read", return_value=None):
            page = await gallery.get(PATH)
        assert cells(page, "spend")[1][4] == "0.04 USD"
        assert ideogram_emulator.stats().calls == {"credits": 1}
        objects.write_day(1, (CATS, 0.09))
        assert cells(await gallery.get(PATH), "spend")[1][4] == "0.09 USD"


class TestProblems:
    async def test_connection_without_an_address(self, gallery: httpx.AsyncClient, ideogram_connection: str) -> None:
        page = await gallery.get(PATH)
        assert "names no account_url" in page.text
        assert "1000.00 USD" in page.text

    async def test_vendor_that_does_not_respond(
        self, gallery: httpx.AsyncClient, objects: Objects, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.fault("credits", "error", status=503, times=9)
        objects.write_day(1, (CATS, 0.04))
        page = await gallery.get(PATH)
        assert "The credits can't be read" in unescape(page.text)
        assert cells(page, "spend")[1][4] == "0.04 USD"
        assert ideogram_emulator.stats().calls == {"credits": 1}

    async def test_refused_key(
        self, gallery: httpx.AsyncClient, objects: Objects, ideogram_emulator: RunningEmulator
    ) -> None:
        ideogram_emulator.configure(keys=["another-key"])
        page = await gallery.get(PATH)
        assert "The credits can't be read" in unescape(page.text)
        assert KEY not in page.text

    async def test_s3_that_does_not_respond(self, gallery: httpx.AsyncClient, objects: Objects) -> None:
        with answered_for("GetObject", "_account/"):
            page = await gallery.get(PATH)
        assert page.status_code == 200
        assert "The rate limit can't be read: the read failed (EndpointConnectionError)." in unescape(page.text)

    async def test_s3_that_refuses(self, gallery: httpx.AsyncClient, objects: Objects) -> None:
        refused: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        refusal = ClientError(refused, "GetObject")
        with mock.patch.object(BaseClient, "_make_api_call", side_effect=refusal):
            page = await gallery.get(PATH)
        assert "The rate limit can't be read: S3 answers AccessDenied." in unescape(page.text)

    async def test_aws_connection_that_is_not_defined(
        self, gallery: httpx.AsyncClient, objects: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__IDEOGRAM__GALLERY_AWS_CONN_ID", "missing")
        page = await gallery.get(PATH)
        assert "The rate limit can't be read: the read failed (AirflowNotFoundException)." in unescape(page.text)

    async def test_connection_that_is_not_valid(self, gallery: httpx.AsyncClient, account: Account) -> None:
        account(requests_per_minute="many")
        page = await gallery.get(PATH)
        assert "The connection can't be read" in unescape(page.text)
        assert "requests_per_minute" in page.text
