"""The tables and plots of the benchmarks; all values of a table are from the same run."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import parsing, polls, upload
from benchmarks.completion_delay import DISTRIBUTIONS, Detection, least_polls, mean_delay, mean_polls
from dev.run_info import run_info

if TYPE_CHECKING:
    from benchmarks.on_airflow import TriggererLoad

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("apache-airflow", "aiohttp", "httpx", "segmind", "apache-airflow-providers-http")


def machine() -> str:
    """Return the commit, the date, the machine and the packages that are compared."""
    return f"{run_info()}; {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}."


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table whose columns after the first are numbers."""
    names = list(head)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write(name: str, title: str, *parts: str) -> None:
    """Write a page of results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join([f"# {title}\n", *parts]))


def polls_page(results: dict[int, dict[str, dict[str, float] | None]], about: str) -> None:
    parts = [about]
    for jobs, cases in results.items():
        floor, idle = cases[polls.FLOOR], cases[polls.NOTHING]
        assert floor
        rows = []
        for case, measured in cases.items():
            if measured is None:
                rows.append([case, *["did not end in time"], *["-"] * 7])
                continue
            own_memory = measured["kb_per_job"] - idle["kb_per_job"] if idle else float("nan")
            per_poll = measured["cpu_ms_per_poll"]
            rows.append(
                [
                    case,
                    f"{measured['polls_per_second']:.0f}",
                    f"{per_poll:.2f}" if per_poll else "-",
                    f"{per_poll / floor['cpu_ms_per_poll']:.2f}" if per_poll else "-",
                    *(f"{measured[f'late_{name}_ms']:.0f}" for name in ("p50", "p99", "max", "by_own_work_max")),
                    f"{own_memory:.1f}",
                ]
            )
        interval = polls.interval_of(jobs)
        head = (
            f"{jobs:,} jobs, each asked about every {interval:g} s ({jobs / interval:.0f}/s)",
            "polls/s",
            "CPU ms/poll",
            "x aiohttp alone",
            "late p50 ms",
            "p99",
            "max",
            "max by own work",
            "kB/job",
        )
        parts.append(table(head, rows))
    parts.append(
        "Late is how much later than due the event loop comes back from a sleep of 50 ms, from the first job on. "
        "By own work is as much of it as the process's own CPU time explains; the rest are the machine's other "
        "processes. This provider, with and without the queue, and aiohttp ran twice, in turn, and the less disturbed "
        "run of each counts. kB/job is resident memory over that of a trigger that only sleeps.\n\n"
        "![CPU per poll](polls.png)\n"
    )
    write("polls", "Waiting for many jobs in one process", *parts)
    _bars(
        "polls.png",
        "CPU per poll, as a multiple of aiohttp alone",
        {
            f"{jobs:,} jobs": {
                case: measured["cpu_ms_per_poll"] / floor["cpu_ms_per_poll"]
                for case, measured in cases.items()
                if measured and case != polls.NOTHING and (floor := cases[polls.FLOOR])
            }
            for jobs, cases in results.items()
        },
        log=True,
    )


def completion_delay_page(results: dict[str, dict[str, list[Detection]]], jobs: int, seed: int, about: str) -> None:
    rows = []
    for name, pollers in results.items():
        sdk = pollers["vendor's SDK"]
        cells = []
        for detections in pollers.values():
            delay, count = mean_delay(detections), mean_polls(detections)
            share = 100 * count / mean_polls(sdk)
            cells.append(f"{delay:.2f} s ({delay / mean_delay(sdk):.2f}x), {count:.1f} ({share:.0f} %)")
        least = least_polls(DISTRIBUTIONS[name], mean_delay(sdk), seed)
        rows.append([name, *cells, f"{least:.1f} ({100 * least / mean_polls(sdk):.0f} %)"])
    write(
        "completion-delay",
        "The delay until a completed job is detected",
        about,
        f"Mean delay and polls of an image, and both relative to the vendor's SDK; {jobs:,} jobs of each distribution, "
        "virtual time. The last column is the least number of polls with the SDK's delay, for a schedule that knows "
        "the distribution.\n",
        table(["job durations", *next(iter(results.values())), "least polls"], rows),
        "![Delay and polls](completion-delay.png)\n",
    )
    figure, axes = plots(1, len(results), width=3.2 * len(results))
    for axis, (name, pollers) in zip(axes, results.items(), strict=True):
        for poller, detections in pollers.items():
            axis.scatter(mean_polls(detections), mean_delay(detections), label=poller, s=60)
        axis.set(title=name.replace(" (", "\n("), xlabel="polls per image", yscale="log")
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("mean delay, s")
    axes[0].legend(fontsize=8)
    save(figure, "completion-delay.png")


def parsing_page(results: dict[str, tuple[float, int]], about: str) -> None:
    own = results["this provider"][0]
    rows = [[name, f"{ms:.1f}", f"{ms / own:.1f}", modules] for name, (ms, modules) in results.items()]
    write(
        "parsing",
        "The import of the operators in a DAG file",
        about,
        f"In addition to `airflow.sdk`; median of {parsing.ROUNDS} processes each, alternately.\n",
        table(["operators of", "ms", "x this provider", "modules"], rows),
        "![Import time](parsing.png)\n",
    )
    _bars("parsing.png", "Import of the operators, ms", {"": {name: ms for name, (ms, _) in results.items()}}, log=True)


def upload_page(results: dict[float, dict[str, tuple[float, float]]], about: str) -> None:
    rows = []
    for size, methods in results.items():
        whole_rate, whole_peak = methods[upload.WHOLE]
        for name, (rate, peak) in methods.items():
            rows.append(
                [
                    f"{size:.0f} MB, {name}",
                    f"{rate:.1f}",
                    f"{rate / whole_rate:.2f}",
                    f"{peak:.1f}",
                    f"{peak / whole_peak:.2f}",
                ]
            )
    head = ("image", "images/s", "x read at once", "peak of allocated MB", "x read at once")
    write("upload", "The download of an image and its upload to S3", about, table(head, rows))


def airflow_page(seconds: dict[str, float], job_seconds: float, mapped: int, about: str) -> None:
    rows = []
    for name, image, deferral in (
        ("1 image", "one_image", "one_deferral"),
        (f"{mapped} mapped images", "many_images", "many_deferrals"),
    ):
        airflows, own = seconds[deferral] - job_seconds, seconds[image] - seconds[deferral]
        rows.append(
            [
                name,
                f"{seconds[image]:.1f}",
                f"{job_seconds:.1f}",
                f"{airflows:.1f}",
                f"{own:.1f}",
                f"{100 * own / seconds[image]:.0f} %",
            ]
        )
    head = ("run of", "total seconds", "job", "Airflow", "provider", "provider's share")
    write(
        "end-to-end",
        "End-to-end time on a real Airflow",
        about,
        "Airflow's time is that of an operator that only defers for the duration of the job.\n",
        table(head, rows),
    )


def triggerer_page(loads: dict[str, TriggererLoad], about: str) -> None:
    rows = [
        [
            name,
            load.events,
            f"{load.seconds:.0f}",
            len(load.blocked),
            f"{max(load.blocked, default=0.0):.2f}",
            f"{load.cpu_seconds:.0f}",
        ]
        for name, load in loads.items()
    ]
    head = ("1,000 deferred at once", "events", "seconds", "blocked-loop warnings", "longest, s", "CPU s")
    write("triggerer", "A real triggerer with 1,000 deferred jobs", about, table(head, rows))


def _bars(name: str, title: str, groups: dict[str, dict[str, float]], *, log: bool = False) -> None:
    figure, axes = plots(1, len(groups), width=5.5 * len(groups))
    for axis, (group, values) in zip(axes, groups.items(), strict=True):
        bars = axis.barh(list(values), list(values.values()), log=log)
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.set_title(group)
    figure.suptitle(title)
    save(figure, name)


def plots(rows: int, columns: int, width: float) -> tuple[Any, Any]:
    """Return a figure and the axes of its first row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, 3.6), squeeze=False, layout="constrained")
    return figure, axes[0]


def save(figure: Any, name: str) -> None:
    """Save a figure in the folder of the pages."""
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / name, dpi=100)
