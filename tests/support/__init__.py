"""Shared helpers of the tests: Airflow's task runners, the world of a task, S3 stores with faults, hostile data."""
