"""Bounds, adversarial losses and penalties; per example."""
