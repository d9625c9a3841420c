"""Likelihoods over levels, mixtures, and the normal distribution."""

from jaxgen.distributions.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
)
from jaxgen.distributions.mixtures import LogisticMixture, couple, num_coupled_params
from jaxgen.distributions.normal import (
    interpolate,
    kl_normal,
    kl_standard_normal,
    normal_like,
    normal_log_prob,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretizedLogistic",
    "Gaussian",
    "LIKELIHOODS",
    "Likelihood",
    "LogisticMixture",
    "couple",
    "interpolate",
    "kl_normal",
    "kl_standard_normal",
    "normal_like",
    "normal_log_prob",
    "num_coupled_params",
]
