"""Cases of `combined_losses.losses.distributions`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import distributions


def certain(y_true):
    """The target as the mean, with a small variance."""
    return np.concatenate([y_true, np.full_like(y_true, -3.0)], axis=-1)


def two_certain(y_true):
    """Two components alike, with logits of 0."""
    logits, means = np.zeros_like(y_true[..., :1]), [y_true, y_true]
    variances = np.full_like(y_true, -3.0)
    return np.concatenate([logits, logits, *means, variances, variances], axis=-1)


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
        arguments={"free_bits": 0.4, "over": "batch"},
        refused={"free_bits": [-0.1, *NOT_A_NUMBER], "over": ["rows", None, True]},
        repeats=False,
        perfect=lambda y_true: np.zeros_like(certain(y_true)),
    ),
    Case(
        loss=cl.losses.EnsembleCRPS,
        oracle=distributions.ensemble_crps,
        y_true=normal(4, 3, 1, seed=19),
        y_pred=normal(4, 3, 5, seed=20),
        arguments={"fair": False},
        refused={"fair": [1, "yes", None]},
        perfect=lambda y_true: np.repeat(y_true, 5, axis=-1),
    ),
    Case(
        loss=cl.losses.EnergyScore,
        oracle=distributions.energy_score,
        y_true=normal(4, 3, 2, seed=21),
        y_pred=normal(4, 3, 5, 2, seed=22),
        arguments={"fair": False, "beta": 1.5},
        refused={"fair": [1, "yes", None], "beta": [0, 2, -1.0, *NOT_A_NUMBER]},
        perfect=lambda y_true: np.repeat(y_true[..., None, :], 5, axis=-2),
    ),
    Case(
        loss=cl.losses.LaplaceNLL,
        oracle=distributions.laplace_nll,
        y_true=normal(4, 3, 2, seed=9),
        y_pred=normal(4, 3, 4, seed=10),
        perfect=certain,
    ),
    Case(
        loss=cl.losses.StudentTNLL,
        oracle=distributions.student_t_nll,
        y_true=normal(4, 3, 2, seed=11),
        y_pred=normal(4, 3, 4, seed=12),
        arguments={"df": 1.5},
        refused={"df": [0, -1.0, *NOT_A_NUMBER]},
        perfect=certain,
    ),
    Case(
        loss=cl.losses.LogNormalNLL,
        oracle=distributions.log_normal_nll,
        y_true=np.exp(normal(4, 3, 2, seed=13)),
        y_pred=normal(4, 3, 4, seed=14),
        arguments={"epsilon": 0.8},
        refused={"epsilon": [0, -1.0, *NOT_A_NUMBER]},
        perfect=certain,
    ),
    Case(
        loss=cl.losses.NegativeBinomialNLL,
        oracle=distributions.negative_binomial_nll,
        y_true=np.random.default_rng(15).integers(0, 9, (4, 3, 2)).astype("float32"),
        y_pred=normal(4, 3, 4, seed=16),
        perfect=certain,
    ),
    Case(
        loss=cl.losses.MixtureNLL,
        oracle=distributions.mixture_nll,
        y_true=normal(4, 3, 2, seed=17),
        y_pred=normal(4, 3, 10, seed=18),
        required={"components": 2},
        refused={"components": [0, 1.5, *NOT_A_NUMBER]},
        perfect=two_certain,
    ),
]

VARIANTS = [
    Case(
        loss=cl.losses.GaussianKL,
        label="of rows",
        oracle=distributions.gaussian_kl,
        y_true=normal(4, 3, 2, seed=7),
        y_pred=normal(4, 3, 4, seed=8),
        arguments={"free_bits": 0.3},
        perfect=lambda y_true: np.zeros_like(certain(y_true)),
    ),
]
