"""Fixtures and helpers for tests of S3: a shared client, fresh buckets, and stores that fail or have no conditions."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session

from airflow_provider_ideogram.storage import probe
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.probe import StoreProbe
from dev.s3_server import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Stands in for the S3 layer where nothing is read from S3.
NO_S3: Any = None


@pytest.fixture
def client(s3_client: S3Client) -> Iterator[S3Client]:
    """The module's S3 client; botocore does not wait before it repeats a request."""
    with mock.patch("botocore.endpoint.time"):
        yield s3_client


@pytest.fixture
def bucket(client: S3Client) -> str:
    """The name of a fresh bucket."""
    name = f"bucket-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def s3_response(request: Any, status: int, code: str = "", headers: dict[str, str] | None = None) -> AWSResponse:
    """Make a response of S3; ``code`` makes it an error of that code."""
    raw_headers: Any = headers or {}
    body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode() if code else b""
    return AWSResponse(request.url, status, raw_headers, _Raw(body))


def _send(request: Any) -> AWSResponse:
    """Send a request to the server, and return the response with its content read."""
    session = URLLib3Session()
    response = session.send(request)
    _ = response.content
    session.close()
    return response


def _events(client: S3Client) -> Any:
    """Return the client's events; their stubs don't know handlers that return a response."""
    return client.meta.events


@contextmanager
def intercepted(client: S3Client, operation: str, handler: Callable[[Any], AWSResponse | None]) -> Iterator[None]:
    """Pass each request of an operation to the handler; what it returns is the response in place of the server's."""
    event, events = f"before-send.s3.{operation}", _events(client)

    def handle(request: Any, **_: Any) -> AWSResponse | None:
        return handler(request)

    events.register_first(event, handle)
    try:
        yield
    finally:
        events.unregister(event, handle)


@contextmanager
def answered(
    client: S3Client,
    operation: str,
    status: int,
    code: str = "AccessDenied",
    from_call: int = 1,
    to_call: float = math.inf,
) -> Iterator[None]:
    """Answer an operation with an error, from its n-th call on, to another."""
    calls = 0

    def answer(request: Any) -> AWSResponse | None:
        nonlocal calls
        calls += 1
        return s3_response(request, status, code) if from_call <= calls <= to_call else None

    with intercepted(client, operation, answer):
        yield


@contextmanager
def headers_refused(client: S3Client, prefix: str, status: int, operation: str = "PutObject") -> Iterator[None]:
    """Answer a call with an error if the name of a header, in lower case, begins with the prefix."""

    def refuse(request: Any) -> AWSResponse | None:
        refused = any(name.lower().startswith(prefix) for name in request.headers)
        return s3_response(request, status, "NotSupported") if refused else None

    with intercepted(client, operation, refuse):
        yield


@contextmanager
def header_required(client: S3Client, name: str) -> Iterator[None]:
    """Answer 403 to a write without a header, as a bucket's policy can."""

    def refuse(request: Any) -> AWSResponse | None:
        return None if name in request.headers else s3_response(request, 403, "AccessDenied")

    with intercepted(client, "PutObject", refuse):
        yield


def probe_store(endpoint: str) -> None:
    """Probe a store, so that no test of this process does."""
    name = f"bucket-{uuid.uuid4()}"
    with closing(S3Server(endpoint).client()) as client:
        client.create_bucket(Bucket=name)
        StoreProbe(ObjectStore(client), name, "_ideogram/").run()


@contextmanager
def unprobed() -> Iterator[None]:
    """Forget which stores this process has probed, until the end."""
    with mock.patch.object(probe, "_conditions_of", {}):
        yield


@contextmanager
def conditions_refused(client: S3Client, status: int = 501) -> Iterator[None]:
    """Make the server a store that refuses conditional writes and deletions."""
    with (
        unprobed(),
        headers_refused(client, "if-", status),
        headers_refused(client, "if-", status, "DeleteObject"),
    ):
        yield


@contextmanager
def deletions_misjudged(client: S3Client) -> Iterator[None]:
    """Make the server a store that answers 412 to every conditional deletion."""
    with unprobed(), headers_refused(client, "if-", 412, "DeleteObject"):
        yield


@contextmanager
def checksums_sent(client: S3Client, when: str = "when_supported") -> Iterator[None]:
    """Configure when the client sends checksums, until the end, also if the S3 layer changes it."""
    config: Any = client.meta.config
    with mock.patch.object(config, "request_checksum_calculation", when):
        yield


