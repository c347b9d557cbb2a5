"""
The log of tasks and triggers at every level, before Airflow masks anything.

Invariant: it has the records of structlog, which Airflow 3, operators and triggers use, and those of the standard
library, which httpx, httpcore, botocore and others use, with tracebacks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

try:
    import structlog
except ImportError:  # Airflow 2 logs with the standard library only
    structlog = None  # type: ignore[assignment]


class _Named:
    def __init__(self, name: str | None = None, *_: Any) -> None:
        self.name = name


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def captured_logs(lines: list[str]) -> Iterator[None]:
    """Append a line to the list for each log record; no other handler receives it."""
    with _captured_structlog(lines) if structlog else nullcontext():
        root = logging.getLogger()
        handlers = root.handlers
        known = root.manager.loggerDict.items()
        # Airflow 2 uses its database in the task's process, whose log is left out. Loggers without an own level follow
        # the root logger: each change of a level clears the caches of all loggers, which takes time.
        loggers = [
            each
            for name, each in known
            if isinstance(each, logging.Logger) and "sqlalchemy" not in name and (each.level or not each.propagate)
        ]
        loggers.append(root)
        settings = [(each, each.level, each.propagate) for each in loggers]
        root.handlers = [_Lines(lines)]
        for each in loggers:
            each.setLevel(logging.DEBUG)
            each.propagate = True
        try:
            yield
        finally:
            for each, level, propagate in settings:
                each.setLevel(level)
                each.propagate = propagate
            root.handlers = handlers


@contextmanager
def _captured_structlog(lines: list[str]) -> Iterator[None]:
    def keep(logger: Any, level: str, event: Any) -> Any:
        event = dict(event)
        name = event.pop("logger_name", None) or logger.name
        if name:  # the stand-in for the supervisor's socket has none, and logs its messages
            text, traceback = event.pop("event", ""), event.pop("exception", "")
            lines.append(" ".join(filter(None, [level.upper(), name, str(text), str(event or ""), traceback])))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info, keep],
        logger_factory=_Named,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
