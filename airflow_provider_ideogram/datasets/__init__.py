"""A dataset of prompts as one task: reading it, its plan, its slices on a worker, and its manifest."""

from __future__ import annotations
