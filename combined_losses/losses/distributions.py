"""Distributions: a target against a predicted Gaussian. Values of shape `y_pred.shape[:-1]`.

A prediction `(batch, ..., 2 D)` holds the D means, then the D log-variances: the model ends in a
layer `Dense(2 * D)` without an activation.
"""

import math
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number, check_target_shape
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import em1x, linexp

__all__ = ["BetaNLL", "GaussianCRPS", "GaussianKL", "GaussianNLL"]


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
        return ops.mean(_nll(*_error("GaussianNLL", y_true, y_pred)), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("GaussianNLL", y_pred, scale)


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
        error, log_variance = _error("BetaNLL", y_true, y_pred)
        weight = ops.stop_gradient(linexp(self.beta * log_variance))
        return ops.mean(weight * _nll(error, log_variance), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("BetaNLL", y_pred, scale)


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
        error, log_variance = _error("GaussianCRPS", y_true, y_pred)
        sigma = linexp(ops.where(log_variance < -40, -40.0, log_variance) / 2)
        w = error / sigma
        # The paper's sigma * w * erf(...) would be 0 * inf for a narrow Gaussian. We write `error`
        # for sigma * w, which is equal to it.
        density = ops.exp(-0.5 * ops.square(w)) / math.sqrt(2 * math.pi)
        spread = sigma * (2 * density - 1 / math.sqrt(math.pi))
        return ops.mean(error * ops.erf(w / math.sqrt(2)) + spread, axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("GaussianCRPS", y_pred, scale)


@keras.saving.register_keras_serializable("combined_losses")
class GaussianKL(Loss):
    """The KL divergence from the standard Gaussian: `sum(0.5 * (m^2 + exp(s) - 1 - s))`.

    The divergence of N(m, exp(s)) from N(0, 1), with `[m | s] = y_pred`: the regulariser of a
    variational autoencoder, on the output of its encoder. It reads no target: `y_true` is ignored,
    and may be None.

    Args:
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true` any.
    Values `y_pred.shape[:-1]`: the sum over D.

    Raises:
        ValueError: if the last axis of `y_pred` is odd.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.GaussianKL(reduction="none")
    >>> [float(v) for v in loss(None, np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]))]
    [0.0, 5.0]

    Limits: at the prior, m = s = 0, value and gradient are 0. The loss is linear in s below -20 and
    above 20, so it is finite for every s. It is a sum over D: beside a reconstruction loss that is
    a mean, the balance of the two depends on D.

    Reference: Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv 1312.6114.
    """

    same_shape = False
    has_channels = True
    neutral_target = 1.0
    needs_target = False

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        mean, log_variance = _halves("GaussianKL", y_pred)
        return ops.sum(0.5 * (ops.square(mean) + em1x(log_variance)), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("GaussianKL", y_pred, scale)


def _in_units(owner: str, y_pred: Tensor, scale: Tensor) -> Tensor:
    """Predictions for targets divided by `scale`: `m / scale` and `s - 2 log |scale|`."""
    mean, log_variance = _halves(owner, y_pred)
    return ops.concatenate([mean / scale, log_variance - 2 * ops.log(ops.abs(scale))], axis=-1)


def _nll(error: Tensor, log_variance: Tensor) -> Tensor:
    """The negative log-likelihood of each element, without its constant."""
    return 0.5 * (log_variance + ops.square(error) * linexp(-log_variance))


def _error(owner: str, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """The errors of the means and the log-variances, each `(batch, ..., D)`."""
    mean, log_variance = _halves(owner, y_pred)
    *rows, size = tuple(mean.shape)
    allowed = [(*rows, size), tuple(rows)] if size == 1 else [(*rows, size)]
    check_target_shape(owner, y_true, y_pred, *allowed)
    return ops.reshape(y_true, ops.shape(mean)) - mean, log_variance


def _halves(owner: str, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """The means and the log-variances: the two halves of the last axis."""
    shape = tuple(y_pred.shape)
    if len(shape) < 2 or shape[-1] is None or shape[-1] % 2:
        raise ValueError(
            f"{owner} needs predictions of shape (batch, ..., 2 * D), the D means and then the D "
            "log-variances: for targets of D numbers end the model with keras.layers.Dense(2 * D). "
            f"Received: y_pred of shape {shape}"
        )
    size = shape[-1] // 2
    return y_pred[..., :size], y_pred[..., size:]
