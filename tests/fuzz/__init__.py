"""Long runs of the properties in :mod:`tests.support.hostile`, guided by the code that they reach: `make fuzz`."""
