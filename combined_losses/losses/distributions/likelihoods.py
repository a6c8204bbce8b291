"""Likelihoods with other tails than the Gaussian: heavier ones, and amounts above 0."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import linexp, magnitude
from combined_losses.losses.distributions.blocks import halves, parts

__all__ = ["LaplaceNLL", "LogNormalNLL", "StudentTNLL"]

_CENTRES = ("centres", "log-scales")


@keras.saving.register_keras_serializable("combined_losses")
class LaplaceNLL(Loss):
    """How unlikely a target is under a Laplace: `mean(s + |y_true - m| exp(-s))`.

    `[m | s] = y_pred`: m is the median, and exp(s) the scale, the mean absolute error that the
    model expects. Use it instead of `GaussianNLL` where some targets are far off: an error counts
    by its size, not by its square. Where single targets are plainly wrong, take `StudentTNLL`.

    Args:
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the medians and then the logs of the scales; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if the last axis of `y_pred` is odd, or `y_true` has another shape.

    Example: with a scale of 1, and an error of 0 and of 2.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.LaplaceNLL(reduction="none")
    >>> [float(v) for v in loss(np.array([3.0, 3.0]), np.array([[3.0, 0.0], [5.0, 0.0]]))]
    [0.0, 2.0]

    Limits: the constant log 2 is left out for each dimension. The value may be negative, and is
    unbounded below where the error is 0; the slope by m is 0 there. Below `s = -20` the exponential
    continues along its tangent. With s fixed at 0 it is the mean absolute error.

    Source: it is the density of `torch.distributions.Laplace`; the log-scale head as in Kendall &
    Gal, 2017, arXiv 1703.04977.
    """

    same_shape = False
    prediction_layout = "blocks"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, median, log_scale = parts("LaplaceNLL", y_true, y_pred, _CENTRES)
        return ops.mean(log_scale + magnitude(target - median) * linexp(-log_scale), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("LaplaceNLL", y_pred, scale)


@keras.saving.register_keras_serializable("combined_losses")
class StudentTNLL(Loss):
    """How unlikely a target is under Student's t: a likelihood that outliers cannot dominate.

    `mean(s + (df + 1) / 2 log(1 + t^2 / df))`, `t = (y_true - m) exp(-s)`, `[m | s] = y_pred`. m is
    the centre and exp(s) the scale, not the deviation. Use it where some targets are plainly wrong:
    beyond a few scales the pull of an error on m falls again, like 1 / error.

    Args:
        df: the degrees of freedom, above 0, of all targets alike: 1 is the Cauchy distribution,
            large numbers come near the Gaussian. Default 3.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the centres and then the logs of the scales; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if `df` is not above 0, if the last axis of `y_pred` is odd, or `y_true` has
            another shape.

    Example: an error of 100 scales costs 13 times as much as one of 1; a Gaussian would ask 10000.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.StudentTNLL(df=1.0, reduction="none")
    >>> values = loss(np.array([1.0, 100.0]), np.zeros((2, 2)))
    >>> [round(float(v), 2) for v in values]  # log 2 and log(1 + 100^2)
    [0.69, 9.21]

    Limits: the constant `lgamma(df / 2) - lgamma((df + 1) / 2) + log(pi df) / 2` is left out. The
    slope by m is at most `(df + 1) / (2 sqrt(df)) exp(-s)`. For df -> inf it is `GaussianNLL` with
    the log-variance 2 s. The value may be negative, and is unbounded below where the error is 0.

    Reference: Lange, Little & Taylor, Robust Statistical Modeling Using the t Distribution, JASA
    1989.
    """

    same_shape = False
    prediction_layout = "blocks"

    def __init__(self, df: float = 3.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("StudentTNLL", "df", df, minimum=0, exclusive=True)
        self.df = df

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, centre, log_scale = parts("StudentTNLL", y_true, y_pred, _CENTRES)
        t = magnitude(target - centre) * linexp(-log_scale) / self.df**0.5
        # t^2 would overflow: log(1 + t^2) = 2 log t + log(1 + t^-2).
        far = t > 1
        near, beyond = ops.where(far, 0.0, t), ops.where(far, t, 1.0)
        tail = 2 * ops.log(beyond) + ops.log1p(ops.square(1 / beyond))
        price = ops.where(far, tail, ops.log1p(ops.square(near)))
        return ops.mean(log_scale + (self.df + 1) / 2 * price, axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return _in_units("StudentTNLL", y_pred, scale)


@keras.saving.register_keras_serializable("combined_losses")
class LogNormalNLL(Loss):
    """How unlikely an amount is whose logarithm is Gaussian: prices, durations, concentrations.

    `mean((s + (l - m)^2 exp(-s)) / 2 + l)`, `l = log(y_true)`, `[m | s] = y_pred`: the mean and the
    log-variance of the logarithm. Use it for amounts above 0 that spread over powers of ten. The
    median is exp(m), the mean exp(m + exp(s) / 2).

    Args:
        epsilon: the least amount, above 0: smaller targets count as this one. Default 1e-7.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`: the mean over D.

    Raises:
        ValueError: if `epsilon` is not above 0, if the last axis of `y_pred` is odd, or `y_true`
            has another shape.

    Example: at the median e^2, with a log-variance of 0, only the last term is left.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.LogNormalNLL()
    >>> round(float(loss(np.array([np.exp(2.0)]), np.array([[2.0, 0.0]]))), 5)
    2.0

    Limits: the constant `log(2 pi) / 2` is left out. Without its last term, which no prediction
    changes, it is `GaussianNLL` of the logarithms; with it the value can be compared with that of
    other likelihoods of the same amounts. It may be negative.

    Source: it is the density of `torch.distributions.LogNormal`.
    """

    same_shape = False
    prediction_layout = "blocks"
    target_kind = "amounts"

    def __init__(self, epsilon: float = 1e-7, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("LogNormalNLL", "epsilon", epsilon, minimum=0, exclusive=True)
        self.epsilon = epsilon

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, mean, log_variance = parts("LogNormalNLL", y_true, y_pred)
        log = ops.log(ops.where(target < self.epsilon, self.epsilon, target))
        nll = 0.5 * (log_variance + ops.square(log - mean) * linexp(-log_variance))
        return ops.mean(nll + log, axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        mean, log_variance = halves("LogNormalNLL", y_pred)
        return ops.concatenate([mean - ops.log(ops.abs(scale)), log_variance], axis=-1)


def _in_units(owner: str, y_pred: Tensor, scale: Tensor) -> Tensor:
    """Predictions for targets divided by `scale`: `m / scale` and `s - log |scale|`."""
    centre, log_scale = halves(owner, y_pred, _CENTRES)
    return ops.concatenate([centre / scale, log_scale - ops.log(ops.abs(scale))], axis=-1)
