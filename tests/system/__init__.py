"""
The system tests: hundreds of images on real Airflow components, under faults of every kind.

`__main__` kills task processes at named points on a single machine's Airflow. `distributed` kills the machines and
servers of a distributed Airflow.

Invariant: a seed decides what is done to the system. The results are read from three sources: the emulator's requests
and charges, S3's objects, and Airflow's XComs.
"""
