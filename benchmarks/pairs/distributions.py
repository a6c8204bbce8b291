"""Distributions, beside torch.distributions and what users write out: 65536 rows of 4 targets.

Constants that ours leaves out change no gradient; the peers have them.
"""

import functools

import numpy as np
import torch
from torch import distributions

import combined_losses as cl
from pairs import Pair

ROWS, SIZE, PARTS, MEMBERS = 65536, 4, 5, 16
LEVELS = [k / 20 + 0.025 for k in range(20)]


def _normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def blocks(rng):
    return _normal(rng, ROWS, SIZE), _normal(rng, ROWS, 2 * SIZE)


def amounts(rng):
    y_true, y_pred = blocks(rng)
    return np.exp(y_true), y_pred


def counts(rng):
    return rng.poisson(4.0, (ROWS, SIZE)).astype("float32"), _normal(rng, ROWS, 2 * SIZE)


def mixture(rng):
    return _normal(rng, ROWS, SIZE), _normal(rng, ROWS, PARTS * (1 + 2 * SIZE))


def members(rng):
    return _normal(rng, ROWS, 1), _normal(rng, ROWS, MEMBERS)


def columns(rng):
    return _normal(rng, ROWS, 1), _normal(rng, ROWS, len(LEVELS))


def paths(rng):
    return _normal(rng, ROWS // 8, SIZE), _normal(rng, ROWS // 8, MEMBERS, SIZE)


def _of(law):
    """Minus the mean log-density of a law that two halves of the predictions give."""
    return lambda: lambda y_true, y_pred: -law(*y_pred.chunk(2, dim=-1)).log_prob(y_true).mean()


def _negative_binomial(m, a):
    return distributions.NegativeBinomial(total_count=a.exp(), logits=m - a, validate_args=False)


def of_mixture():
    def value(y_true, y_pred):
        logits, means, s = y_pred.split([PARTS, PARTS * SIZE, PARTS * SIZE], dim=-1)
        shape = (-1, PARTS, SIZE)
        parts = distributions.Normal(means.reshape(shape), (s / 2).exp().reshape(shape))
        found = distributions.MixtureSameFamily(
            distributions.Categorical(logits=logits), distributions.Independent(parts, 1)
        )
        return -found.log_prob(y_true).mean() / SIZE

    return value


def crps(y_true, y_pred):
    """What examples write out: all pairs of members."""
    pairs = (y_pred[:, :, None] - y_pred[:, None]).abs().sum((1, 2))
    return ((y_pred - y_true).abs().mean(1) - pairs / (2 * MEMBERS * (MEMBERS - 1))).mean()


def quantile_crps(y_true, y_pred):
    levels = torch.tensor(LEVELS)
    error = y_true - y_pred
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean()


def energy(y_true, y_pred):
    pairs = torch.cdist(y_pred, y_pred).sum((1, 2)) / (2 * MEMBERS * (MEMBERS - 1))
    return ((y_pred - y_true[:, None]).norm(dim=-1).mean(1) - pairs).mean()


def divergence(y_true, y_pred):
    mean, s = y_pred.chunk(2, dim=-1)
    each = 0.5 * (mean.square() + s.exp() - 1 - s)
    return each.clamp(min=0.25).sum(-1).mean()


PAIRS = {
    "LaplaceNLL": Pair(
        blocks, cl.losses.LaplaceNLL, _of(lambda m, s: distributions.Laplace(m, s.exp()))
    ),
    "StudentTNLL": Pair(
        blocks, cl.losses.StudentTNLL, _of(lambda m, s: distributions.StudentT(3.0, m, s.exp()))
    ),
    "LogNormalNLL": Pair(
        amounts,
        cl.losses.LogNormalNLL,
        _of(lambda m, s: distributions.LogNormal(m, (s / 2).exp())),
    ),
    "NegativeBinomialNLL": Pair(counts, cl.losses.NegativeBinomialNLL, _of(_negative_binomial)),
    "MixtureNLL": Pair(mixture, functools.partial(cl.losses.MixtureNLL, PARTS), of_mixture),
    "QuantileCRPS": Pair(
        columns, functools.partial(cl.losses.QuantileCRPS, LEVELS), lambda: quantile_crps
    ),
    "EnsembleCRPS": Pair(members, cl.losses.EnsembleCRPS, lambda: crps),
    "EnergyScore": Pair(paths, cl.losses.EnergyScore, lambda: energy),
    "GaussianKL": Pair(blocks, functools.partial(cl.losses.GaussianKL, 0.25), lambda: divergence),
}
