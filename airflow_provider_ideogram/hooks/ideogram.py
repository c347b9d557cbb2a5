"""
The hook: an Airflow connection and the calls of the API.

Invariant: a hook adds nothing to a call's meaning; it looks up the connection and hands the call to a driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.history import (
    CLOCK_SKEW,
    PER_PAGE,
    HistoryPage,
    HistoryRow,
    find_submitted,
    request_history,
)
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS, UI_FIELD_BEHAVIOUR, ConnectionSettings
from airflow_provider_ideogram.hooks.shared_client import SharedClient, acquire, release

if TYPE_CHECKING:
    from airflow_provider_ideogram.api.image_source import ImageSource
    from airflow_provider_ideogram.api.parameters import GenerationRequest
    from airflow_provider_ideogram.api.parsing import Credits, GenerationResult, RequestStatus, Submission
    from airflow_provider_ideogram.api.polling import RequestPoll
    from airflow_provider_ideogram.hooks.image import SpooledImage
    from airflow_provider_ideogram.hooks.polls import OnPoll

#: Pages of 100 requests that are searched: more than an account makes in the minutes in question.
_MAX_HISTORY_PAGES = 20


class IdeogramHook(BaseHook):
    """
    Call Segmind's text-to-image API.

    The methods without an ``a`` block and are for workers; ``with`` closes their connections. On an event loop,
    as in a trigger, all hooks share the connection and its sockets: :meth:`aget_status` is used inside
    ``async with``, :meth:`await_requests` by itself.

    All methods raise an :class:`~airflow_provider_ideogram.exceptions.IdeogramError`, whose kind tells whether
    money was spent. Reads are repeated on errors that may pass; a call that charges is repeated only where it
    certainly never reached the server.

    :param ideogram_conn_id: The Airflow connection of type ``ideogram``.
    """

    conn_name_attr = "ideogram_conn_id"
    default_conn_name = "ideogram_default"
    conn_type = "ideogram"
    hook_name = "Ideogram (Segmind)"

    def __init__(self, ideogram_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ideogram_conn_id = ideogram_conn_id
        self._shared: SharedClient | None = None

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection, looked up once. Blocks; raises IdeogramInvalidInput if it is not valid."""
        connection = self.get_connection(self.ideogram_conn_id)
        return ConnectionSettings.of(connection, connection.extra_dejson)

    def get_conn(self) -> SegmindClient:
        """Return what sends the calls, made once."""
        return self._client

    @cached_property
    def _client(self) -> SegmindClient:
        return SegmindClient(self.settings)

    def submit(self, request: GenerationRequest) -> Submission:
        """
        Submit a job, which charges the account.

        :raises IdeogramUnknownSubmit: If it may or may not have been accepted.
        :raises IdeogramRateLimited: If the rate limit is reached, at once; its ``retry_after`` is what the server asks
            for, None if it does not say, which means a minute.
        """
        return self._client.run(calls.submit(request))

    def generate_sync(self, request: GenerationRequest) -> GenerationResult:
        """Generate in one blocking call, which charges the account; if its answer is lost, so is the image."""
        return self._client.run(calls.generate_sync(request))

    def get_status(self, request_id: str, *, max_attempts: int = MAX_ATTEMPTS) -> RequestStatus:
        """
        Return a job's state; IdeogramNotFound means that the vendor does not, or no longer, know it.

        ``max_attempts=1`` leaves it to the caller to ask again after an error.
        """
        return self._client.run(calls.get_status(request_id), max_attempts)

    def get_result(self, request_id: str) -> GenerationResult:
        """Return a completed job's image, as an address or as bytes; raises IdeogramJobFailed if it failed."""
        return self._client.run(calls.get_result(request_id))

    def get_credits(self) -> Credits:
        """Return the account's balance, free of charge."""
        return self._client.run(calls.get_credits())

    def find_submitted(self, request: GenerationRequest, intended_at: float) -> set[str]:
        """
        Return the ids of the account's requests that have these inputs and were made when the submit was.

        :param request: What was sent, its seed included.
        :param intended_at: When, in seconds since the epoch.
        :raises IdeogramServerUnavailable: If the search is given up, since there are too many newer requests.
        """
        pages = self._history(request.model, intended_at)
        return set().union(*(find_submitted(page.rows, request, intended_at) for page in pages))

    def find_request(self, request_id: str, model: str, since: float) -> HistoryRow | None:
        """
        Return what the account's history says of a request, None if it does not show it.

        :param model: The model's slug.
        :param since: A time before which it was not made, in seconds since the epoch.
        :raises IdeogramServerUnavailable: If it is not among so many of the newest that the search is given up.
        """
        rows = (row for page in self._history(model, since) for row in page.rows)
        return next((row for row in rows if row.request_id == request_id), None)

    def _history(self, model: str, since: float) -> Iterator[HistoryPage]:
        """Yield the pages that may hold a request made after a time, newest first; raise if they are too many."""
        url = self.settings.history_url
        if url is None:
            problem = f"connection {self.ideogram_conn_id!r} names no history_url, and its host is not the vendor's"
            raise IdeogramInvalidInput.of([problem])
        for number in range(1, _MAX_HISTORY_PAGES + 1):
            page = self._client.run(request_history(url, model, since, number))
            yield page
            if page.ends_search(since - CLOCK_SKEW):
                return
        raise IdeogramServerUnavailable(
            f"The history has more than {_MAX_HISTORY_PAGES * PER_PAGE:,} newer requests",
            "Nothing was charged by this search.",
        )

    def download_image(self, source: ImageSource) -> SpooledImage:
        """
        Bring an image here, without ever sending the key.

        :raises IdeogramInvalidImage: If it is not a complete image of bearable size from a permitted host.
        """
        from airflow_provider_ideogram.hooks.download import download_image

        return download_image(source, self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance, which is free of charge; the form's test button shows the answer."""
        try:
            with self:
                return True, f"credits: {self.get_credits().total:.2f}"
        except Exception as error:
            return False, str(error)

    def __enter__(self) -> Self:
        """Return the hook."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections of the blocking methods."""
        if driver := self.__dict__.pop("_client", None):
            driver.close()

    async def aget_status(self, request_id: str, *, max_attempts: int = MAX_ATTEMPTS) -> RequestStatus:
        """Return a job's state, as :meth:`get_status` does."""
        return await self._borrowed.run(calls.get_status(request_id), max_attempts)

    async def await_requests(
        self, polls: Sequence[RequestPoll], *, deadline: float, min_settled: int | None, on_poll: OnPoll
    ) -> bool:
        """
        Poll requests until all, or enough of them, are settled, and return whether that was before the deadline.

        All polls of the connection share one queue and one back-off.

        :param polls: What is known of each; they are changed.
        :param deadline: When to give up, in seconds since the epoch.
        :param min_settled: How many have to be settled, None for all.
        :param on_poll: Is told of each poll.
        """
        # No `async with`, and no coroutine but this one: thousands of them wait here at once.
        shared = await acquire(self.ideogram_conn_id, self._read_connection)
        try:
            watch = shared.polls.watch(polls, deadline, min_settled, on_poll)
            try:
                return await watch.over
            finally:
                await shared.polls.forget(watch)
        finally:
            await release(self.ideogram_conn_id, shared)

    @property
    def _borrowed(self) -> SharedClient:
        if self._shared is None:
            raise RuntimeError("IdeogramHook.aget_status() is used inside 'async with'")
        return self._shared

    async def _read_connection(self) -> ConnectionSettings:
        connection = await get_async_connection(self.ideogram_conn_id, hook=self)
        return ConnectionSettings.of(connection, await get_async_extra_dejson(connection))

    async def __aenter__(self) -> Self:
        """Borrow what the loop's users of the connection share."""
        self._shared = await acquire(self.ideogram_conn_id, self._read_connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await release(self.ideogram_conn_id, shared)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form shows its standard fields, for Airflow up to 3.1."""
        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's own fields, for Airflow up to 3.1."""
        from wtforms import StringField

        # Airflow drops a connection type whose form has a FloatField; numbers are read from text as well.
        return {
            name: StringField(
                extra.label,
                description=extra.description,
                default=None if extra.default is None else str(extra.default),
            )
            for name, extra in EXTRA_FIELDS.items()
        }
