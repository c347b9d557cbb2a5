"""
The hook: the calls of the API, with the settings of an Airflow connection.

Invariant: the hook does not interpret responses. It reads the connection and passes each call to a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.history import (
    CLOCK_SKEW,
    PER_PAGE,
    HistoryPage,
    HistoryRow,
    find_submitted,
    get_history_of_days,
    get_history_page,
    get_history_row,
)
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS
from airflow_provider_ideogram.exceptions import (
    IdeogramConnectionMissing,
    IdeogramInvalidInput,
    IdeogramNotFound,
    IdeogramServerUnavailable,
)
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

#: The most pages of 100 requests that a search reads: more requests than an account makes in a few minutes.
_MAX_HISTORY_PAGES = 20
#: The days of a query of the history, which has 31 at most.
_HISTORY_DAYS = 7


class IdeogramHook(BaseHook):
    """
    Call Segmind's text-to-image API.

    :meth:`aget_status` and :meth:`await_requests` are for event loops, such as a triggerer's, on which all hooks of a
    connection share one client: use the former inside ``async with``, the latter also without. All other methods block
    and are for workers; ``with`` closes their connections.

    All methods raise an :class:`~airflow_provider_ideogram.exceptions.IdeogramError`, which says whether a request was
    charged. Reads are sent again after temporary errors; a call that charges is sent again only if the first attempt
    cannot have reached the server.

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
        """
        The connection's settings, read once. Blocks.

        :raises IdeogramConnectionMissing: If there is no such connection.
        :raises IdeogramInvalidInput: If they are not valid.
        """
        try:
            connection = self.get_connection(self.ideogram_conn_id)
        except AirflowNotFoundException as error:
            raise IdeogramConnectionMissing.of(self.ideogram_conn_id) from error
        return ConnectionSettings.of(connection, connection.extra_dejson)

    def get_conn(self) -> SegmindClient:
        """Return the client, which is made on first use."""
        return self._client

    @cached_property
    def _client(self) -> SegmindClient:
        return SegmindClient(self.settings)

    def submit(self, request: GenerationRequest, *, is_admitted: bool = False) -> Submission:
        """
        Submit a request, which is charged when it completes.

        Every error but IdeogramUnknownSubmit, of any class, means that the request was not accepted.

        :param is_admitted: Whether an amount of the connection's budgets is reserved for it.
        :raises IdeogramInvalidInput: If the connection has a budget and no amount is reserved.
        :raises IdeogramSubmitFailed: If the API answered 500, 502 or 503: the request may have been accepted.
        :raises IdeogramUnknownSubmit: If it is not known for another reason whether the request was accepted.
        :raises IdeogramRateLimited: If the rate limit is reached; there is no second attempt. ``retry_after`` is the
            time that the server asks to wait; None means a minute.
        """
        self._check_budget(is_admitted=is_admitted)
        return self._client.run(calls.submit(request))

    def generate_sync(self, request: GenerationRequest) -> GenerationResult:
        """
        Generate an image in one blocking call, which is charged; if the response is lost, so is the image.

        :raises IdeogramInvalidInput: If the connection has a budget, which this call does not keep.
        """
        self._check_budget(is_admitted=False)
        return self._client.run(calls.generate_sync(request))

    def get_status(self, request_id: str, *, max_attempts: int = MAX_ATTEMPTS) -> RequestStatus:
        """
        Return the status of a request.

        :param max_attempts: How often the call is sent at most; 1 leaves retries to the caller.
        :raises IdeogramNotFound: If the vendor has no record of the request, or no longer has it.
        """
        return self._client.run(calls.get_status(request_id), max_attempts)

    def get_result(self, request_id: str) -> GenerationResult:
        """Return the result of a completed request; raise IdeogramJobFailed if the request failed."""
        return self._client.run(calls.get_result(request_id))

    def get_credits(self) -> Credits:
        """Return the account's balance. The call is free of charge."""
        return self._client.run(calls.get_credits())

    @property
    def has_history(self) -> bool:
        """Whether the connection has the address of the account's history."""
        return self.settings.history_url is not None

    def find_in_history(self, request_id: str) -> HistoryRow | None:
        """
        Return one of the account's own requests of any age; None if it is a teammate's, or not in the history yet.

        :raises IdeogramInvalidInput: If the connection has no history.
        """
        try:
            return self._client.run(get_history_row(self._history_url, request_id))
        except IdeogramNotFound as error:
            if error.status_code != 404:  # 405: no such endpoint, which says nothing about the request
                raise
            return None

    def find_in_list(self, request_id: str, model: str, submitted_at: float) -> HistoryRow | None:
        """
        Return a request's row in the list of the account's and its teammates' requests, None if there is none.

        :param model: The model's slug.
        :param submitted_at: When it was submitted, in seconds since the epoch.
        :raises IdeogramServerUnavailable: If the history has too many newer requests to search.
        """
        rows = (row for page in self._history(model, submitted_at) for row in page.rows)
        return next((row for row in rows if row.request_id == request_id), None)

    def find_submitted(
        self, request: GenerationRequest, intended_at: float, last_intended_at: float | None = None
    ) -> set[str]:
        """
        Return the ids of the account's own requests that have these inputs and were made at the time of the submit.

        The list also has requests of teammates. An id that :meth:`find_in_history` does not confirm is left out.

        :param request: The request that was sent, with its seed.
        :param intended_at: The time just before the submit, or the first of several, in seconds since the epoch.
        :param last_intended_at: The time just before the last of several submits.
        :raises IdeogramInvalidInput: If the connection has no history.
        :raises IdeogramServerUnavailable: If the history has too many newer requests to search.
        """
        pages = self._history(request.model, intended_at, last_intended_at)
        listed = set().union(*(find_submitted(page.rows, request, intended_at, last_intended_at) for page in pages))
        return {request_id for request_id in listed if self.find_in_history(request_id) is not None}

    def read_history(self, first: date, last: date) -> Iterator[HistoryPage]:
        """
        Yield the requests of the account and its teammates, of all models, the oldest first.

        :param first: The first day in UTC.
        :param last: The last one, which is included.
        :raises IdeogramInvalidInput: If the connection has no history.
        """
        day, end = first - timedelta(days=1), last + timedelta(days=1)  # the server's time zone is unknown
        while day <= end:
            until = min(day + timedelta(days=_HISTORY_DAYS), end)
            for number in count(1):
                page = self._client.run(get_history_of_days(self._history_url, day, until, number))
                yield page
                if page.size < PER_PAGE:
                    break
            day = until + timedelta(days=1)

    def _history(self, model: str, since: float, until: float | None = None) -> Iterator[HistoryPage]:
        """Yield the pages with requests made between two times, newest first; raise if there are too many."""
        for number in range(1, _MAX_HISTORY_PAGES + 1):
            page = self._client.run(get_history_page(self._history_url, model, since, number, until))
            yield page
            if page.ends_search(since - CLOCK_SKEW):
                return
        raise IdeogramServerUnavailable(
            f"The history has more than {_MAX_HISTORY_PAGES * PER_PAGE:,} newer requests",
            "Nothing was charged by this search.",
        )

    @property
    def _history_url(self) -> str:
        if self.settings.history_url is None:
            problem = f"connection {self.ideogram_conn_id!r} has no history_url, and its host is not the vendor's"
            raise IdeogramInvalidInput.of([problem])
        return self.settings.history_url

    def download_image(self, source: ImageSource) -> SpooledImage:
        """
        Download an image. The API key is not sent.

        :raises IdeogramInvalidImage: If it is not a complete image within the limits of size, from a permitted host.
        :raises IdeogramServerUnavailable: If its host did not deliver it in any attempt.
        """
        from airflow_provider_ideogram.hooks.download import download_image

        return download_image(source, self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the API accepts the key, and a message: the form's test button shows it. Free of charge."""
        try:
            with self:
                balance = self.get_credits()
        except Exception as error:
            # The form's test button gives the connection a random id.
            name = f"connection {self.ideogram_conn_id!r}"
            return False, str(error).replace(f" of {name}", "").replace(f"{name}: ", "")
        if not balance.has_record:
            return True, "The API key is valid; the account has no balance record"
        return True, f"credits: {balance.total:.2f}"

    def __enter__(self) -> Self:
        """Return the hook."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections of the blocking methods."""
        if client := self.__dict__.pop("_client", None):
            client.close()

    async def aget_status(self, request_id: str, *, max_attempts: int = MAX_ATTEMPTS) -> RequestStatus:
        """Return the status of a request, as :meth:`get_status` does."""
        if self._shared is None:
            raise RuntimeError("IdeogramHook.aget_status() must be called inside 'async with'")
        return await self._shared.run(calls.get_status(request_id), max_attempts)

    async def await_requests(
        self, polls: Sequence[RequestPoll], *, deadline: float, min_settled: int | None, on_poll: OnPoll
    ) -> bool:
        """
        Poll requests until enough of them are settled; return True then, False if the deadline passes before.

        All polls of a connection on the loop share one limit of polls in flight and one circuit breaker.

        :param polls: The state of each request, which is updated.
        :param deadline: When to stop, in seconds since the epoch.
        :param min_settled: How many requests have to be settled; None means all.
        :param on_poll: Called after each poll.
        """
        shared = await acquire(self.ideogram_conn_id, self._read_connection)
        try:
            return await shared.poller.await_requests(polls, deadline, min_settled, on_poll)
        finally:
            await release(self.ideogram_conn_id, shared)

    async def _read_connection(self) -> ConnectionSettings:
        try:
            connection = await get_async_connection(self.ideogram_conn_id, hook=self)
        except AirflowNotFoundException as error:
            raise IdeogramConnectionMissing.of(self.ideogram_conn_id) from error
        return ConnectionSettings.of(connection, await get_async_extra_dejson(connection))

    async def __aenter__(self) -> Self:
        """Acquire the connection's shared client on the running loop."""
        self._shared = await acquire(self.ideogram_conn_id, self._read_connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the shared client."""
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await release(self.ideogram_conn_id, shared)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form shows Airflow's standard fields, for Airflow up to 3.1."""
        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the extra in the connection form, for Airflow up to 3.1."""
        from wtforms import StringField

        # Airflow ignores a connection type whose form has a FloatField, so numbers are entered as text.
        return {
            name: StringField(
                extra.label,
                description=extra.description,
                default=None if extra.default is None else str(extra.default),
            )
            for name, extra in EXTRA_FIELDS.items()
        }

    def _check_budget(self, *, is_admitted: bool) -> None:
        if self.settings.has_budget and not is_admitted:
            raise IdeogramInvalidInput.of(
                ["the connection has a budget, which a call of the hook does not keep; use one of the operators"]
            )
