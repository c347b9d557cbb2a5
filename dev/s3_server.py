"""A local S3 server (moto's) on a socket, which forgets everything when it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from dev.processes import Processes, free_port, listens

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READY_SECONDS = 60.0
REGION = "us-east-1"
# Moto takes any credentials; boto3 and Airflow insist on having some.
CREDENTIAL = "local"


@dataclass(frozen=True)
class S3Server:
    """The address of a local S3 server and the ways to reach it."""

    endpoint: str

    def client(self) -> S3Client:
        """Return a boto3 client of this server."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIAL,
            aws_secret_access_key=CREDENTIAL,
        )

    def airflow_connection(self) -> str:
        """Return the JSON of an Airflow connection to this server, for `AIRFLOW_CONN_AWS_DEFAULT`."""
        return json.dumps(
            {
                "conn_type": "aws",
                "login": CREDENTIAL,
                "password": CREDENTIAL,
                "extra": {"endpoint_url": self.endpoint, "region_name": REGION},
            }
        )


def start_s3_server(processes: Processes, environment: Mapping[str, str], bucket: str) -> S3Server:
    """
    Start the server as a process of its own and create one bucket in it.

    :raises ProcessFailed: it does not come up.
    """
    port = free_port()
    process = processes.start(
        "s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], environment
    )
    processes.wait_until(process, lambda: listens(port), READY_SECONDS)
    server = S3Server(f"http://127.0.0.1:{port}")
    server.client().create_bucket(Bucket=bucket)
    return server
