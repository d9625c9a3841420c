"""Lower bounds, by latent variables."""