@contextmanager
def _headers_changed(client: S3Client, operation: str, change: Callable[[Any], None]) -> Iterator[None]:
    """Change the headers of each request of an operation before it is signed."""
    events, event = _events(client), f"before-sign.s3.{operation}"

    def handle(request: Any, **_: Any) -> None:
        change(request.headers)

    events.register_first(event, handle)
    try:
        yield
    finally:
        events.unregister(event, handle)


@contextmanager
def conditions_ignored(client: S3Client, operations: Sequence[str] = ("PutObject", "DeleteObject")) -> Iterator[None]:
    """Make the server a store that ignores the conditions of these operations."""

    def strip(headers: Any) -> None:
        del headers["If-Match"]
        del headers["If-None-Match"]

    with ExitStack() as stack:
        stack.enter_context(unprobed())
        for operation in operations:
            stack.enter_context(_headers_changed(client, operation, strip))
        yield


@contextmanager
def metadata_dropped(client: S3Client) -> Iterator[None]:
    """Make the server a store that keeps no metadata."""

    def strip(headers: Any) -> None:
        for name in [name for name in headers if name.lower().startswith("x-amz-meta-")]:
            del headers[name]

    with unprobed(), _headers_changed(client, "PutObject", strip):
        yield


@contextmanager
def header_names_capitalized(client: S3Client, operation: str) -> Iterator[None]:
    """Return the server's headers as ``X-Amz-Meta-Title``: servers and proxies written in Go do so."""

    def capitalize(request: Any) -> AWSResponse:
        response = _send(request)
        headers: Any = {name.title(): value for name, value in response.headers.items()}
        return AWSResponse(request.url, response.status_code, headers, _Raw(response.content))

    with intercepted(client, operation, capitalize):
        yield


@contextmanager
def metadata_not_copied(client: S3Client) -> Iterator[None]:
    """Make the server a store that copies an object's content only."""

    def replace(headers: Any) -> None:
        if "x-amz-metadata-directive" not in headers:
            headers["x-amz-metadata-directive"] = "REPLACE"

    with _headers_changed(client, "CopyObject", replace):
        yield


@contextmanager
def response_lost(client: S3Client, operation: str, call: int = 1) -> Iterator[list[int]]:
    """Let the server carry out the n-th call of an operation, and answer 500; yield the true statuses."""
    statuses: list[int] = []
    calls = 0

    def lose(request: Any) -> AWSResponse | None:
        nonlocal calls
        calls += 1
        if calls != call:
            return None
        statuses.append(_send(request).status_code)
        return s3_response(request, 500, "InternalError")

    with intercepted(client, operation, lose):
        yield statuses


@contextmanager
def answered_for(operation: str, key_part: str) -> Iterator[None]:
    """Let an operation of all clients fail for the keys that contain a text."""
    from botocore.client import BaseClient
    from botocore.exceptions import EndpointConnectionError

    client: Any = BaseClient
    call = client._make_api_call

    def fail(self: Any, name: str, arguments: dict[str, Any]) -> Any:
        if name == operation and key_part in arguments.get("Key", ""):
            raise EndpointConnectionError(endpoint_url="s3")
        return call(self, name, arguments)

    with mock.patch.object(client, "_make_api_call", fail):
        yield


@contextmanager
def _calls_changed(change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Change the arguments of each call of all clients; ``change`` gets the operation and the arguments."""
    from botocore.client import BaseClient

    client: Any = BaseClient
    call = client._make_api_call

    def changed(self: Any, name: str, arguments: dict[str, Any]) -> Any:
        return call(self, name, change(name, arguments))

    with mock.patch.object(client, "_make_api_call", changed):
        yield


@contextmanager
def conditions_ignored_by_all() -> Iterator[None]:
    """Make the server a store that ignores the conditions of all clients' writes and deletions."""

    def strip(_: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name not in ("IfMatch", "IfNoneMatch")}

    with unprobed(), _calls_changed(strip):
        yield


@contextmanager
def calls_recorded() -> Iterator[list[str]]:
    """Yield the operations that all clients call, each with its key, as they are called."""
    calls: list[str] = []

    def record(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        calls.append(f"{name} {arguments.get('Key', '')}")
        return arguments

    with _calls_changed(record):
        yield calls


@contextmanager
def serial_s3_server() -> Iterator[S3Server]:
    """Run a server that serves one request at a time: moto checks a condition and writes in two steps."""
    from moto.moto_server import threaded_moto_server
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication

    lock = Lock()

    def serial(create: Any) -> Any:
        app: Any = DomainDispatcherApplication(create)

        def call(environ: Any, start_response: Any) -> list[bytes]:
            with lock:
                return list(app(environ, start_response))

        return call

    server = threaded_moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with mock.patch.object(threaded_moto_server, "DomainDispatcherApplication", serial):
        server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
