"""The hook: an Airflow connection, and HTTP to the API it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

__all__ = ["IdeogramHook"]


def __getattr__(name: str) -> Any:
    """Import the hook when it is asked for: the connection's description is read without HTTP."""
    if name == "IdeogramHook":
        from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

        return IdeogramHook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
