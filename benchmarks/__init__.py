"""How fast skfc is beside its peers: `python -m benchmarks --help`, docs/benchmarks.md."""
