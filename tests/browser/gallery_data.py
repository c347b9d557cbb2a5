"""
What the browser tests look at: an Airflow with finished runs, the images of them in S3, and one user for each role.

Invariant: the runs are real ones; only the dataset's rows are written by hand, and their images are a dozen.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from airflow_provider_ideogram.account.account import place_of
from airflow_provider_ideogram.account.budget import Caps, DayBudget, Spender, day_of
from airflow_provider_ideogram.account.limiter import AccountLimiter
from airflow_provider_ideogram.account.store import AccountStore
from airflow_provider_ideogram.api.parameters import RESOLUTIONS
from airflow_provider_ideogram.datasets.workspace import Workspace, part_name
from airflow_provider_ideogram.emulator.drawing import Picture, draw
from airflow_provider_ideogram.storage.image_record import thumbnail_pointer
from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.target import DEFAULT_LEDGER_PREFIX, Target
from airflow_provider_ideogram.storage.thumbnail import CONTENT_TYPE, make_thumbnail, thumbnail_key
from dev.airflow_cluster import AirflowCluster, airflow_cluster, clean_environment
from dev.emulator_server import EmulatorServer, start_emulator
from dev.processes import Processes
from dev.s3_server import S3Server, start_s3_server
from tests.browser.auth import GUEST, GuestAuthManager
from tests.support.s3 import NO_S3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUCKET = "gallery"
#: The example in which a person decides.
APPROVAL = "ideogram_approval"
#: The DAG of which a run goes on while other tests look at the others.
CAMPAIGN = "campaign"
DATASET_ROWS = 2000
#: The task instance whose dataset has parts only.
RUNNING_DATASET = "catalogue_in_the_making/first/generate/-1"
REGIONS = [
    "Savoy", "Tyrol", "Provence", "Galicia", "Bohemia", "Lapland", "Bavaria", "Tuscany", "Normandy", "Wales", "Styria",
    "Umbria",
]  # fmt: skip
#: The formats of the first images, for pictures in which several are seen; the others are in any order.
FIRST_FORMATS = [f"RESOLUTION_{size}" for size in ("1152_896", "832_1216", "1344_768", "1024_1024")]
RUN_SECONDS = 300.0
#: The extra of a connection whose account has a history.
STUDIO: dict[str, Any] = {
    "requests_per_minute": 50,
    "max_cost_usd_per_day": 8,
    "max_cost_usd_per_month": 150,
    "max_cost_usd_per_dag_and_day": 1,
    "account_url": f"s3://{BUCKET}/studio/",
}
NO_CAPS = Caps()


@dataclass(frozen=True)
class GalleryWorld:
    """
    A running Airflow with what the tests look at.

    :param emulator: The API.
    :param runs: The id of the run of each DAG.
    :param tokens: Of each user.
    """

    cluster: AirflowCluster
    s3: S3Client
    emulator: EmulatorServer
    runs: dict[str, str]
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        """The address of Airflow's UI."""
        return self.cluster.api.url

    def run_page(self, dag_id: str, *more: str) -> str:
        """Return the gallery's address of a run, or of something below it."""
        return "/".join([f"{self.url}/ideogram/dags/{dag_id}/runs/{self.runs[dag_id]}", *more])


@contextmanager
def running_world(home: Path) -> Iterator[GalleryWorld]:
    """Start everything, let the DAGs run, and end it all with the block."""
    clean = clean_environment()
    with Processes(home / "servers") as servers:
        emulator = start_emulator(servers, clean, 0.3)
        emulator.fault(on="job", kind="blank", prompt="a brass lamp")
        server = start_s3_server(servers, clean, BUCKET)
        with server_client(server) as s3:
            store_dataset(s3)
            store_formats(s3)
            store_account(s3)
            # As a spreadsheet saves an empty table.
            s3.put_object(Bucket=BUCKET, Key="products/none.csv", Body=b"\xef\xbb\xbfsep=;\nid;product;price\n;;\n")
            settings = {
                "AIRFLOW_CONN_IDEOGRAM_DEFAULT": emulator.airflow_connection(),
                "AIRFLOW_CONN_STUDIO": json.dumps(json.loads(emulator.airflow_connection()) | {"extra": STUDIO}),
                "AIRFLOW_CONN_AWS_DEFAULT": server.airflow_connection(),
                "AIRFLOW__CORE__AUTH_MANAGER": f"{GuestAuthManager.__module__}.{GuestAuthManager.__name__}",
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
                "AIRFLOW_VAR_IDEOGRAM_BUCKET": BUCKET,
                "PYTHONPATH": str(ROOT),
            }
            dags = home / "dags"
            dags.mkdir()
            for file in (*(HERE / "dags").glob("*.py"), ROOT / "example_dags" / f"{APPROVAL}.py"):
                shutil.copy(file, dags)
            with airflow_cluster(home, dags, settings) as cluster:
                runs = run_dags(cluster)
                yield GalleryWorld(cluster, s3, emulator, runs, tokens(cluster))
                cluster.processes.kill()  # nothing is kept that would need an orderly end


