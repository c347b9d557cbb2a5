"""What the demonstration prints: each task's changes of state, and a table of the images with their cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dev.airflow_api import Json


class Console:
    """
    Prints without buffering, and masks a secret.

    :param secret: the API key, empty if there is none.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._started = time.monotonic()

    def say(self, text: str = "") -> None:
        """Print text as it is."""
        print(text.replace(self._secret, "***") if self._secret else text, flush=True)

    def step(self, text: str) -> None:
        """Print text after the seconds since the start."""
        self.say(f"{time.monotonic() - self._started:6.1f} s  {text}")


class Progress:
    """Prints a line for each change of a task instance's state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}

    def show(self, task_instances: Sequence[Json]) -> None:
        """Print the states that have changed since the last call."""
        for task_instance in task_instances:
            name, state = label(task_instance), task_instance["state"]
            if state and state != self._states.get(name):
                self._states[name] = state
                self._console.step(f"{name:20} {state}")


def label(task_instance: Json) -> str:
    """Return a task instance's name as Airflow's UI writes it, such as `generate[3]`."""
    index = task_instance["map_index"]
    return task_instance["task_id"] if index < 0 else f"{task_instance['task_id']}[{index}]"


def image_table(images: Sequence[Json]) -> str:
    """Return a table of the images: address, duration, cost, size, and the total."""
    lines = [("image", "seconds", "cost USD", "pixels", "KiB")]
    lines += [
        (
            image["uri"],
            _number(image["inference_seconds"], 1),
            _number(image["cost_usd"], 2),
            f"{image['width']}x{image['height']}",
            _number(image["size_bytes"] / 1024, 0),
        )
        for image in images
    ]
    total = sum(image["cost_usd"] or 0.0 for image in images)
    lines.append((f"total of {len(images)} images", "", _number(total, 2), "", ""))
    width = max(len(line[0]) for line in lines)
    rows = (f"{line[0]:{width}}" + "".join(f"{cell:>11}" for cell in line[1:]) for line in lines)
    return "\n".join(row.rstrip() for row in rows)


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
