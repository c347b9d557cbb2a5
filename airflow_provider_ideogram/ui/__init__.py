"""The gallery: pages in Airflow's UI with the images that tasks made."""

from __future__ import annotations

#: Where the API server mounts the application.
URL_PREFIX = "/ideogram"
