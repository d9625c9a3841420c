"""The loop: train, look, save, resume."""
