"""
A deterministic simulation of the provider: its real decision code on a virtual clock, with an S3, a vendor and an
Airflow in memory, all driven by one seed.
"""
