"""Data sets to batches as a function of (seed, example number)."""
