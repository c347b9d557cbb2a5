"""
The S3 client of an AWS connection.

Invariant: it is made from the same session, endpoint and configuration as ``S3Hook.get_conn()`` would use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.config import Config

from airflow_provider_ideogram import __version__

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def make_client(hook: S3Hook) -> Any:
    """
    Return boto3's S3 client of a hook's connection.

    ``S3Hook.get_conn()`` names the calling operator to AWS, for which it reads the source file of each frame on the
    stack. In a task this takes more CPU than all else about the client.
    """
    config: Any = hook.config
    agent = f"{config.user_agent_extra or ''} airflow-provider-ideogram/{__version__}".strip()
    return hook.get_session(region_name=hook.region_name).client(
        "s3",
        endpoint_url=hook.conn_config.get_service_endpoint_url("s3"),
        config=config.merge(Config(user_agent_extra=agent)),
        verify=hook.verify,
    )


def is_aws(client: Any) -> bool:
    """Return whether a client's store is AWS's, not one that imitates it."""
    return (urlsplit(client.meta.endpoint_url).hostname or "").endswith(_AWS)
