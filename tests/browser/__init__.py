"""
The gallery and the connection form in a real Chromium, against a running Airflow.

Invariant: one Airflow and one browser serve all tests; they are only there where Chromium is installed.
"""
