"""
The gallery: a page in Airflow's UI with the images that a DAG run's tasks made.

Invariant: imports nothing but what every Airflow process has loaded; only the API server loads the application.
"""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

#: The plugin's part of the addresses in Airflow's UI, ``…/plugin/ideogram-images``.
UI_ROUTE = "ideogram-images"
#: Where the API server mounts the application.
URL_PREFIX = "/ideogram"


def has_gallery() -> bool:
    """Return whether this Airflow shows plugins' pages as tabs, which it does from 3.1 on."""
    return Version(Version(__version__).base_version) >= Version("3.1")
