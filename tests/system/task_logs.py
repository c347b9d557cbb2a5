"""The logs of the tasks, read from their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.plan import TASK_ID

#: The message of Airflow's supervisor about a killed process.
_KILLED = "Process terminated by signal"
_PROVIDERS_ERROR = re.compile(r"\bIdeogram[A-Z]\w+")


@dataclass(frozen=True)
class Failure:
    """
    The reason of a failure.

    :param kind: The class of the provider's error, `killed`, or "" if the log has no reason.
    :param text: The message.
    """

    kind: str
    text: str


class TaskLogs:
    """
    The log files of the test's tasks.

    :param home: Airflow's home.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "logs"

    def failure(self, task: tuple[str, int], try_number: int) -> Failure:
        """
        Return the reason of an attempt's failure.

        If Airflow's scheduler fails a deferred task whose resumed slice continues (apache/airflow#72716), the slice
        belongs to the next attempt but writes to the log of the previous one.
        """
        found = self._failure(task, try_number)
        return found if found.kind or try_number == 1 else self._failure(task, try_number - 1)

    def _failure(self, task: tuple[str, int], try_number: int) -> Failure:
        found = Failure("", "")
        for entry in self._entries(task, f"attempt={try_number}.log"):
            if entry.get("event", "").startswith(_KILLED):
                found = Failure("killed", entry["event"])
            for error in entry.get("error_detail") or []:
                text = f"{error['exc_type']}: {error['exc_value']}"
                if named := _PROVIDERS_ERROR.search(text):
                    found = Failure(named.group(), text)
                    break
        return found

    def text(self, task: tuple[str, int]) -> str:
        """Return the log of all attempts of a task."""
        return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in self._entries(task, "attempt=*.log"))

    def _entries(self, task: tuple[str, int], pattern: str) -> Iterator[dict[str, Any]]:
        run_id, map_index = task
        mapped = f"map_index={map_index}/" if map_index >= 0 else ""
        for file in sorted(self._folder.glob(f"dag_id=*/run_id={run_id}/task_id={TASK_ID}/{mapped}{pattern}")):
            for line in file.read_text(errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off by a kill
                    entry = {"event": line}
                yield entry if isinstance(entry, dict) else {"event": line}
