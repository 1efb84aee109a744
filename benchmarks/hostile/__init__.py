"""Random hostile problems: what ends far from the minimum, and whether it says so."""

from benchmarks.hostile.main import main

__all__ = ["main"]
