"""Layers of any family."""
