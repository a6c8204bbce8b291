"""A predicted Gaussian against the standard one: no target is read."""

import keras
from keras import ops

from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import em1x
from combined_losses.losses.distributions.blocks import halves, in_units

__all__ = ["GaussianKL"]


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
        mean, log_variance = halves("GaussianKL", y_pred)
        return ops.sum(0.5 * (ops.square(mean) + em1x(log_variance)), axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return in_units("GaussianKL", y_pred, scale)
