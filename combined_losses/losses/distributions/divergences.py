"""A predicted Gaussian against the standard one: no target is read."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.over import Over, check_over
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, em1x
from combined_losses.losses.distributions.blocks import halves, in_units

__all__ = ["GaussianKL"]


@keras.saving.register_keras_serializable("combined_losses")
class GaussianKL(Loss):
    """The KL divergence from the standard Gaussian: `sum(0.5 * (m^2 + exp(s) - 1 - s))`.

    The divergence of N(m, exp(s)) from N(0, 1), with `[m | s] = y_pred`: the regulariser of a
    variational autoencoder, on the output of its encoder. It reads no target: `y_true` is ignored,
    and may be None.

    Args:
        free_bits: how many nats each of the D dimensions may use at no cost, at least 0. Below
            that it counts as so many, and has no gradient: an early decoder that ignores the code
            then finds some information left in it. Default 0.0, the divergence itself.
        over: what is compared with `free_bits`: `"sample"` (default), each row's own divergence in
            a dimension; `"batch"`, its mean over the rows of all replicas, so that rows may use
            more and less. The mean of the values is then `sum max(mean, free_bits)`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., 2 D)`, the means and then the log-variances; `y_true` any.
    Values `y_pred.shape[:-1]`, in nats: the sum over D.

    Raises:
        ValueError: if an argument is outside its range, or the last axis of `y_pred` is odd.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.GaussianKL(reduction="none")
    >>> [float(v) for v in loss(None, np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]))]
    [0.0, 5.0]

    Limits: at the prior, m = s = 0, value and gradient are 0. The loss is linear in s below -20 and
    above 20, so it is finite for every s. It is a sum over D: beside a reconstruction loss that is
    a mean, the balance of the two depends on D.

    References: Kingma & Welling, Auto-Encoding Variational Bayes, 2014, arXiv 1312.6114; the free
    bits of Kingma et al., 2016, arXiv 1606.04934.
    """

    same_shape = False
    has_channels = True
    neutral_target = 1.0
    needs_target = False

    def __init__(
        self, free_bits: float = 0.0, *, over: Over = "sample", **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_number("GaussianKL", "free_bits", free_bits, minimum=0)
        check_over("GaussianKL", over)
        self.free_bits = free_bits
        self.over = over

    @property
    def traits(self) -> Traits:
        whole = self.over == "batch"
        return super().traits._replace(couples_batch=whole, takes_weights=whole)

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        mean, log_variance = halves("GaussianKL", y_pred)
        found = 0.5 * (ops.square(mean) + em1x(log_variance))
        if self.free_bits:
            used = found if self.over == "sample" else _means(found, sample_weight)
            # `<=`, so that NaN stays.
            found = ops.where(ops.stop_gradient(used) <= self.free_bits, self.free_bits, found)
        return ops.sum(found, axis=-1)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        return in_units("GaussianKL", y_pred, scale)


def _means(found: Tensor, weight: Tensor | None) -> Tensor:
    """The mean over the rows of all replicas, `(D,)`; weights are those of rows."""
    found = ops.stop_gradient(found)
    weight = ops.ones_like(found[..., 0]) if weight is None else weight
    axes = tuple(range(len(found.shape) - 1))
    total = ops.sum(ops.expand_dims(weight, -1) * found, axis=axes)
    return div(backend.global_sum(total), backend.global_sum(ops.sum(weight)))
