"""A local S3 server (moto) that keeps its objects in memory."""

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
# Moto accepts any credentials; boto3 and Airflow require some.
CREDENTIAL = "local"


@dataclass(frozen=True)
class S3Server:
    """The address of a local S3 server, and the clients for it."""

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
    Start the server as a separate process and create one bucket in it.

    :raises ProcessFailed: it did not become ready.
    """
    port = free_port()
    process = processes.start(
        "s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], environment
    )
    processes.wait_until(process, lambda: listens(port), READY_SECONDS)
    server = S3Server(f"http://127.0.0.1:{port}")
    server.client().create_bucket(Bucket=bucket)
    return server
