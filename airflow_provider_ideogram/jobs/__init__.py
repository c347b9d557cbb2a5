"""The life of one paid job: its identity, its record in the ledger, its submission and its completion."""

from __future__ import annotations
