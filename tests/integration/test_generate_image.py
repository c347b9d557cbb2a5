"""One image, from the prompt to S3 and the next task."""

from __future__ import annotations

import hashlib
import io
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator
from PIL import Image

from airflow_provider_ideogram.emulator.results import RESULT_FORMS
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator
from tests.support.world import KEY, assert_error, assert_succeeded

if TYPE_CHECKING:
    from tests.support.task_runner import TaskRunner
    from tests.support.world import Generate, ImageTask, World

XCOM_KEYS = {
    *("uri", "bucket", "key", "etag", "version_id", "content_type", "size_bytes", "width", "height", "sha256"),
    "provenance",
    *("request_id", "model", "prompt", "magic_prompt_option", "resolution", "style_type", "seed"),
    *(
        "inference_seconds",
        "cost_usd",
        "original_cost_usd",
        "cost_is_estimate",
        "reused",
        "submitted_at",
        "completed_at",
    ),
}


class ReadImage(BaseOperator):
    """Reads the image of an earlier task, as a user's own task does."""

    template_fields = ("uri", "record")

    def __init__(self, uri: str, record: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.uri = uri
        self.record = record

    def execute(self, context: Any) -> dict[str, Any]:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        bucket, key = S3Hook.parse_s3_url(self.uri)
        content = S3Hook().get_key(key, bucket).get()["Body"].read()
        return {"sha256": hashlib.sha256(content).hexdigest(), "expected": self.record["sha256"]}


@pytest.mark.parametrize("deferrable", [True, False])
def test_stores_the_vendors_image_unchanged(
    deferrable: bool,
    image_task: ImageTask,
    world: World,
) -> None:
    run = image_task(deferrable=deferrable, resolution="1344x768", style_type="DESIGN")

    result = run.to_end()

    assert_succeeded(result)
    assert len(run.events) == int(deferrable)
    [request] = world.emulator.requests()
    stored = world.s3.get_object(Bucket=world.bucket, Key=KEY)
    content = stored["Body"].read()
    assert content == world.emulator.image_bytes(request.request_id)
    assert stored["ContentType"] == "image/png"
    assert Image.open(io.BytesIO(content)).size == (1344, 768)

    xcom = run.xcom()
    assert set(xcom) == XCOM_KEYS
    submitted_at, completed_at = (datetime.fromisoformat(xcom.pop(name)) for name in ("submitted_at", "completed_at"))
    assert submitted_at.utcoffset() == completed_at.utcoffset()
    assert submitted_at < completed_at
    assert xcom == {
        "uri": world.uri(),
        "bucket": world.bucket,
        "key": KEY,
        "etag": stored["ETag"].strip('"'),
        "version_id": None,
        "content_type": "image/png",
        "size_bytes": len(content),
        "width": 1344,
        "height": 768,
        "sha256": hashlib.sha256(content).hexdigest(),
        "provenance": None,
        "request_id": request.request_id,
        "model": "ideogram-2a-txt-2-img",
        "prompt": "a lighthouse",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1344_768",
        "style_type": "DESIGN",
        "seed": request.inputs["seed"],
        "inference_seconds": 0.15,
        "cost_usd": 0.05,
        "original_cost_usd": 0.05,
        "cost_is_estimate": False,
        "reused": False,
    }
    metadata = stored["Metadata"]
    assert metadata["ideogram-request-id"] == request.request_id
    assert metadata["ideogram-model"] == "ideogram-2a-txt-2-img"
    assert metadata["ideogram-seed"] == str(request.inputs["seed"])
    assert len(metadata["ideogram-fingerprint"]) == 64
    assert world.object_keys() == [KEY]


def test_sends_the_users_parameters(image_task: ImageTask, world: World) -> None:
    inputs = {
        "prompt": "a lighthouse",
        "magic_prompt_option": "OFF",
        "resolution": "RESOLUTION_512_1536",
        "style_type": "ANIME",
        "seed": 7,
    }
    run = image_task(**inputs, model_params={"color_palette": "warm"})

    run.to_end()

    [request] = world.emulator.requests()
    assert request.inputs == {**inputs, "color_palette": "warm"}
    assert run.xcom()["seed"] == 7


def test_same_seed_generates_the_same_image(image_task: ImageTask, world: World) -> None:
    first = image_task()
    first.to_end()
    again = image_task(task_id="again", seed=first.xcom()["seed"], s3_key="images/again.png")

    again.to_end()

    assert again.xcom()["sha256"] == first.xcom()["sha256"]
    assert world.accepted == 2


def test_request_id_is_pushed_before_the_task_defers(image_task: ImageTask, world: World) -> None:
    run = image_task()

    assert run.execute().state == "deferred"

    [request] = world.emulator.requests()
    assert run.xcoms["request_id"] == request.request_id


@pytest.mark.parametrize("form", [form for form in RESULT_FORMS if form != "none"])
def test_reads_the_image_in_every_form_of_result(
    form: str,
    image_task: ImageTask,
    world: World,
) -> None:
    world.emulator.fault("job", "result_form", form=form)
    run = image_task(deferrable=False)

    result = run.to_end()

    assert_succeeded(result)
    assert world.stored() == world.image_of(run)


@pytest.mark.parametrize(("image_format", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_key_below_a_prefix_has_request_id_and_detected_type(
    image_format: str,
    extension: str,
    image_task: ImageTask,
    world: World,
) -> None:
    world.emulator.configure(image_format=image_format)
    world.emulator.fault("image", "content_type", content_type="text/plain")
    run = image_task(s3_key=f"s3://{world.bucket}/images/", s3_bucket=None)

    result = run.to_end()

    assert_succeeded(result)
    xcom = run.xcom()
    name = xcom["uri"].removeprefix(f"s3://{world.bucket}/images/")
    assert re.fullmatch(rf"[0-9a-f]{{8}}-{xcom['request_id']}\.{extension}", name)
    assert xcom["content_type"] == f"image/{image_format}"
    assert world.s3.head_object(Bucket=world.bucket, Key=xcom["key"])["ContentType"] == f"image/{image_format}"


def test_upload_arguments_are_kept(image_task: ImageTask, world: World) -> None:
    extra = {"ServerSideEncryption": "AES256", "Metadata": {"album": "{{ ds }}"}, "CacheControl": "max-age=60"}

    assert image_task(s3_extra_args=extra).to_end().state == "success"

    stored = world.s3.head_object(Bucket=world.bucket, Key=KEY)
    assert stored["ServerSideEncryption"] == "AES256"
    assert stored["CacheControl"] == "max-age=60"
    assert stored["Metadata"]["album"] == "2026-01-02"
    assert "ideogram-fingerprint" in stored["Metadata"]


def test_version_id_of_the_object_is_returned(image_task: ImageTask, world: World) -> None:
    world.s3.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration={"Status": "Enabled"})
    run = image_task()

    run.to_end()

    assert run.xcom()["version_id"] == world.s3.head_object(Bucket=world.bucket, Key=KEY)["VersionId"]


def test_request_target_and_connections_are_templates(
    monkeypatch: pytest.MonkeyPatch,
    generate: Generate,
    task_runner: TaskRunner,
    world: World,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_OTHER", world.emulator.connection)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_OTHER", os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    for name in ("IDEOGRAM", "AWS"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}_DEFAULT")
    conf = {
        "what": "a lighthouse",
        "magic": "OFF",
        "size": "1024x768",
        "style": "ANIME",
        "seed": 11,
        "model": "ideogram-2a-txt-2-img",
        "bucket": world.bucket,
        "account": "other",
    }
    operator = generate(
        prompt="{{ dag_run.conf['what'] }} on {{ ds }}",
        magic_prompt_option="{{ dag_run.conf['magic'] }}",
        resolution="{{ dag_run.conf['size'] }}",
        style_type="{{ dag_run.conf['style'] }}",
        seed="{{ dag_run.conf['seed'] }}",
        model="{{ dag_run.conf['model'] }}",
        model_params={"note": "{{ ds }}"},
        s3_key="{{ ds_nodash }}/{{ task.task_id }}.png",
        s3_bucket="{{ dag_run.conf['bucket'] }}",
        ideogram_conn_id="ideogram_{{ dag_run.conf['account'] }}",
        aws_conn_id="aws_{{ dag_run.conf['account'] }}",
    )
    run = task_runner(operator, conf=conf)

    result = run.to_end()

    assert_succeeded(result)
    [request] = world.emulator.requests()
    assert request.inputs == {
        "prompt": "a lighthouse on 2026-01-02",
        "magic_prompt_option": "OFF",
        "resolution": "RESOLUTION_1024_768",
        "style_type": "ANIME",
        "seed": 11,
        "note": "2026-01-02",
    }
    assert run.xcom()["uri"] == f"s3://{world.bucket}/20260102/generate.png"
    assert run.rendered_fields["prompt"] == "a lighthouse on 2026-01-02"


@pytest.mark.parametrize("deferrable", [True, False])
def test_without_waiting_the_task_ends_on_submit(deferrable: bool, image_task: ImageTask, world: World) -> None:
    run = image_task(wait_for_completion=False, deferrable=deferrable)

    assert run.execute().state == "success"

    [request] = world.emulator.requests()
    xcom = run.xcom()
    assert xcom["request_id"] == request.request_id == run.xcom("request_id")
    assert datetime.fromisoformat(xcom["submitted_at"]).utcoffset() is not None
    assert {name: xcom[name] for name in request.inputs} == request.inputs
    assert world.emulator.stats().calls == {"submit": 1}


class TestIfExists:
    """What happens to an object that exists at the target."""

    def test_reuse_pays_nothing_for_the_same_inputs(self, image_task: ImageTask, world: World) -> None:
        first = image_task()
        first.to_end()
        second = image_task("another_run")

        assert second.execute().state == "success"

        assert world.accepted == 1
        assert second.xcom() == {**first.xcom(), "reused": True, "cost_usd": 0.0}

    def test_reuse_replaces_an_image_of_other_inputs(self, image_task: ImageTask, world: World) -> None:
        image_task().to_end()
        other = image_task(prompt="a harbour")

        assert other.to_end().state == "success"

        assert world.accepted == 2
        assert other.xcom()["reused"] is False

    def test_reuse_replaces_an_object_of_another_origin(
        self,
        image_task: ImageTask,
        world: World,
    ) -> None:
        world.put(KEY, b"not ours")
        run = image_task()

        assert run.to_end().state == "success"

        assert world.stored() == world.image_of(run)

    def test_overwrite_generates_a_new_image(self, image_task: ImageTask, world: World) -> None:
        image_task("first", if_exists="overwrite").to_end()
        again = image_task("again", if_exists="overwrite")

        assert again.to_end().state == "success"

        assert world.accepted == 2
        assert again.xcom()["reused"] is False

    def test_fail_fails_before_the_submit_without_a_retry(
        self,
        image_task: ImageTask,
        world: World,
    ) -> None:
        world.put(KEY, b"not ours")

        result = image_task(if_exists="fail", retries=3).execute()

        assert result.state == "failed"
        assert_error(result, f"{world.uri()} exists", "Nothing was charged")
        assert world.emulator.stats().calls == {}


def test_next_task_reads_the_image(generate: Generate, task_runner: TaskRunner) -> None:
    with DAG("lighthouses", schedule=None):
        image = generate()
        read = ReadImage(task_id="read", uri="{{ ti.xcom_pull(task_ids='generate')['uri'] }}", record=image.output)
    task_runner(image).to_end()
    run = task_runner(read)

    assert run.execute().state == "success"

    assert run.xcom()["sha256"] == run.xcom()["expected"]


def test_expand_generates_an_image_for_each_prompt(
    ideogram_connection: str, task_runner: TaskRunner, world: World
) -> None:
    prompts = ["a lighthouse", "a harbour", "a gull"]
    with DAG("lighthouses", schedule=None):
        mapped = IdeogramGenerateImageOperator.partial(
            task_id="generate", s3_bucket=world.bucket, s3_key="night/{{ ds }}/{{ ti.map_index }}.png"
        ).expand(prompt=prompts)
    runs = [task_runner(mapped, map_index=index) for index in range(len(prompts))]
    for run in runs:
        assert run.execute().state == "deferred"

    for run in runs:
        assert run.resume(run.fire()).state == "success"

    assert [run.xcom()["prompt"] for run in runs] == prompts
    assert [run.xcom()["key"] for run in runs] == [f"night/2026-01-02/{index}.png" for index in range(3)]
    assert world.accepted == 3


TEMPLATE = "{{ var.value.secret }} {% raw %} {{ 1 / 0 }}"


class ReadPrompts(BaseOperator):
    """Returns prompts from an outside source."""

    def execute(self, context: Any) -> list[str]:
        return [TEMPLATE]


def test_template_from_another_task_is_not_rendered(generate: Generate, task_runner: TaskRunner, world: World) -> None:
    """This holds for expand() and for templates. docs/security.md describes expand_kwargs()."""
    with DAG("lighthouses", schedule=None):
        read = ReadPrompts(task_id="read")
        mapped = IdeogramGenerateImageOperator.partial(
            task_id="mapped", s3_bucket=world.bucket, s3_key="{{ ti.map_index }}.png"
        ).expand(prompt=read.output)
        single = generate(task_id="single", prompt="{{ ti.xcom_pull(task_ids='read')[0] }}")
    assert task_runner(read).execute().state == "success"

    for run in (task_runner(mapped, map_index=0), task_runner(single)):
        result = run.to_end()
        assert result.state == "success", result.error
        assert run.xcom()["prompt"] == TEMPLATE

    assert [request.inputs["prompt"] for request in world.emulator.requests()] == [TEMPLATE] * 2
