"""Likelihoods over levels, mixtures, and the normal distribution."""
