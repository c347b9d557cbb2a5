"""The DAGs that the browser tests look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.datasets.workspace import Workspace
from airflow_provider_ideogram.jobs.identity import owner_id
from airflow_provider_ideogram.links import IdeogramImageLink
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator, IdeogramReviewOperator
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target

PROMPTS = [
    "A lighthouse on a cliff at dawn, oil on canvas",
    "Poster of a jazz festival in a city that does not exist, bold type",
    '<script>document.title = "broken"</script><img src=x onerror=alert(1)> & "quotes" {{ ds }}',
    "A portrait of somebody famous [[fault:blocked]]",
    "An octopus that reads the newspaper under water, children's book",
]
#: The images of the documentation's pictures; the emulator draws what the prompt says with these seeds.
POSTERS = [
    ("A valley with pines in autumn, travel poster", "1344x768", 14),
    ("The old town at dusk, lights in the windows, travel poster", "832x1216", 1),
    ("Swallows over the hills on a summer morning", "1024x1024", 4),
    ("A skyline under a full moon, screen print", "1024x1024", 5),
    ("Forest edge in the first snow, two inks", "768x1344", 3),
    ("Gulls above a quiet coast, wide banner", "1536x640", 9),
    ("Mountains before the storm, flat colours", "1152x896", 23),
    ("Night train to the city, poster of a railway", "1024x1024", 22),
]
IMAGE: dict[str, Any] = {"s3_bucket": "gallery", "deferrable": False, "poll_interval": 0.2}


class DatasetWithoutEnd(BaseOperator):
    """Says what a dataset's operator says while it runs, and waits."""

    operator_extra_links = (IdeogramImageLink(),)
    template_fields = ("s3_prefix",)

    def __init__(self, *, progress: dict[str, Any], s3_prefix: str = "s3://gallery/dataset", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.progress = progress
        self.s3_prefix = s3_prefix

    def execute(self, context: Any) -> Any:
        """Push the progress and defer; without a triggerer the deferral does not end."""
        images, no_s3 = Target.parse(f"{self.s3_prefix}/"), cast("Any", None)
        workspace = Workspace.of(no_s3, images, DEFAULT_LEDGER_PREFIX, owner_id(context["ti"]))
        context["ti"].xcom_push(key="progress", value=self.progress | {"parts": f"{workspace.uri}part-"})
        self.defer(trigger=TimeDeltaTrigger(timedelta(days=1)), method_name="execute")


class DatasetThatEnded(DatasetWithoutEnd):
    """Has the XComs of a dataset that succeeded."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Push the progress and return the result."""
        context["ti"].xcom_push(key="progress", value=self.progress)
        return {**self.progress, "manifest_uri": f"{self.s3_prefix}/manifest.jsonl", "seconds": 1260.5}


with DAG("travel_posters", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=1)}):
    IdeogramGenerateImageOperator.partial(
        task_id="posters", s3_key="posters/{{ ti.map_index }}.png", style_type="DESIGN", **IMAGE
    ).expand_kwargs([{"prompt": prompt, "resolution": size, "seed": seed} for prompt, size, seed in POSTERS])

with DAG("fox_and_friends", schedule=None):
    IdeogramGenerateImageOperator(
        task_id="cover", prompt="A red fox in fresh snow, low sun", seed=7, s3_key="cover.png", **IMAGE
    )
    IdeogramGenerateImageOperator.partial(
        task_id="pages", s3_key="pages/{{ ti.map_index }}.png", style_type="DESIGN", **IMAGE
    ).expand_kwargs([{"prompt": prompt.replace("{{", "{{ '{{' }}"), "seed": 41} for prompt in PROMPTS])

with DAG("private_images", schedule=None):
    IdeogramGenerateImageOperator(
        task_id="secret", prompt="A secret", seed=1, s3_key="secret.png", provenance="xmp", **IMAGE
    )

COUNTS = {"generated": 1880, "reused": 100, "content_blocked": 12, "failed": 8}
with DAG("catalogue", schedule=None):
    DatasetThatEnded(task_id="generate", progress={"total": 2000, "done": 2000, **COUNTS, "cost_usd": 94.0})

with DAG("formats", schedule=None):
    counts = {name: len(RESOLUTIONS) for name in ("total", "done", "generated")} | {"cost_usd": 3.9}
    DatasetThatEnded(task_id="generate", progress=counts, s3_prefix="s3://gallery/formats")

# The images of the formats, of which people decide on some.
with DAG("reviewed", schedule=None):
    made = DatasetThatEnded(task_id="generate", progress=counts, s3_prefix="s3://gallery/formats")
    IdeogramReviewOperator(task_id="review", images=made.output, min_approved=1, timeout=timedelta(days=1))

with DAG("catalogue_in_the_making", schedule=None):
    DatasetWithoutEnd(
        task_id="generate",
        progress={
            "total": 500,
            "done": 90,
            "generated": 88,
            "reused": 0,
            "content_blocked": 1,
            "failed": 1,
            "in_flight": 50,
            "cost_usd": 4.4,
            "images_per_minute": 48.2,
            "seconds_left": 512.0,
        },
    )
