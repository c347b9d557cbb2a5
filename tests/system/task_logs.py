"""The logs of the tasks, read from their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.system.plan import TASK_ID

#: The message of Airflow's supervisor about a killed process.
_KILLED = "Process terminated by signal"


class TaskLogs:
    """
    The log files of the test's tasks.

    :param home: Airflow's home.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "logs"

    def kill(self, task: tuple[str, int], try_number: int) -> str:
        """
        Return the supervisor's line about an attempt whose process was killed, "" if there is none.

        If Airflow's scheduler fails a deferred task whose resumed slice continues (apache/airflow#72716), the slice
        belongs to the next attempt but writes to the log of the previous one.
        """
        for number in (try_number, try_number - 1):
            for entry in self._entries(task, f"attempt={number}.log"):
                if (event := entry.get("event", "")).startswith(_KILLED):
                    return str(event)
        return ""

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
