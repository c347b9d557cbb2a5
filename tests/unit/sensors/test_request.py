from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput
from airflow_provider_ideogram.sensors import IdeogramRequestSensor


def _sensor(**arguments: Any) -> IdeogramRequestSensor:
    return IdeogramRequestSensor(
        **{"task_id": "wait", "request": "r-1", "s3_key": "s3://my-bucket/cat.png", **arguments}
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"request": "no/id"}, "request: 'no/id' is neither a request id"),
        ({"request": {"prompt": "a cat"}}, "is neither a request id nor the result of a task that submitted a request"),
        ({"request": None}, "request: None"),
        ({"s3_key": "cat.png"}, "s3_key: 'cat.png' names no bucket"),
        ({"s3_bucket": "my-bucket"}, "holds a bucket of its own"),
        ({"if_exists": "replace"}, "if_exists: 'replace' is not valid"),
        ({"on_content_blocked": "retry"}, "on_content_blocked: 'retry' is not valid"),
        ({"request": {"request_id": "r-1", "submitted_at": 5}}, "request, submitted_at: 5 is not a time"),
        ({"request": {"request_id": "r-1", "submitted_at": "noon"}}, "request, submitted_at: Invalid isoformat"),
        ({"request": {"request_id": "r-1", "ledger_uri": 5}}, "request, ledger_uri: must be text, not 5"),
        ({"timeout": 0}, "timeout: 0"),
        ({"timeout": "1"}, "timeout: '1' is not a number of seconds above 0"),
        ({"poke_interval": "1"}, "poke_interval: '1' is not a number of seconds above 0"),
        ({"poke_interval": -1}, "poke_interval: -1 is not a number of seconds above 0"),
        ({"s3_extra_args": {"Body": b""}}, "Body are decided by the provider"),
    ],
)
def test_mistake_shows_while_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(IdeogramInvalidInput) as caught:
        _sensor(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["request", "s3_key"])
def test_template_is_left_alone(name: str) -> None:
    assert getattr(_sensor(**{name: "{{ ti.xcom_pull('submit') }}"}), name) == "{{ ti.xcom_pull('submit') }}"


def test_one_interval_serves_both_ways_of_waiting() -> None:
    assert (_sensor(poke_interval=3).poke_interval, _sensor(poke_interval=3).poll_interval) == (3, 3)
    minute = _sensor(poke_interval=timedelta(minutes=1), timeout=timedelta(hours=1))
    assert (minute.poke_interval, minute.poll_interval, minute.timeout) == (60.0, 60.0, 3600.0)
    assert (_sensor().poke_interval, _sensor().poll_interval) == (12.4, None)
