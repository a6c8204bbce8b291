"""Distributions: a target against a predicted distribution. The loss is low where it expects it.

`gaussians.py`, `likelihoods.py` and `counts.py` have two numbers for each target (`blocks.py`);
`mixtures.py` has several Gaussians, `ensembles.py` has members in place of a formula. All count
single targets, also where a row of them is scored together (`rows.py`): a missing one is left out.
`divergences.py` compares a prediction with a fixed distribution.
"""

from combined_losses.losses.distributions.counts import NegativeBinomialNLL
from combined_losses.losses.distributions.divergences import GaussianKL
from combined_losses.losses.distributions.ensembles import EnergyScore, EnsembleCRPS
from combined_losses.losses.distributions.gaussians import BetaNLL, GaussianCRPS, GaussianNLL
from combined_losses.losses.distributions.likelihoods import LaplaceNLL, LogNormalNLL, StudentTNLL
from combined_losses.losses.distributions.mixtures import MixtureNLL

__all__ = [
    "BetaNLL",
    "EnergyScore",
    "EnsembleCRPS",
    "GaussianCRPS",
    "GaussianKL",
    "GaussianNLL",
    "LaplaceNLL",
    "LogNormalNLL",
    "MixtureNLL",
    "NegativeBinomialNLL",
    "StudentTNLL",
]
