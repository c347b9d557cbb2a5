"""
Single images: found by the names in addresses, and their address in the S3 console.

Invariant: an image is named by task, map index and row, never by its key.
"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import HTTPException

from airflow_provider_ideogram.exceptions import IdeogramStorageError
from airflow_provider_ideogram.links.ideogram import s3_console
from airflow_provider_ideogram.storage.s3_client import is_aws
from airflow_provider_ideogram.ui.compare import place_of
from airflow_provider_ideogram.ui.objects import Reader, why_not_read
from airflow_provider_ideogram.ui.pages import read_item
from airflow_provider_ideogram.ui.records import Item
from airflow_provider_ideogram.ui.runs import Scope
from airflow_provider_ideogram.ui.work import LimitReached

#: The row in the address of the image of a task instance that makes a single one.
NO_ROW = "-"


def find_named(reader: Reader, dag_id: str, run_id: str, name: str) -> Item:
    """Return a selected image by its name in an address; raise HTTPException if there is none."""
    named = place_of(name)
    if named is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    task_id, place, row = named
    return find_item(reader, Scope(dag_id, run_id, task_id, place), row)


def find_item(reader: Reader, scope: Scope, row: str) -> Item:
    """Return the image of a task instance by its row; raise HTTPException if there is none."""
    try:
        item = read_item(reader, scope, None if row == NO_ROW else row)
    except (IdeogramStorageError, LimitReached) as error:
        raise HTTPException(HTTPStatus.BAD_GATEWAY, f"The manifest can't be read: {why_not_read(error)}.") from error
    if item is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return item


def console_address(reader: Reader, item: Item) -> str | None:
    """Return the image's address in the S3 console, None if there is no image, or its store is not AWS's."""
    if not item.has_image:
        return None
    try:
        client = reader.store().client
    except (IdeogramStorageError, LimitReached):
        return None
    return s3_console(item.facts["bucket"], item.facts["key"]) if is_aws(client) else None
