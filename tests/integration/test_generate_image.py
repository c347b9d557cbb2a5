"""One image, from the prompt to S3 and the next task."""

from __future__ import annotations

import hashlib
import io
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator
from PIL import Image

from airflow_provider_ideogram.emulator.results import RESULT_FORMS
from airflow_provider_ideogram.operators import IdeogramGenerateImageOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator
    from tests.support.task_runner import TaskRunner

    Generate = Callable[..., IdeogramGenerateImageOperator]

XCOM_KEYS = {
    *("uri", "bucket", "key", "etag", "version_id", "content_type", "size_bytes", "width", "height", "sha256"),
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
    """A user's next task: reads the image that an earlier one made."""

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
def test_stores_what_the_vendor_made(
    deferrable: bool,
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    run = task_runner(generate(deferrable=deferrable, resolution="1344x768", style_type="DESIGN"))

    result = run.to_end()

    assert result.state == "success", result.log_text
    assert len(run.events) == int(deferrable)
    [charge] = ideogram_emulator.requests()
    stored = s3.get_object(Bucket=s3_bucket, Key="images/lighthouse.png")
    content = stored["Body"].read()
    assert content == ideogram_emulator.image_bytes(charge.request_id)
    assert stored["ContentType"] == "image/png"
    assert Image.open(io.BytesIO(content)).size == (1344, 768)

    xcom = run.xcom()
    assert set(xcom) == XCOM_KEYS
    submitted_at, completed_at = (datetime.fromisoformat(xcom.pop(name)) for name in ("submitted_at", "completed_at"))
    assert submitted_at.utcoffset() == completed_at.utcoffset()
    assert submitted_at < completed_at
    assert xcom == {
        "uri": f"s3://{s3_bucket}/images/lighthouse.png",
        "bucket": s3_bucket,
        "key": "images/lighthouse.png",
        "etag": stored["ETag"].strip('"'),
        "version_id": None,
        "content_type": "image/png",
        "size_bytes": len(content),
        "width": 1344,
        "height": 768,
        "sha256": hashlib.sha256(content).hexdigest(),
        "request_id": charge.request_id,
        "model": "ideogram-2a-txt-2-img",
        "prompt": "a lighthouse",
        "magic_prompt_option": "AUTO",
        "resolution": "RESOLUTION_1344_768",
        "style_type": "DESIGN",
        "seed": charge.inputs["seed"],
        "inference_seconds": 0.15,
        "cost_usd": 0.05,
        "original_cost_usd": 0.05,
        "cost_is_estimate": False,
        "reused": False,
    }
    metadata = stored["Metadata"]
    assert metadata["ideogram-request-id"] == charge.request_id
    assert metadata["ideogram-model"] == "ideogram-2a-txt-2-img"
    assert metadata["ideogram-seed"] == str(charge.inputs["seed"])
    assert len(metadata["ideogram-fingerprint"]) == 64
    listed = s3.list_objects_v2(Bucket=s3_bucket)["Contents"]
    assert [item["Key"] for item in listed] == ["images/lighthouse.png"]


def test_sends_what_the_user_asked_for(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    inputs = {
        "prompt": "a lighthouse",
        "magic_prompt_option": "OFF",
        "resolution": "RESOLUTION_512_1536",
        "style_type": "ANIME",
        "seed": 7,
    }
    run = task_runner(generate(**inputs, model_params={"color_palette": "warm"}))

    run.to_end()

    [charge] = ideogram_emulator.requests()
    assert charge.inputs == {**inputs, "color_palette": "warm"}
    assert run.xcom()["seed"] == 7


def test_an_image_can_be_made_again_from_its_seed(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    first = task_runner(generate())
    first.to_end()
    again = task_runner(generate(task_id="again", seed=first.xcom()["seed"], s3_key="images/again.png"))

    again.to_end()

    assert again.xcom()["sha256"] == first.xcom()["sha256"]
    assert ideogram_emulator.stats().accepted == 2


def test_the_request_id_is_known_while_the_task_is_deferred(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    run = task_runner(generate())

    assert run.execute().state == "deferred"

    [charge] = ideogram_emulator.requests()
    assert run.xcoms["request_id"] == charge.request_id


@pytest.mark.parametrize("form", [form for form in RESULT_FORMS if form != "none"])
def test_takes_the_image_in_every_form(
    form: str,
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    ideogram_emulator.fault("job", "result_form", form=form)
    run = task_runner(generate(deferrable=False))

    result = run.to_end()

    assert result.state == "success", result.log_text
    content = s3.get_object(Bucket=s3_bucket, Key="images/lighthouse.png")["Body"].read()
    assert content == ideogram_emulator.image_bytes(run.xcom()["request_id"])


@pytest.mark.parametrize(("image_format", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_a_prefix_gets_the_request_s_name_and_the_type_of_the_bytes(
    image_format: str,
    extension: str,
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    ideogram_emulator.configure(image_format=image_format)
    ideogram_emulator.fault("image", "content_type", content_type="text/plain")
    run = task_runner(generate(s3_key=f"s3://{s3_bucket}/images/", s3_bucket=None))

    result = run.to_end()

    assert result.state == "success", result.log_text
    xcom = run.xcom()
    assert xcom["uri"] == f"s3://{s3_bucket}/images/{xcom['request_id']}.{extension}"
    assert xcom["content_type"] == f"image/{image_format}"
    assert s3.head_object(Bucket=s3_bucket, Key=xcom["key"])["ContentType"] == f"image/{image_format}"


def test_the_user_s_upload_arguments_are_kept(
    generate: Generate, task_runner: TaskRunner, s3: S3Client, s3_bucket: str
) -> None:
    extra = {"ServerSideEncryption": "AES256", "Metadata": {"album": "{{ ds }}"}, "CacheControl": "max-age=60"}

    assert task_runner(generate(s3_extra_args=extra)).to_end().state == "success"

    stored = s3.head_object(Bucket=s3_bucket, Key="images/lighthouse.png")
    assert stored["ServerSideEncryption"] == "AES256"
    assert stored["CacheControl"] == "max-age=60"
    assert stored["Metadata"]["album"] == "2026-01-02"
    assert "ideogram-fingerprint" in stored["Metadata"]


def test_versions_are_told_apart(generate: Generate, task_runner: TaskRunner, s3: S3Client, s3_bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    run = task_runner(generate())

    run.to_end()

    assert run.xcom()["version_id"] == s3.head_object(Bucket=s3_bucket, Key="images/lighthouse.png")["VersionId"]


def test_the_request_the_target_and_the_connections_are_templates(
    monkeypatch: pytest.MonkeyPatch,
    generate: Generate,
    task_runner: TaskRunner,
    ideogram_emulator: RunningEmulator,
    s3: S3Client,
    s3_bucket: str,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_IDEOGRAM_OTHER", ideogram_emulator.connection)
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
        "bucket": s3_bucket,
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

    assert result.state == "success", result.log_text
    [charge] = ideogram_emulator.requests()
    assert charge.inputs == {
        "prompt": "a lighthouse on 2026-01-02",
        "magic_prompt_option": "OFF",
        "resolution": "RESOLUTION_1024_768",
        "style_type": "ANIME",
        "seed": 11,
        "note": "2026-01-02",
    }
    assert run.xcom()["uri"] == f"s3://{s3_bucket}/20260102/generate.png"
    assert run.rendered_fields["prompt"] == "a lighthouse on 2026-01-02"


@pytest.mark.parametrize("deferrable", [True, False])
def test_does_not_wait_where_it_was_told_not_to(
    deferrable: bool, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
) -> None:
    run = task_runner(generate(wait_for_completion=False, deferrable=deferrable))

    assert run.execute().state == "success"

    [charge] = ideogram_emulator.requests()
    xcom = run.xcom()
    assert xcom["request_id"] == charge.request_id == run.xcom("request_id")
    assert datetime.fromisoformat(xcom["submitted_at"]).utcoffset() is not None
    assert {name: xcom[name] for name in charge.inputs} == charge.inputs
    assert ideogram_emulator.stats().calls == {"submit": 1}


class TestIfExists:
    """What becomes of an object that is at the target already."""

    def test_reuse_pays_nothing_for_the_same_inputs(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        first = task_runner(generate())
        first.to_end()
        second = task_runner(generate(), run_id="another_run")

        assert second.execute().state == "success"

        assert ideogram_emulator.stats().accepted == 1
        assert second.xcom() == {**first.xcom(), "reused": True, "cost_usd": 0.0}

    def test_reuse_replaces_what_was_made_from_other_inputs(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        task_runner(generate()).to_end()
        other = task_runner(generate(prompt="a harbour"))

        assert other.to_end().state == "success"

        assert ideogram_emulator.stats().accepted == 2
        assert other.xcom()["reused"] is False

    def test_reuse_replaces_what_somebody_else_put_there(
        self,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        s3.put_object(Bucket=s3_bucket, Key="images/lighthouse.png", Body=b"not ours")
        run = task_runner(generate())

        assert run.to_end().state == "success"

        content = s3.get_object(Bucket=s3_bucket, Key="images/lighthouse.png")["Body"].read()
        assert content == ideogram_emulator.image_bytes(run.xcom()["request_id"])

    def test_overwrite_makes_it_again(
        self, generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator
    ) -> None:
        task_runner(generate(if_exists="overwrite"), run_id="first").to_end()
        again = task_runner(generate(if_exists="overwrite"), run_id="again")

        assert again.to_end().state == "success"

        assert ideogram_emulator.stats().accepted == 2
        assert again.xcom()["reused"] is False

    def test_fail_fails_before_paying_and_without_retry(
        self,
        generate: Generate,
        task_runner: TaskRunner,
        ideogram_emulator: RunningEmulator,
        s3: S3Client,
        s3_bucket: str,
    ) -> None:
        s3.put_object(Bucket=s3_bucket, Key="images/lighthouse.png", Body=b"not ours")

        result = task_runner(generate(if_exists="fail", retries=3)).execute()

        assert result.state == "failed"
        assert f"s3://{s3_bucket}/images/lighthouse.png exists" in str(result.error)
        assert "Nothing was charged" in str(result.error)
        assert ideogram_emulator.stats().calls == {}


def test_the_next_task_reads_the_image(generate: Generate, task_runner: TaskRunner) -> None:
    with DAG("lighthouses", schedule=None):
        image = generate()
        read = ReadImage(task_id="read", uri="{{ ti.xcom_pull(task_ids='generate')['uri'] }}", record=image.output)
    task_runner(image).to_end()
    run = task_runner(read)

    assert run.execute().state == "success"

    assert run.xcom()["sha256"] == run.xcom()["expected"]


def test_expand_makes_an_image_for_each_prompt(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, s3_bucket: str
) -> None:
    prompts = ["a lighthouse", "a harbour", "a gull"]
    with DAG("lighthouses", schedule=None):
        mapped = IdeogramGenerateImageOperator.partial(
            task_id="generate", s3_bucket=s3_bucket, s3_key="night/{{ ds }}/{{ ti.map_index }}.png"
        ).expand(prompt=prompts)
    runs = [task_runner(mapped, map_index=index) for index in range(len(prompts))]
    for run in runs:
        assert run.execute().state == "deferred"

    for run in runs:
        assert run.resume(run.fire()).state == "success"

    assert [run.xcom()["prompt"] for run in runs] == prompts
    assert [run.xcom()["key"] for run in runs] == [f"night/2026-01-02/{index}.png" for index in range(3)]
    assert ideogram_emulator.stats().accepted == 3


TEMPLATE = "{{ var.value.secret }} {% raw %} {{ 1 / 0 }}"


class ReadPrompts(BaseOperator):
    """Stands for a task that reads what somebody else wrote."""

    def execute(self, context: Any) -> list[str]:
        return [TEMPLATE]


def test_template_that_comes_from_another_task_is_not_rendered(
    generate: Generate, task_runner: TaskRunner, ideogram_emulator: RunningEmulator, s3_bucket: str
) -> None:
    """Neither mapped by expand() nor in a template: what Airflow does with expand_kwargs() is in docs/security.md."""
    with DAG("lighthouses", schedule=None):
        read = ReadPrompts(task_id="read")
        mapped = IdeogramGenerateImageOperator.partial(
            task_id="mapped", s3_bucket=s3_bucket, s3_key="{{ ti.map_index }}.png"
        ).expand(prompt=read.output)
        single = generate(task_id="single", prompt="{{ ti.xcom_pull(task_ids='read')[0] }}")
    assert task_runner(read).execute().state == "success"

    for run in (task_runner(mapped, map_index=0), task_runner(single)):
        result = run.to_end()
        assert result.state == "success", result.error
        assert run.xcom()["prompt"] == TEMPLATE

    assert [charge.inputs["prompt"] for charge in ideogram_emulator.requests()] == [TEMPLATE] * 2
