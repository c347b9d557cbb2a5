from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_ideogram.storage.async_store import open_objects
from airflow_provider_ideogram.storage.image_store import ImageStore


async def test_airflows_messages_of_the_thread_are_sent_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow masks the connection's secrets by an asynchronous message, from a synchronous call of the hook."""
    used: list[object] = []

    async def send() -> None:
        used.append(asyncio.get_running_loop())

    monkeypatch.setattr(ImageStore, "objects", property(lambda _: async_to_sync(send)()))
    await open_objects(None)
    assert used == [asyncio.get_running_loop()]
