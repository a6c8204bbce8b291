"""Likelihoods of counts."""

import keras
from keras import ops

from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.distributions.blocks import halves, parts

__all__ = ["NegativeBinomialNLL"]

_LOGS = ("log-means", "log-sizes")


@keras.saving.register_keras_serializable("combined_losses")
class NegativeBinomialNLL(Loss):
    """How unlikely a count is under a negative binomial, whose variance may exceed its mean.

    `[m | a] = y_pred` are the logarithms of the mean mu and of the size r; the variance is
    `mu + mu^2 / r`. Use it for counts (visits, defects, reads of a gene) that scatter more than
    Keras's `"poisson"` allows: there the variance is the mean, and intervals come out too narrow.

    `-log P(y) = log G(y) - log G(r, y) + r log(1 + mu / r) + y log(1 + r / mu)`, with `G(r, y) =
    gamma(r + y) / gamma(r)` and `G(y) = gamma(1 + y)`.

    Args:
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the log-means and then the log-sizes; `y_true` counts
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`, of at least 0 for
    whole counts: the mean over D, in nats. Nothing is left out.

    A count below 0 makes its value NaN. Other numbers than whole ones are allowed.

    Raises:
        ValueError: if the last axis of `y_pred` is odd, or `y_true` has another shape.

    Example: no event, where one is expected; with r = 1 that has the probability 1/2.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.NegativeBinomialNLL()
    >>> round(float(loss(np.array([0]), np.array([[0.0, 0.0]]))), 4)  # log 2
    0.6931

    Limits: a -> inf is the Poisson likelihood. Log-sizes count as at least -40 and at most 20. No
    log-gamma is computed: the difference of two of them has no digit left for a large r.

    Reference: Hilbe, Negative Binomial Regression, 2011.
    """

    same_shape = False
    prediction_layout = "blocks"
    target_kind = "amounts"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        count, m, a = parts("NegativeBinomialNLL", y_true, y_pred, _LOGS)
        count = ops.where(count < 0, float("nan"), count)
        a = ops.where(a > 20, 20.0, ops.where(a < -40, -40.0, a))
        r = ops.exp(a)
        of_count = count * _per_event(count, r, m, a)
        rest = _rest(ops.ones_like(r), count) - _rest(r, count)
        return ops.mean(of_count + rest + r * ops.softplus(m - a), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        m, a = halves("NegativeBinomialNLL", y_pred, _LOGS)
        return ops.concatenate([m - ops.log(ops.abs(scale)), a], axis=-1)


def _per_event(count: Tensor, r: Tensor, m: Tensor, a: Tensor) -> Tensor:
    """`log(9 + y) - log(8 + r + y) + log(1 + r / mu)`, each to all digits: it is multiplied by y.

    The first two are the terms in y of G(y) and G(r, y), the third is `softplus(a - m)`.
    """
    few = r < 9 + count
    small = ops.where(few, r, 1.0)
    near = ops.log1p((1 - small) / (8 + small + count)) + ops.softplus(a - m)
    # For a larger r the last two are about a and -a. Without a they are -m + log(1 + mu / r) and
    # -log(1 + (8 + y) / r). The difference log(9 + y) - m has more digits as the log of a ratio.
    moderate = ops.abs(m) < 60
    ratio = ops.log((9 + count) * ops.exp(ops.where(moderate, -m, 0.0)))
    start = ops.where(moderate, ratio, ops.log(9 + count) - m)
    far = start + ops.softplus(m - a) - ops.log1p((8 + count) / ops.where(few, 1.0, r))
    return ops.where(few, near, far)


def _rest(r: Tensor, count: Tensor) -> Tensor:
    """`log(gamma(r + y) / gamma(r)) - y log(x + y) + y`, where x = r + 8.

    With Stirling's series of `lgamma(x + y) - lgamma(x)`, less `log(1 + y / (r + k))` for k below
    8, which bring it back to r.
    """
    x = r + 8
    found = (x - 0.5) * ops.log1p(count / x) + _series(x + count) - _series(x)
    for k in range(8):
        found = found - ops.log1p(count / (r + k))
    return found


def _series(t: Tensor) -> Tensor:
    """`1 / (12 t) - 1 / (360 t^3) + 1 / (1260 t^5)`, without powers that would overflow."""
    inverse = 1 / t
    square = ops.square(inverse)
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))
