"""
The S3 layer of a trigger.

Invariant: the connection is read on the loop, since reading it in a thread blocks the triggerer's supervisor channel;
boto3 works in threads. The client is made in a thread of asgiref: Airflow sends what it masks in the connection's extra
to the supervisor, which from any other thread mixes up the channel before Airflow 3.3, so that the triggerer dies.
"""

from __future__ import annotations

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import sync_to_async

from airflow_provider_ideogram.storage.image_store import ImageStore
from airflow_provider_ideogram.storage.objects import ObjectStore


async def open_objects(aws_conn_id: str | None) -> ObjectStore:
    """Return the S3 layer on an AWS connection; a connection that does not exist means boto3's own credentials."""
    store = ImageStore(aws_conn_id)
    if aws_conn_id is not None:
        try:
            store.use_connection(await get_async_connection(aws_conn_id))
        except AirflowNotFoundException:
            store = ImageStore(None)
    return await sync_to_async(lambda: store.objects, thread_sensitive=False)()
