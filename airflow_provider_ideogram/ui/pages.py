"""
A page of the gallery: images of single and mapped tasks first, then those of datasets.

Invariant: a page has at most :data:`PAGE_SIZE` items, and the database session is closed before S3 is read. A query
reads everything within the scope, up to the limits of a request and :data:`MAX_SEARCHED`; what it left out is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow.utils.session import create_session

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.ui.datasets import Dataset
from airflow_provider_ideogram.ui.objects import Reader, why_not_read
from airflow_provider_ideogram.ui.query import Query
from airflow_provider_ideogram.ui.records import Instance, Item, item_of_instance, item_of_line
from airflow_provider_ideogram.ui.reviews import Decisions, RunReview, read_reviews
from airflow_provider_ideogram.ui.runs import Scope, image_tasks, instances, review_instances
from airflow_provider_ideogram.ui.work import LimitReached

PAGE_SIZE = 60
#: The task instances with a single image that a query reads.
MAX_SEARCHED = 5000
_EVERYTHING = Query()


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page of a run, a task or a task instance.

    :param total: The number of all known items.
    :param found: How many of them the query matches.
    :param tasks: The tasks within the scope.
    :param states: The number of task instances with a single image, by state.
    :param datasets: The datasets within the scope, for their progress.
    :param problems: Errors of reading, for the user.
    :param reviews: The run's reviews, if they were read.
    """

    items: Sequence[Item]
    total: int
    found: int
    tasks: Sequence[str]
    states: Mapping[str, int]
    datasets: Sequence[Dataset]
    problems: Sequence[str]
    reviews: Sequence[RunReview] = ()


@dataclass(frozen=True, slots=True)
class _Sources:
    tasks: Sequence[str]
    states: Counter[str]
    instances: Sequence[Instance]
    datasets: Sequence[Dataset]
    reviews: Sequence[Instance]


def read_page(
    reader: Reader,
    scope: Scope,
    offset: int = 0,
    limit: int = PAGE_SIZE,
    query: Query = _EVERYTHING,
    *,
    with_reviews: bool = False,
) -> Page:
    """
    Read the items from ``offset`` on that a query matches, in its order.

    :param with_reviews: Whether the run's reviews are read, and the decisions on the items.
    """
    is_search = query != _EVERYTHING
    reads_reviews = with_reviews or bool(query.decision)
    sources = _read_sources(scope, *((0, MAX_SEARCHED) if is_search else (offset, limit)), with_reviews=reads_reviews)
    problems = [dataset.problem for dataset in sources.datasets if dataset.problem is not None]
    reviews = read_reviews(reader, sources.reviews, problems)
    decisions = Decisions(reviews)
    if is_search:
        page = _search(reader, sources, problems, (offset, limit), query, decisions)
    else:
        page = _page(reader, sources, problems, offset, limit)
    return replace(page, items=[decisions.on(item) for item in page.items], reviews=reviews)


def _page(reader: Reader, sources: _Sources, problems: list[str], offset: int, limit: int) -> Page:
    items = [item_of_instance(instance) for instance in sources.instances]
    position = sources.states.total()  # the position of the dataset's first row
    for dataset in sources.datasets:
        wanted = min(limit - len(items), position + dataset.rows - max(offset, position))
        if wanted > 0:
            try:
                rows = dataset.page(reader, max(offset - position, 0), wanted)
                items += [item_of_line(dataset.instance, row, line) for row, line in rows]
            except (IdeogramStorageError, LimitReached) as error:
                problems.append(f"The rows of {dataset.instance.label} can't be read: {why_not_read(error)}.")
        position += dataset.rows
    return Page(items, position, position, sources.tasks, sources.states, sources.datasets, problems)


def _search(
    reader: Reader,
    sources: _Sources,
    problems: list[str],
    place: tuple[int, int],
    query: Query,
    decisions: Decisions,
) -> Page:
    if sources.states.total() > MAX_SEARCHED:
        problems.append(f"Of the tasks with a single image the first {MAX_SEARCHED:,} are searched.")
    with reader.work.search():
        items = map(decisions.on, _all_items(reader, sources, problems))
        page, found = query.page(items, *place)
    total = sources.states.total() + sum(dataset.rows for dataset in sources.datasets)
    return Page(page, total, found, sources.tasks, sources.states, sources.datasets, problems)


def _all_items(reader: Reader, sources: _Sources, problems: list[str]) -> Iterator[Item]:
    """Yield all items, and add what can't be read to the problems."""
    for instance in sources.instances:
        yield item_of_instance(instance)
    for dataset in sources.datasets:
        try:
            for row, line in dataset.last_lines(reader):
                yield item_of_line(dataset.instance, row, line)
        except (IdeogramStorageError, LimitReached) as error:
            problems.append(f"Not all rows of {dataset.instance.label} are searched: {why_not_read(error)}.")


def read_item(reader: Reader, scope: Scope, row: str | None) -> Item | None:
    """
    Read a single item.

    :param scope: Its task instance.
    :param row: Its row in a dataset, None for a task instance with a single image.
    """
    with create_session(scoped=False) as session:
        task = next(iter(image_tasks(session, scope)), None)
        found = instances(session, scope, [task.task_id]) if task else []
    # Several are the iterations of a loop, of which the address names none.
    if task is None or len(found) != 1 or task.is_dataset != (row is not None):
        return None
    if row is None:
        return item_of_instance(found[0])
    line = Dataset.of(found[0]).line(reader, row)
    return None if line is None else item_of_line(found[0], row, line)


def read_neighbours(
    reader: Reader, scope: Scope, item: Item, position: int, query: Query = _EVERYTHING
) -> tuple[Item | None, Item | None]:
    """
    Return the items before and after an item, None where there is none.

    :param position: The item's position in what the query finds; if another item is there now, nothing is returned.
    """
    first = max(position - 1, 0)
    near: list[Item | None] = [*read_page(reader, scope, first, position - first + 2, query).items, None]
    at = position - first
    shown = near[at] if at < len(near) else None
    if shown is None or (shown.instance.label, shown.row) != (item.instance.label, item.row):
        return None, None
    return (near[at - 1] if at else None), near[at + 1]


def _read_sources(scope: Scope, offset: int, limit: int, *, with_reviews: bool) -> _Sources:
    with create_session(scoped=False) as session:
        tasks = image_tasks(session, scope)
        if scope.task_id is None:  # the images of a review are those of other tasks
            tasks = [task for task in tasks if not task.is_review]
        singles = [task.task_id for task in tasks if not task.is_dataset]
        datasets = [task.task_id for task in tasks if task.is_dataset]
        return _Sources(
            [task.task_id for task in tasks],
            sum((Counter(task.states) for task in tasks if not task.is_dataset), Counter()),
            instances(session, scope, singles, offset, limit) if singles else [],
            [Dataset.of(one) for one in instances(session, scope, datasets)] if datasets else [],
            review_instances(session, scope.dag_id, scope.run_id) if with_reviews else [],
        )
