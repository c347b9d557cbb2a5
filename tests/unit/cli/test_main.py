"""The command ``ideogram`` on a local API and a local S3 server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_ideogram.cli import doctor
from airflow_provider_ideogram.cli.main import main
from tests.support.s3 import conditions_refused
from tests.unit.account.test_spend import write_day

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_provider_ideogram.emulator.running import RunningEmulator


@pytest.fixture(autouse=True)
def environment(s3: S3Client, ideogram_connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connections are in the environment; the command does not change the process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")


def checks(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Return the printed result and detail of each check."""
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return {row["check"].partition(",")[0]: (row["result"], row["detail"]) for row in rows}


class TestSpend:
    @pytest.mark.parametrize("slash", ["/", ""])
    def test_is_printed_as_json(
        self, slash: str, client: S3Client, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_day(client, bucket, "2026-11-25")
        capsys.readouterr()  # Airflow 2 prints the log of the S3 server in this process
        days = ["--from", "2026-11-01", "--to", "2026-11-30"]
        where = ["--conn-id", "team", "--account-url", f"s3://{bucket}/_ideogram{slash}"]

        assert main(["spend", *where, *days, "--by", "dag", "-o", "json"]) == 0

        rows = json.loads(capsys.readouterr().out)
        assert [(row["dag_id"], row["images"]) for row in rows] == [("cards", "1"), ("posters", "1")]

    def test_without_an_address_is_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["spend"]) == 1
        assert "give --account-url" in capsys.readouterr().err

    def test_what_is_no_address_is_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["spend", "--account-url", "images/_ideogram/"]) == 1
        assert "--account-url: 'images/_ideogram/' is not an address" in capsys.readouterr().err

    def test_bucket_that_is_missing_is_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["spend", "--account-url", "s3://missing-bucket/"]) == 1
        assert "NoSuchBucket" in capsys.readouterr().err


class TestDoctor:
    def test_finds_everything_right(
        self, client: S3Client, bucket: str, ideogram_emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with mock.patch("airflow.jobs.job.most_recent_job", return_value=mock.Mock(is_alive=lambda: True)):
            assert main(["doctor", "--bucket", bucket, "-o", "json"]) == 0

        assert {result for result, _ in checks(capsys).values()} == {"ok"}
        assert client.list_objects_v2(Bucket=bucket).get("Contents", []) == []
        assert ideogram_emulator.stats().accepted == 0

    def test_names_what_fails(
        self, ideogram_emulator: RunningEmulator, client: S3Client, bucket: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ideogram_emulator.configure(keys=["another-key"])
        with mock.patch("airflow.jobs.job.most_recent_job", return_value=None):
            assert main(["doctor", "--bucket", "missing-bucket", "-o", "json"]) == 1

        found = checks(capsys)
        assert "rejected the key" in found["API"][1]
        assert "missing-bucket" in found["s3:PutObject"][1]
        assert found["triggerer"] == ("failed", "no triggerer is running")
        assert {found[name][0] for name in ("s3:PutObject", "s3:GetObject", "s3:ListBucket")} == {"failed"}

    def test_database_that_cannot_be_read_is_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        with mock.patch("airflow.jobs.job.most_recent_job", side_effect=RuntimeError):
            assert main(["doctor", "-o", "json"]) == 0
        assert checks(capsys)["triggerer"][0] == "unknown"


@pytest.mark.parametrize(("seconds", "result"), [(59, "ok"), (-61, "failed"), (61, "failed")])
def test_clock_is_compared_with_s3(seconds: int, result: str) -> None:
    response = {"ResponseMetadata": {"HTTPHeaders": {"date": "Thu, 26 Nov 2026 04:00:00 GMT"}}}
    assert doctor._clock(1_795_665_600.0 + seconds, response).result == result


def test_store_without_conditions_is_named(client: S3Client, bucket: str) -> None:
    with (
        conditions_refused(client),
        mock.patch("airflow_provider_ideogram.storage.image_store.make_client", return_value=client),
    ):
        found = {each.name.partition(",")[0]: each for each in doctor._s3("aws_default", bucket, "_ideogram/")}
    assert found["conditional writes"].has_failed
    assert "may both pay" in found["conditional writes"].detail
