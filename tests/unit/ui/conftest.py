"""A database with runs in it, users, and the gallery as the API server would serve it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zlib import crc32

import httpx
import pytest

from tests.support.airflow_version import need_airflow

need_airflow("3.1", "pages of plugins as tabs in its UI")

from airflow import settings
from airflow.models import Base, import_all_models, xcom
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from fastapi import FastAPI
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import scoped_session, sessionmaker

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Airflow's API server loads Starlette's test client, which warns of httpx
    from airflow_provider_ideogram.storage.objects import ObjectStore
    from airflow_provider_ideogram.ui import URL_PREFIX, app, handlers
    from airflow_provider_ideogram.ui.objects import Reader
    from airflow_provider_ideogram.ui.places import DynamicRegion
    from airflow_provider_ideogram.ui.work import Work

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy.engine import Engine

#: Whether XComs and rendered fields are stored for the id of an attempt, as Airflow does from 3.4 on.
BY_ATTEMPT = hasattr(xcom, "XComModelV2")
XCOMS: Any = xcom.XComModelV2 if BY_ATTEMPT else xcom.XComModel
RUN = "manual__2026-01-02T00:00:00+00:00"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Database:
    """Airflow's database, as far as the gallery reads it."""

    engine: Engine

    def add_run(self, dag_id: str, run_id: str = RUN, state: str = "success", run_after: datetime = NOW) -> None:
        row = {"dag_id": dag_id, "run_id": run_id, "state": state, "run_type": "manual", "run_after": run_after}
        with self.engine.begin() as connection:
            connection.execute(insert(DagRun).values(row))

    def add_task(
        self,
        dag_id: str,
        task_id: str = "generate",
        *,
        run_id: str = RUN,
        map_index: int = -1,
        state: str | None = "success",
        operator: str = "IdeogramGenerateImageOperator",
        xcoms: Mapping[str, Any] | None = None,
        linked: bool = True,
        rendered: Mapping[str, Any] | None = None,
        tries: int = 1,
        **columns: Any,
    ) -> None:
        """
        Add a task instance, with the XCom of its link; before Airflow 3.4 its run need not be there.

        :param columns: Further columns of the task instance.
        """
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        run = crc32(f"{dag_id}/{run_id}".encode())
        with self.engine.begin() as connection:
            values = {**key, "state": state, "operator": operator, "pool": "default_pool", "try_number": tries}
            values |= columns
            if BY_ATTEMPT:
                values |= {"id": uuid4()}
            connection.execute(insert(TaskInstance).values(values))
            owner = {"task_instance_id": values["id"]} if BY_ATTEMPT else key
            of_run = {} if BY_ATTEMPT else {"dag_run_id": run}
            links = {"_link_IdeogramImageLink": "/x"} if linked else {}
            for name, value in {**links, **(xcoms or {})}.items():
                stored = {**owner, **of_run, "key": name, "value": value, "timestamp": NOW}
                connection.execute(insert(XCOMS).values(stored))
            if rendered:
                connection.execute(insert(RenderedTaskInstanceFields).values(**owner, rendered_fields=dict(rendered)))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("airflow") / "airflow.db"
    import_all_models()
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def database(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty database, which Airflow's own code takes for its own as well."""
    with engine.begin() as connection:
        for model in (Log, XCOMS, RenderedTaskInstanceFields, TaskInstance, DagRun, DynamicRegion):
            if model is not None:
                connection.execute(model.__table__.delete())
    factory = sessionmaker(engine)
    monkeypatch.setattr(settings, "NonScopedSession", factory)
    monkeypatch.setattr(settings, "Session", scoped_session(factory))
    return Database(engine)


class User(str):
    """A user as an auth manager returns it."""

    def get_name(self) -> str:
        """Return the name that Airflow shows."""
        return str(self)


@dataclass
class AuthManager:
    """
    Knows users by tokens, which DAG each may not read, that viewers only read, and guests read no connection.

    :param hidden: The users who may not read this of the DAGs that they may read.
    """

    denied: dict[str, set[str]] = field(default_factory=dict)
    hidden: dict[str, set[str]] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    async def get_user_from_token(self, token: str) -> User:
        return User(token)

    def is_authorized_dag(self, *, method: str, access_entity: Any, details: Any, user: str) -> bool:
        self.asked.append((method, access_entity.name, details.id, user))
        if user in self.hidden.get(access_entity.name, set()):
            return False
        return details.id not in self.denied.get(user, set()) and (method == "GET" or user != "viewer")

    def batch_is_authorized_dag(self, requests: Sequence[Mapping[str, Any]], *, user: str) -> bool:
        return all(self.is_authorized_dag(**request, user=user) for request in requests)

    def is_authorized_connection(self, *, method: str, details: Any, user: str) -> bool:
        self.asked.append((method, "CONNECTION", details.conn_id, user))
        return user != "guest"

    def get_authorized_dag_ids(self, *, user: str, method: str) -> set[str]:
        assert method == "GET"
        return {"cats", "dogs"} - self.denied.get(user, set())


@pytest.fixture
def auth_manager(monkeypatch: pytest.MonkeyPatch) -> AuthManager:
    manager = AuthManager({"guest": {"dogs"}})
    monkeypatch.setattr("airflow.api_fastapi.core_api.security.get_auth_manager", lambda: manager)
    for module in (app, handlers):
        monkeypatch.setattr(module, "get_auth_manager", lambda: manager)
    return manager


@pytest.fixture
async def gallery(database: Database, auth_manager: AuthManager, s3: S3Client) -> AsyncIterator[httpx.AsyncClient]:
    """A client, logged in as a user who may read all DAGs."""
    server = FastAPI()
    server.mount(URL_PREFIX, app.gallery_app())
    transport = httpx.ASGITransport(server)
    base = f"http://airflow.example{URL_PREFIX}"
    async with httpx.AsyncClient(transport=transport, base_url=base, cookies={"_token": "alice"}) as client:
        yield client


def record(bucket: str, number: int = 1, /, **changes: Any) -> dict[str, Any]:
    """Return an image's record as the operator pushes it."""
    return {
        "uri": f"s3://{bucket}/{number}.png",
        "bucket": bucket,
        "key": f"{number}.png",
        "request_id": f"request-{number}",
        "model": "ideogram-2a-txt-2-img",
        "prompt": f"Cat number {number}",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1024_1024",
        "style_type": "GENERAL",
        "seed": number,
        "width": 1024,
        "height": 1024,
        "size_bytes": 2048,
        "cost_usd": 0.05,
        "inference_seconds": 12.4,
        "reused": False,
        "version_id": None,
        "submitted_at": "2026-01-02T03:04:05.678+00:00",
        "completed_at": None,
        **changes,
    }


def row(bucket: str, number: int = 1, /, **changes: Any) -> dict[str, Any]:
    """Return a line of a manifest or of a part, as the dataset's operator writes it."""
    head = {"row": number, "id": f"cat-{number}", "status": "generated", "error": None, "fingerprint": "f" * 32}
    return {**head, **record(bucket, number), **changes}


def workspace_of(dag_id: str, task_id: str = "generate", map_index: int = -1) -> str:
    """Return the key of the workspace of a task instance whose images are below ``cats/``."""
    owner = f"{dag_id}/{RUN}/{task_id}/{map_index}"
    return f"_ideogram/cats/.dataset/{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"


def reader_of(s3: S3Client, work: Work | None = None) -> Reader:
    """Return a reader of a single request."""
    return Reader(work or Work(), lambda _seconds: ObjectStore(s3))


def store(s3: S3Client, image: Mapping[str, Any], content: bytes = b"\x89PNG image", **changes: Any) -> None:
    """Store an image as the operator does."""
    arguments = {"ContentType": "image/png", "Metadata": {"ideogram-request-id": image["request_id"]}, **changes}
    s3.put_object(Bucket=image["bucket"], Key=image["key"], Body=content, **arguments)


def json_lines(*values: Any) -> bytes:
    """Return the lines of a manifest."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@pytest.fixture
def image(database: Database, s3: S3Client, s3_bucket: str) -> dict[str, Any]:
    """The image of the DAG ``cats``, which is stored."""
    made = record(s3_bucket)
    database.add_run("cats")
    database.add_task("cats", xcoms={"return_value": made, "request_id": made["request_id"]})
    store(s3, made)
    return made
