from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from airflow_provider_ideogram.emulator import cli
from airflow_provider_ideogram.emulator.running import run_emulator
from airflow_provider_ideogram.emulator.settings import EmulatorSettings


def test_the_connection_is_one_for_airflow(ideogram_emulator, ideogram_connection):
    assert ideogram_connection == "ideogram_default"
    assert json.loads(os.environ["AIRFLOW_CONN_IDEOGRAM_DEFAULT"]) == {
        "conn_type": "ideogram",
        "host": ideogram_emulator.url,
        "password": ideogram_emulator.api_key,
        "extra": {"history_url": ideogram_emulator.history_url},
    }


def test_the_emulator_alone_sets_nothing(ideogram_emulator):
    assert "AIRFLOW_CONN_IDEOGRAM_DEFAULT" not in os.environ


def test_it_ends_with_its_thread_and_its_socket():
    with run_emulator() as emulator:
        assert httpx.get(f"{emulator.url}/_emulator/stats", trust_env=False).status_code == 200
        assert "ideogram-emulator" in {thread.name for thread in threading.enumerate()}
    assert "ideogram-emulator" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.url, trust_env=False)


def test_it_ends_though_a_call_is_waiting():
    answers: list[Exception] = []

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
            answers.append(error)

    with run_emulator(EmulatorSettings(job_seconds=1000)) as emulator:
        accepted = threading.Event()
        client = threading.Thread(target=generate, args=(emulator.url,))
        client.start()
        while not emulator.charges():
            accepted.wait(0.01)
    client.join(timeout=30)
    assert [type(answer) for answer in answers] == [httpx.RemoteProtocolError]


def test_it_ends_though_the_test_fails():
    def fail() -> None:
        with run_emulator():
            raise RuntimeError("the test")

    with pytest.raises(RuntimeError, match="the test"):
        fail()
    assert "ideogram-emulator" not in {thread.name for thread in threading.enumerate()}


def test_a_port_that_is_taken(ideogram_emulator, capsys):
    port = int(ideogram_emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address"), run_emulator(EmulatorSettings(port=port)):
        raise AssertionError("it must not run")
    assert cli.main(["--port", str(port)]) == 1
    assert "address" in capsys.readouterr().err


def test_many_threads_at_once(ideogram_emulator):
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
    charges = ideogram_emulator.charges()
    assert len({charge.request_id for charge in charges}) == 100
    assert ideogram_emulator.stats().charges == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command(number):
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        "from airflow_provider_ideogram.emulator.cli import main; raise SystemExit(main())",
    ]
    options = ["--port", "0", "--key", "one", "--key", "two", "--job-seconds", "0", "--queue-seconds", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            connection = json.loads(process.stdout.readline().partition("=")[2].strip().strip("'"))
            assert connection["host"] == url
            assert connection["password"] == "one"
            answer = httpx.post(
                f"{url}/v1/ideogram-2a-txt-2-img",
                json={"prompt": "a lighthouse"},
                headers={"x-api-key": "two"},
                trust_env=False,
            )
            assert answer.headers["content-type"] == "image/png"
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


def test_command_in_this_process(monkeypatch, capsys):
    served: list[EmulatorSettings] = []

    async def serve(account):
        served.append(account.settings)

    monkeypatch.setattr(cli, "_serve", serve)
    assert cli.main(["--rate-limit", "5", "--credits", "2", "--jitter", "0.1", "--image-format", "webp"]) == 0
    assert served == [
        EmulatorSettings(port=8700, rate_limit=5, credits=2.0, jitter=0.1, image_format="webp"),
    ]
    assert cli.main(["--key", "X"]) == cli.main(["--key", "X", "--key", "Y"]) == 0
    assert [settings.keys for settings in served[1:]] == [("X",), ("X", "Y")]
    with pytest.raises(SystemExit):
        cli.main(["--jitter", "2"])
    assert "jitter" in capsys.readouterr().err