@contextmanager
def server_client(server: S3Server) -> Iterator[S3Client]:
    """Give a client of the S3 server and close it."""
    client = server.client()
    try:
        yield client
    finally:
        client.close()


def store_dataset(s3: S3Client) -> None:
    """Store a manifest of many rows, the parts of a running one, and the images that they name."""
    images = [store_image(s3, index, region) for index, region in enumerate(REGIONS)]
    lines = [json.dumps(dataset_row(images, row)) + "\n" for row in range(DATASET_ROWS)]
    s3.put_object(Bucket=BUCKET, Key="dataset/manifest.jsonl", Body="".join(lines).encode())
    for part in range(3):
        content = "".join(lines[part * 30 : part * 30 + 30])
        s3.put_object(Bucket=BUCKET, Key=part_key(part), Body=content.encode())


def store_formats(s3: S3Client) -> None:
    """Store a manifest with an image of each resolution."""
    others = sorted(set(RESOLUTIONS) - set(FIRST_FORMATS), key=lambda name: crc32(name.encode()))
    images = [
        store_image(s3, index, REGIONS[index % len(REGIONS)], resolution, "formats")
        for index, resolution in enumerate([*FIRST_FORMATS, *others])
    ]
    lines = [
        json.dumps({"row": row, "id": image["key"], "error": None, "status": "generated", "fingerprint": "f", **image})
        for row, image in enumerate(images)
    ]
    s3.put_object(Bucket=BUCKET, Key="formats/manifest.jsonl", Body="\n".join(lines).encode())


def store_account(s3: S3Client) -> None:
    """Store the spend of a month, what is reserved, and a queue."""
    now = time.time()
    spenders = [Spender(dag_id, "generate", "ideogram-2a-txt-2-img") for dag_id in ("catalogue", "travel_posters")]
    bucket, prefix = place_of(STUDIO["account_url"], "studio")
    store = AccountStore(ObjectStore(s3), bucket)

    def write(name: str, state: dict[str, Any]) -> None:
        store.update(f"{prefix}{name}", lambda value: value, lambda _: (state, None))

    for days_ago in range(35):
        day = DayBudget(day_of(now - days_ago * 86_400))
        for number in range(40 + 37 * days_ago % 90):
            assert day.reserve(f"{number}", spenders[number % 2], 0.05, NO_CAPS, now=now, record=None) is None
            if days_ago > 1 or number % 9:
                day.settle(f"{number}", 0.05, failed=number % 31 == 0)
        if days_ago == 9:
            assert day.reserve("lost", spenders[0], 0.05, NO_CAPS, now=now, record=None) is None
            day.settle("lost", None, lost_request_id="6f0c4c1e-2a5b-4d0e-9a51-4f3f1b7c8d90")
        write(f"{day.date}-1.json", day.to_json())
    limiter = AccountLimiter()
    limiter.configure(50, now)
    for _ in range(120):
        limiter.ask("flow", now)
    write("limit-1of1.json", limiter.to_json())


def part_key(number: int) -> str:
    """Return the key of a part of the running dataset."""
    workspace = Workspace.of(NO_S3, Target(BUCKET, "dataset/"), DEFAULT_LEDGER_PREFIX, RUNNING_DATASET)
    return workspace.prefix + part_name(1, 1, number)


