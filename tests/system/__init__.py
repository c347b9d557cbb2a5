"""
The system test: hundreds of images on real Airflow components, with everything that can go wrong going wrong.

Invariant: what is done to the system is decided by a seed, and what is true afterwards is read from three books
that the provider does not keep: the emulator's charges, S3's objects, Airflow's XComs.
"""
