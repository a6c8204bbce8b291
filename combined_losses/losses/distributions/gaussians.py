"""A target against a predicted Gaussian: the D means, then the D log-variances."""

import math
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import linexp
from combined_losses.losses.distributions.blocks import in_units, parts

__all__ = ["BetaNLL", "GaussianCRPS", "GaussianNLL"]


@keras.saving.register_keras_serializable("combined_losses")
class GaussianNLL(Loss):
    """How unlikely a target is: `mean(0.5 * (s + (y_true - m)^2 * exp(-s)))`, `[m | s] = y_pred`.

    Use it to predict a mean m together with its uncertainty, the log-variance s. If training gets
    stuck with a poor mean and a large variance, take `BetaNLL`; if outliers dominate, or the loss
    must have the unit of the target, take `GaussianCRPS`.

    Args:
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if the last axis of `y_pred` is odd, or `y_true` has another shape.

    Example: at the mean, with a variance of 1 and then of e.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.GaussianNLL(reduction="none")
    >>> [float(v) for v in loss(np.array([3.0, 3.0]), np.array([[3.0, 0.0], [3.0, 1.0]]))]
    [0.0, 0.5]

    Limits: the constant `0.5 log(2 pi)`, 0.918939 for each dimension, is left out; add it to have
    `-log N(y_true; m, exp(s))`. The value may be negative, and is unbounded below where the error
    is 0. Below `s = -20` the exponential continues along its tangent: at s = -100 the value is
    large but finite, and the gradient widens the variance.

    References: Nix & Weigend, Estimating the mean and variance of the target probability
    distribution, 1994; the log-variance head as in Kendall & Gal, 2017, arXiv 1703.04977.
    """

    same_shape = False
    prediction_layout = "blocks"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, mean, log_variance = parts("GaussianNLL", y_true, y_pred)
        return ops.mean(_nll(target - mean, log_variance), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return in_units("GaussianNLL", y_pred, scale)


@keras.saving.register_keras_serializable("combined_losses")
class BetaNLL(Loss):
    """`GaussianNLL` of each element times its variance to the power `beta`, a constant factor.

    Use it where `GaussianNLL` neglects the samples that it predicts badly: their variance grows and
    shrinks the gradient of the mean. The factor restores that gradient.

    Args:
        beta: from 0, the plain likelihood, to 1, where the mean learns as it does with squared
            errors. Default 0.5.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if `beta` is not from 0 to 1, if the last axis of `y_pred` is odd, or `y_true`
            has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[1.0]]), np.array([[3.0, np.log(4.0)]])
    >>> round(float(cl.losses.BetaNLL(beta=1.0)(y_true, y_pred)), 3)
    4.773
    >>> round(4.0 * float(cl.losses.GaussianNLL()(y_true, y_pred)), 3)
    4.773

    Limits: beta = 0 is `GaussianNLL`; with beta = 1 the gradient by the means is that of half the
    mean squared error. Do not read the value as a likelihood: the factor has no gradient, so the
    value is not what training minimises. Watch `GaussianNLL` or `GaussianCRPS` instead.

    Reference: Seitzer et al., On the Pitfalls of Heteroscedastic Uncertainty Estimation with
    Probabilistic Neural Networks, ICLR 2022, arXiv 2203.09168.
    """

    same_shape = False
    prediction_layout = "blocks"

    def __init__(self, beta: float = 0.5, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("BetaNLL", "beta", beta, minimum=0, maximum=1)
        self.beta = beta

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, mean, log_variance = parts("BetaNLL", y_true, y_pred)
        error = target - mean
        weight = ops.stop_gradient(linexp(self.beta * log_variance))
        return ops.mean(weight * _nll(error, log_variance), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return in_units("BetaNLL", y_pred, scale)


@keras.saving.register_keras_serializable("combined_losses")
class GaussianCRPS(Loss):
    """The continuous ranked probability score of a Gaussian: the absolute error of a distribution.

    The integral over x of `(F(x) - 1[x >= y_true])^2`, F the predicted distribution function. With
    `sigma = exp(s / 2)` and `w = (y_true - m) / sigma` it is the mean of
    `(y_true - m) * erf(w / sqrt(2)) + sigma * (2 * phi(w) - 1 / sqrt(pi))`, phi the standard normal
    density. Use it instead of `GaussianNLL` where outliers must not dominate, or where you want a
    term in the unit of the target: it is never negative, and grows linearly with the error.

    Args:
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if the last axis of `y_pred` is odd, or `y_true` has another shape.

    Example: a narrow Gaussian costs its absolute error; one whose mean is the target costs 0.2337
    of its width.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.GaussianCRPS()
    >>> round(float(loss(np.array([[1.0]]), np.array([[3.0, -20.0]]))), 3)
    2.0
    >>> round(float(loss(np.array([[3.0]]), np.array([[3.0, 0.0]]))), 4)
    0.2337

    Limits: sigma -> 0 is the mean absolute error. A log-variance below -40 counts as -40; above
    s = 40 the exponential continues along its tangent.

    Reference: Gneiting & Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA
    2007.
    """

    same_shape = False
    prediction_layout = "blocks"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, mean, log_variance = parts("GaussianCRPS", y_true, y_pred)
        error = target - mean
        sigma = linexp(ops.where(log_variance < -40, -40.0, log_variance) / 2)
        w = error / sigma
        # The paper's sigma * w * erf(...) would be 0 * inf for a narrow Gaussian. We write `error`
        # for sigma * w, which is equal to it.
        density = ops.exp(-0.5 * ops.square(w)) / math.sqrt(2 * math.pi)
        spread = sigma * (2 * density - 1 / math.sqrt(math.pi))
        return ops.mean(error * ops.erf(w / math.sqrt(2)) + spread, axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return in_units("GaussianCRPS", y_pred, scale)


def _nll(error: Tensor, log_variance: Tensor) -> Tensor:
    """The negative log-likelihood of each element, without its constant."""
    return 0.5 * (log_variance + ops.square(error) * linexp(-log_variance))
