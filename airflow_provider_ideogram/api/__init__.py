"""
The protocol of Segmind's text-to-image API.

Invariant: no module of this package imports Airflow or an HTTP client, opens a socket or reads a clock. It decides what
a request contains, what a response means and when to ask again; hooks, triggers and operators carry it out.
"""

from __future__ import annotations
