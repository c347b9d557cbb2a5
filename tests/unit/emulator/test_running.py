from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

from airflow_provider_ideogram.emulator import cli
from airflow_provider_ideogram.emulator.account import Account
from airflow_provider_ideogram.emulator.running import RunningEmulator, run_emulator
from airflow_provider_ideogram.emulator.settings import EmulatorSettings


def test_connection_is_an_airflow_connection(ideogram_emulator: RunningEmulator, ideogram_connection: str) -> None:
    assert ideogram_connection == "ideogram_default"
    assert json.loads(os.environ["AIRFLOW_CONN_IDEOGRAM_DEFAULT"]) == {
        "conn_type": "ideogram",
        "host": ideogram_emulator.url,
        "password": ideogram_emulator.api_key,
        "extra": {"history_url": ideogram_emulator.history_url},
    }


def test_emulator_does_not_change_the_environment(ideogram_emulator: RunningEmulator) -> None:
    assert "AIRFLOW_CONN_IDEOGRAM_DEFAULT" not in os.environ


def test_stop_ends_thread_and_socket() -> None:
    with run_emulator() as emulator:
        assert httpx.get(f"{emulator.url}/_emulator/stats", trust_env=False).status_code == 200
        assert "ideogram-emulator" in {thread.name for thread in threading.enumerate()}
    assert "ideogram-emulator" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.url, trust_env=False)


def test_stop_aborts_a_waiting_call() -> None:
    responses: list[Exception] = []

    def generate(url: str) -> None:
        try:
            httpx.post(
                f"{url}/v1/ideogram-2a-txt-2-img",
                json={"prompt": "a lighthouse"},
                headers={"x-api-key": "emulator-key"},
                timeout=60,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            responses.append(error)

    with run_emulator(EmulatorSettings(job_seconds=1000)) as emulator:
        accepted = threading.Event()
        client = threading.Thread(target=generate, args=(emulator.url,))
        client.start()
        while not emulator.requests():
            accepted.wait(0.01)
    client.join(timeout=30)
    assert [type(response) for response in responses] == [httpx.RemoteProtocolError]


def test_stop_after_an_exception() -> None:
    def fail() -> None:
        with run_emulator():
            raise RuntimeError("the test")

    with pytest.raises(RuntimeError, match="the test"):
        fail()
    assert "ideogram-emulator" not in {thread.name for thread in threading.enumerate()}


def test_occupied_port(ideogram_emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    port = int(ideogram_emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address"), run_emulator(EmulatorSettings(port=port)):
        raise AssertionError("it must not run")
    assert cli.main(["--port", str(port)]) == 1
    assert "address" in capsys.readouterr().err


def test_concurrent_threads(ideogram_emulator: RunningEmulator) -> None:
    def work() -> None:
        headers = {"x-api-key": ideogram_emulator.api_key}
        with httpx.Client(base_url=ideogram_emulator.url, headers=headers, trust_env=False) as client:
            for number in range(25):
                client.post("/v2/ideogram-2a-txt-2-img", json={"prompt": f"number {number}"})
                ideogram_emulator.stats()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({request.request_id for request in ideogram_emulator.requests()}) == 100
    assert ideogram_emulator.stats().accepted == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command(number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        "from airflow_provider_ideogram.emulator.cli import main; raise SystemExit(main())",
    ]
    options = ["--port", "0", "--api-key", "one", "--api-key", "two", "--job-seconds", "0", "--queue-seconds", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            connection = json.loads(process.stdout.readline().partition("=")[2].strip().strip("'"))
            assert connection["host"] == url
            assert connection["password"] == "one"
            response = httpx.post(
                f"{url}/v1/ideogram-2a-txt-2-img",
                json={"prompt": "a lighthouse"},
                headers={"x-api-key": "two"},
                trust_env=False,
            )
            assert response.headers["content-type"] == "image/png"
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


def test_command_in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[EmulatorSettings] = []

    async def serve(account: Account) -> None:
        served.append(account.settings)

    monkeypatch.setattr(cli, "_serve", serve)
    assert cli.main(["--rate-limit", "5", "--credits", "2", "--jitter", "0.1", "--image-format", "webp"]) == 0
    assert served == [
        EmulatorSettings(port=8700, rate_limit=5, credits=2.0, jitter=0.1, image_format="webp"),
    ]
    assert cli.main(["--api-key", "X"]) == cli.main(["--api-key", "X", "--api-key", "Y"]) == 0
    assert [settings.keys for settings in served[1:]] == [("X",), ("X", "Y")]
    with pytest.raises(SystemExit):
        cli.main(["--jitter", "2"])
    assert "jitter" in capsys.readouterr().err


def test_misspelt_setting_gets_a_suggestion(ideogram_emulator: RunningEmulator) -> None:
    with pytest.raises(ValueError, match=r"'job_second' is no setting. Did you mean 'job_seconds'\?"):
        ideogram_emulator.configure(job_second=1)
    misspelt: Any = {"job_second": 1}
    with pytest.raises(ValueError, match=r"'job_second' is no setting. Did you mean 'job_seconds'\?"):
        EmulatorSettings(**misspelt)
    with pytest.raises(ValueError, match=r"'staus' is no option of a fault. Did you mean 'status'\?"):
        ideogram_emulator.fault("submit", "error", staus=503)
    with pytest.raises(ValueError, match="cannot be changed while the emulator runs: port"):
        ideogram_emulator.configure(port=1)
