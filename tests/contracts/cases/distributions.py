"""Cases of `combined_losses.losses.distributions`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import distributions


def certain(y_true):
    """The target as the mean, with a small variance."""
    return np.concatenate([y_true, np.full_like(y_true, -3.0)], axis=-1)


CASES = [
    Case(
        loss=cl.losses.GaussianNLL,
        oracle=distributions.gaussian_nll,
        y_true=normal(4, 3, 2, seed=1),
        y_pred=normal(4, 3, 4, seed=2),
        perfect=certain,
    ),
    Case(
        loss=cl.losses.BetaNLL,
        oracle=distributions.beta_nll,
        y_true=normal(4, 3, 2, seed=3),
        y_pred=normal(4, 3, 4, seed=4),
        arguments={"beta": 0.8},
        refused={"beta": [-0.1, 1.1, *NOT_A_NUMBER]},
        perfect=certain,
    ),
    Case(
        loss=cl.losses.GaussianCRPS,
        oracle=distributions.gaussian_crps,
        y_true=normal(4, 3, 2, seed=5),
        y_pred=normal(4, 3, 4, seed=6),
        perfect=certain,
    ),
    Case(
        loss=cl.losses.GaussianKL,
        oracle=distributions.gaussian_kl,
        y_true=normal(4, 3, 2, seed=7),
        y_pred=normal(4, 3, 4, seed=8),
        perfect=lambda y_true: np.zeros_like(certain(y_true)),
    ),
]
