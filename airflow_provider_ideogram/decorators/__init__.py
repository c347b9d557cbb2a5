"""The decorator ``@task.ideogram``."""

from __future__ import annotations
