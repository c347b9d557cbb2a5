"""The hook: it reads an Airflow connection, calls the API and downloads images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

__all__ = ["IdeogramHook"]


def __getattr__(name: str) -> Any:
    """Import the hook on first use: the provider's metadata needs the connection form, but no HTTP library."""
    if name == "IdeogramHook":
        from airflow_provider_ideogram.hooks.ideogram import IdeogramHook

        return IdeogramHook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
