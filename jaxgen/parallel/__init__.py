"""Devices, compiling, and inference over a split."""
