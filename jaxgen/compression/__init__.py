"""Lossless compression by a model's density."""
