"""
The protocol of Segmind's text-to-image API.

Invariant: nothing in here imports Airflow or an HTTP client, opens a socket or reads a clock. What a
request must look like, what an answer means and when to ask again is decided here; hooks, triggers and
operators only carry it out.
"""

from __future__ import annotations
