"""
The place of a task instance within its run, and which of Airflow's rows belong to it.

Invariant: no two task instances have the same place or share a row. Before Airflow 3.4 task and map index tell them
apart. From then on the iterations of a task loop share both, and Airflow stores each of them in a region; and each
attempt has XComs and rendered fields of its own, of which only those of the last attempt count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select

_REGIONS = "airflow.models.dynamic_region"
#: The table of regions, None before Airflow 3.4.
DynamicRegion: Any = import_module(_REGIONS).DynamicRegion if find_spec(_REGIONS) else None
_NO_REGION = UUID(int=0)
#: In the path of a region: the id of its outermost ancestor, then the index there, which is a loop's iteration.
_ITERATION = slice(16, 20)
_PLACE = re.compile(r"(-1|[0-9]{1,9})(?:@([0-9a-f]{32})\.([0-9]{1,9}))?")
_TI: Any = TaskInstance
_XCOM: Any = XComModel


@dataclass(frozen=True, slots=True)
class Place:
    """
    The place of a task instance, beside its task.

    :param map_index: -1 if the task is not mapped.
    :param region_id: The region in which Airflow 3.4 and newer store it, None if there is none.
    :param region_index: Its index there.
    :param iteration: The iteration of the loop, None outside of loops.
    """

    map_index: int
    region_id: UUID | None = None
    region_index: int | None = None
    iteration: int | None = None

    @classmethod
    def of_row(cls, task_id: str, index: int, *region: Any) -> Place:
        """
        Return the place of a row of :func:`columns`.

        :param index: The stored map index, which is the iteration of a task in a loop that is not mapped.
        """
        region_id, node_id, path = region if region else (None, None, None)
        if node_id is None:
            return cls(index)
        is_mapped, is_outside = node_id == task_id, node_id == task_id and not path
        iteration = int.from_bytes(path[_ITERATION]) if path else index
        return cls(index if is_mapped else -1, region_id, index, None if is_outside else iteration)

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Return the place that an address names, None if it names none; its iteration is not known."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return None
        return cls(int(found[1]), UUID(found[2]), int(found[3])) if found[2] else cls(int(found[1]))

    def includes(self, other: Place) -> bool:
        """Return whether it is another place, or that of all iterations of a loop to which the other one belongs."""
        is_region = self.region_id in (None, other.region_id) and self.region_index in (None, other.region_index)
        return self.map_index == other.map_index and is_region

    def __str__(self) -> str:
        """Return it as addresses have it."""
        if self.iteration is None or self.region_id is None:
            return str(self.map_index)
        return f"{self.map_index}@{self.region_id.hex}.{self.region_index}"


def columns() -> tuple[Any, ...]:
    """Return the columns of a task instance that :meth:`Place.of_row` needs."""
    if DynamicRegion is None:
        return _TI.task_id, _TI.map_index
    return _TI.task_id, _TI.map_index, DynamicRegion.id, DynamicRegion.node_id, DynamicRegion.path


def with_regions(query: Select[Any]) -> Select[Any]:
    """Return a query of :func:`columns` with the tables that they are in."""
    return query if DynamicRegion is None else query.outerjoin(DynamicRegion, DynamicRegion.id == _TI.region_id)


def order() -> tuple[Any, ...]:
    """Return the order of a query of :func:`with_regions`: by task, iteration and map index."""
    iteration = () if DynamicRegion is None else (func.coalesce(DynamicRegion.parent_region_index, _TI.map_index),)
    return _TI.task_id, *iteration, _TI.map_index


def is_at(place: Place) -> ColumnElement[bool]:
    """Return the condition for the task instances at a place, without a region those of all iterations of a loop."""
    if DynamicRegion is None:
        return and_(_TI.map_index == place.map_index)
    if place.region_id is not None:
        return and_(_TI.region_id == place.region_id, _TI.region_index == place.region_index)
    own = select(DynamicRegion.id).where(DynamicRegion.id == _TI.region_id, DynamicRegion.node_id == _TI.task_id)
    is_mapped = or_(_TI.region_id == _NO_REGION, own.correlate(_TI).exists())
    return and_(case((is_mapped, _TI.region_index), else_=-1) == place.map_index)


def identity(table: Any) -> tuple[Any, ...]:
    """
    Return the columns that tell the task instances of a run apart.

    :param table: That of task instances, of XComs, or of rendered fields.
    """
    if DynamicRegion is None:
        return table.task_id, table.map_index
    return (table.id if table is TaskInstance else table.task_instance_id,)


def of_same_instance() -> ColumnElement[bool]:
    """Return the condition that joins an XCom to its task instance."""
    if DynamicRegion is not None:
        return and_(_XCOM.task_instance_id == _TI.id)
    names = ("dag_id", "run_id", "task_id", "map_index")
    return and_(*(getattr(_XCOM, name) == getattr(_TI, name) for name in names))
