"""Tractable densities, by the chain rule."""
