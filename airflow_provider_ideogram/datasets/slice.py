"""
What the steps of a slice share. A slice is one stay of the task on a worker.

Invariant: what a later slice needs is in ``SliceContext.state``; a :class:`SliceProgress` ends with its slice. Worker
threads only add to a :class:`SliceProgress`; the main thread alone changes the state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_ideogram.exceptions import (
    IdeogramBudgetReached,
    IdeogramError,
    IdeogramStorageError,
    IdeogramTemporaryError,
)
from airflow_provider_ideogram.storage.target import Target

if TYPE_CHECKING:
    from airflow_provider_ideogram.account.account import Account
    from airflow_provider_ideogram.account.turns import Turn
    from airflow_provider_ideogram.datasets.options import DatasetOptions
    from airflow_provider_ideogram.datasets.rows import Item
    from airflow_provider_ideogram.datasets.state import DatasetState
    from airflow_provider_ideogram.datasets.workspace import Workspace
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook
    from airflow_provider_ideogram.jobs.ledger import Ledger, NoLedger
    from airflow_provider_ideogram.storage.image_store import ImageStore

#: Seconds until an item is retried after a temporary error.
RETRY_SECONDS = 30.0
#: Images that can't be fetched, while no image is stored, before the problem counts as one of all images.
MAX_FETCH_FAILURES = 5

Input = TypeVar("Input")


@dataclass(frozen=True, slots=True)
class SliceContext:
    """
    The services and arguments of a slice.

    :param options: The arguments of the run.
    :param hook: The API.
    :param store: The images in S3.
    :param ledger: The ledger of the images' bucket.
    :param account: The rate limit and the budgets of the connection, None if it sets none.
    :param workspace: The run's own objects.
    :param output_prefix: The prefix of the images.
    :param state: The run's state, which the steps change.
    :param owner: The task instance: ``dag_id/run_id/task_id/map_index``.
    :param max_tries: The task instance's, which changes on a clear.
    :param save_state: Writes the state.
    """

    options: DatasetOptions
    hook: IdeogramHook
    store: ImageStore
    ledger: Ledger | NoLedger
    account: Account | None
    workspace: Workspace
    output_prefix: Target
    state: DatasetState
    owner: str
    max_tries: int
    save_state: Callable[[], None]

    def target(self, key: str) -> Target:
        """Return the address of a key."""
        return Target(self.output_prefix.bucket, key)

    def if_exists_of(self, item: Item) -> str:
        """Return what an object at an item's key means: the run's own image is kept, or replaced if it differs."""
        return "reuse" if item.own else self.options.if_exists


@dataclass(slots=True)
class SliceProgress:
    """
    The findings of a slice.

    :param recheck_ids: Requests whose status or image could not be read; the trigger does not poll them.
    :param stored_ids: Requests whose image was stored.
    :param store_errors: Why images of completed requests could not be fetched or stored.
    :param notes: The kind and the text of what happened to single items.
    :param items_taken: The number of items that a submit was attempted for.
    :param budget_reached: Whether ``max_cost_usd`` did not permit to submit another item.
    :param unpriced_model: The model of that item, if only its unknown price was in the way.
    :param turn: The task's place among those that wait for the account's rate limit, None if it does not wait.
    :param refusal: The budget of the connection that left no room for another item.
    """

    recheck_ids: set[str] = field(default_factory=set)
    stored_ids: set[str] = field(default_factory=set)
    store_errors: list[IdeogramTemporaryError] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    items_taken: int = 0
    budget_reached: bool = False
    unpriced_model: str | None = None
    turn: Turn | None = None
    refusal: IdeogramBudgetReached | None = None

    def summary(self) -> list[str]:
        """Return a line of each kind of notes: the first one, and the number of the others."""
        first: dict[str, str] = {}
        for kind, text in self.notes:
            first.setdefault(kind, text)
        counts = Counter(kind for kind, _ in self.notes)
        return [text if counts[kind] == 1 else f"{text} ({counts[kind]} such items)" for kind, text in first.items()]

    @property
    def is_storage_blocked(self) -> bool:
        """Whether images can't be stored for a reason that concerns all of them."""
        refused = any(isinstance(error, IdeogramStorageError) for error in self.store_errors)
        return refused or (len(self.store_errors) >= MAX_FETCH_FAILURES and not self.stored_ids)


def gather(
    pool: ThreadPoolExecutor, work: Callable[[Input], Any], items: Iterable[Input]
) -> tuple[list[Any], list[IdeogramError]]:
    """Return the result of each item, None for one that raised an error, and the raised errors."""
    errors: list[IdeogramError] = []

    def attempt(item: Input) -> Any:
        try:
            return work(item)
        except IdeogramError as error:
            errors.append(error)
            return None

    return list(pool.map(attempt, items)), errors
