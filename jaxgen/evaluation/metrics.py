"""The known metrics: what they are called, their units, and which way is better."""

from jaxgen.evaluation.scores import NEIGHBOURS

METRICS: dict[str, str] = {
    "nll": "negative log-likelihood (nats per image)",
    "elbo": "ELBO (nats per image)",
    "reconstruction": "reconstruction, -log p(x | z) (nats per image)",
    "kl": "KL(q(z | x) || p(z)) (nats per image)",
    "d_real": "D(x): held to be real, of real images (probability)",
    "d_fake": "D(G(z)): held to be real, of generated images (probability)",
    "frechet": "Fréchet distance (squared, in feature space)",
    "kernel": "kernel distance (squared MMD)",
    "precision": f"precision (share of samples, k = {NEIGHBOURS})",
    "recall": f"recall (share of real images, k = {NEIGHBOURS})",
    "coverage": f"coverage (share of real images, k = {NEIGHBOURS})",
    "histogram_kl": "KL of the class histograms (nats)",
    "classes_present": "classes present",
}
"""What the known metrics are, with their units; others go by their names."""

HIGHER = {"precision", "recall", "coverage", "classes_present"}
"""The sample scores of which more is better."""
