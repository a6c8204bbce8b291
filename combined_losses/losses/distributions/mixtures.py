"""Mixtures: several Gaussians, of which the target came from one."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import is_integer
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import linexp
from combined_losses.losses.distributions.blocks import targets_of
from combined_losses.losses.distributions.rows import OfRows, relative

__all__ = ["MixtureNLL"]


@keras.saving.register_keras_serializable("combined_losses")
class MixtureNLL(OfRows):
    """How unlikely a target is under a mixture of K Gaussians: a mixture density network.

    `-1/D log sum_k pi_k exp(-1/2 sum_d (s_kd + (y_d - m_kd)^2 exp(-s_kd)))`, pi the softmax of the
    logits. Use it for one input that has several answers, such as the roots of an inverse problem:
    one Gaussian, or the squared error, would answer with their mean, which is none of them.

    Args:
        components: K, the number of Gaussians, at least 1. Default 3.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., K + 2 K D)`: K logits, then the means of the first Gaussian, of
    the second, …, then the log-variances alike; end the model with `Dense(K + 2 * K * D)`. `y_true`
    `(batch, ..., D)`, or `(batch, ...)` where D is 1. Values `y_pred.shape[:-1]`.

    A missing target leaves the sums of all components, and D. A row counts by its share of the D
    targets. Weights of single targets act in the sums, relative to their mean in the row.

    Raises:
        ValueError: if `components` is no integer of at least 1, or a shape does not fit.

    Example: two narrow Gaussians at -1 and 1, and a target at one of them.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.MixtureNLL(components=2)
    >>> y_pred = np.array([[0.0, 0.0, -1.0, 1.0, -8.0, -8.0]])
    >>> round(float(loss(np.array([1.0]), y_pred)), 4)  # log 2 - 8 / 2
    -3.3069

    Limits: `log(2 pi) / 2` is left out for each dimension. With one component, or equal ones, it is
    `GaussianNLL`. A component may die out, with a logit of -30 or so: start the means apart, for
    example by a `bias_initializer`. The value may be negative, and is unbounded below: a component
    that shrinks to one target. Far from all Gaussians it is finite, and moves the nearest one.

    Reference: Bishop, Mixture Density Networks, Aston University 1994.
    """

    def __init__(self, components: int = 3, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        if not is_integer(components) or components < 1:
            raise ValueError(
                "The argument `components` of MixtureNLL must be an integer of at least 1. "
                f"Received: {components!r}"
            )
        self.components = components

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        logits, means, log_variances = self._heads(y_pred)
        size = means.shape[-1]
        y_true = ops.expand_dims(targets_of("MixtureNLL", y_true, y_pred, size), -2)
        terms = log_variances + ops.square(y_true - means) * linexp(-log_variances)
        number = float(size)
        if sample_weight is not None:
            weight, number = relative(ops.reshape(sample_weight, ops.shape(y_true[..., 0, :])))
            terms = terms * ops.expand_dims(weight, -2)
            number = ops.maximum(number, 1.0)  # of a row without a target, which does not count
        scores = ops.log_softmax(logits, axis=-1) - 0.5 * ops.sum(terms, axis=-1)
        return -ops.logsumexp(scores, axis=-1) / number

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        logits, means, log_variances = self._heads(y_pred)
        blocks = [means / scale, log_variances - 2 * ops.log(ops.abs(scale))]
        rows = ops.shape(y_pred)[:-1]
        flat = [ops.reshape(block, (*rows, self.components * means.shape[-1])) for block in blocks]
        return ops.concatenate([logits, *flat], axis=-1)

    def _heads(self, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(..., K)`, and means and log-variances `(..., K, D)`."""
        shape, k = tuple(y_pred.shape), self.components
        size, left = (0, 1) if not shape or not shape[-1] else divmod(shape[-1] - k, 2 * k)
        if len(shape) < 2 or left or size < 1:
            raise ValueError(
                f"MixtureNLL of {k} components needs predictions of shape (batch, ..., {k} + "
                f"{2 * k} * D): {k} logits, then the means and then the log-variances of each "
                f"component; for targets of D numbers end the model with keras.layers.Dense({k} + "
                f"{2 * k} * D). Received: y_pred of shape {shape}"
            )
        blocks = ops.reshape(y_pred[..., k:], (*ops.shape(y_pred)[:-1], 2, k, size))
        return y_pred[..., :k], blocks[..., 0, :, :], blocks[..., 1, :, :]
