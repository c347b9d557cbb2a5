"""Tools for people who work in this repository: real Airflow components, a local S3 server, the demonstration."""
