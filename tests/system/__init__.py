"""
The system tests: hundreds of images on real Airflow components, with everything that can go wrong going wrong.

`__main__` kills task processes at named points, on one machine's Airflow; `distributed` loses machines and servers.

Invariant: what is done to the system is decided by a seed, and what is true afterwards is read from three books
that the provider does not keep: the emulator's charges, S3's objects, Airflow's XComs.
"""
