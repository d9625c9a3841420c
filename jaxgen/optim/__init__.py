"""Optimizers, the arrays they update, and the update."""