def store_image(
    s3: S3Client, index: int, region: str, resolution: str = "RESOLUTION_1024_1024", folder: str = "dataset"
) -> dict[str, Any]:
    """Store an image as the operator does, and return its record."""
    prompt, request_id, key = f"Travel poster of {region}, flat colours", f"request-{index}", f"{folder}/{index}.jpeg"
    width, height = (int(side) for side in resolution.split("_")[1:])
    picture = Picture("ideogram-2a-txt-2-img", prompt, "AUTO", resolution, "DESIGN", index, "jpeg")
    content, metadata = draw(picture), {"ideogram-request-id": request_id}
    if folder == "dataset":
        small = thumbnail_key(DEFAULT_LEDGER_PREFIX, Target(BUCKET, key), content)
        body = make_thumbnail(io.BytesIO(content))
        s3.put_object(Bucket=BUCKET, Key=small, Body=body, ContentType=CONTENT_TYPE, Metadata=metadata)
        metadata |= thumbnail_pointer(small)
    s3.put_object(Bucket=BUCKET, Key=key, Body=content, ContentType="image/jpeg", Metadata=metadata)
    return {
        "uri": f"s3://{BUCKET}/{key}", "bucket": BUCKET, "key": key, "request_id": request_id, "prompt": prompt,
        "width": width, "height": height, "seed": index, "style_type": "DESIGN", "magic_prompt_option": "AUTO",
        "resolution": resolution, "model": "ideogram-2a-txt-2-img", "cost_usd": 0.05,
        "inference_seconds": 11.0 + index / 7, "content_type": "image/jpeg", "reused": False,
    }  # fmt: skip


def dataset_row(images: Sequence[dict[str, Any]], row: int) -> dict[str, Any]:
    """Return a line of the manifest; a few of them are of images that there are none of."""
    head = {"row": row, "id": f"card-{row:04}", "error": None, "fingerprint": f"fingerprint-{row % len(images)}"}
    line = head | images[row % len(images)]
    if row % 250 in (7, 11):
        blocked = row % 250 == 7
        error = "Request blocked by the RAI safety filter" if blocked else "The worker ran out of memory"
        status = "content_blocked" if blocked else "failed"
        return line | {"status": status, "error": error, "bucket": None, "uri": None, "cost_usd": 0.0}
    return line | {"status": "reused" if row % 20 == 3 else "generated"}


def run_dags(cluster: AirflowCluster) -> dict[str, str]:
    """Run every DAG, and return the runs when each but the campaign's has all that is to be seen of it."""
    ends = {
        "travel_posters": {"success"},
        "fox_and_friends": {"failed"},
        "private_images": {"success"},
        "catalogue": {"success"},
        "formats": {"success"},
        "catalogue_in_the_making": {"deferred"},
        "reviewed": {"deferred"},
    }
    processor = cluster.components["dag-processor"]
    dags = [*ends, CAMPAIGN]
    for dag_id in dags:
        cluster.processes.wait_until(processor, partial(cluster.api.has_dag, dag_id), RUN_SECONDS)
    runs = {dag_id: cluster.api.trigger_run(dag_id, run_id="first") for dag_id in dags}
    scheduler = cluster.components["scheduler"]

    def has_ended(dag_id: str) -> bool:
        states = {one["state"] for one in cluster.api.task_instances(dag_id, runs[dag_id])}
        return bool(states) and states <= ends[dag_id] | {"success"} and bool(states & ends[dag_id])

    for dag_id in ends:
        cluster.processes.wait_until(scheduler, partial(has_ended, dag_id), RUN_SECONDS)
    return runs


def tokens(cluster: AirflowCluster) -> dict[str, str]:
    """Return a token of an administrator and one of the guest, as Airflow signs them."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator

    generator = JWTGenerator(
        secret_key=cluster.settings["AIRFLOW__API_AUTH__JWT_SECRET"], valid_for=3600, audience="apache-airflow"
    )
    return {
        "admin": generator.generate({"sub": "admin", "role": "admin", "teams": []}),
        GUEST: generator.generate({"sub": GUEST, "role": "user", "teams": []}),
    }
