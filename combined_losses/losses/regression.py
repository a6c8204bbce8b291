"""Regression: numbers against numbers, element by element. Values of shape `y_pred.shape[:-1]`."""

import keras
from keras import ops

from combined_losses._internal.numerics import check_number, magnitude
from combined_losses.losses.base import Loss

__all__ = ["AsymmetricError", "UnderestimationPenalty"]


@keras.saving.register_keras_serializable("combined_losses")
class UnderestimationPenalty(Loss):
    """Prices predictions below the target: `weight * mean(max(y_true - y_pred, 0))`.

    Over-prediction is free (value and gradient 0), so this is a term to add to another loss, where
    predicting too little is the costly side: understocking, underestimating a risk.

    Args:
        weight: the price of one unit of underestimation, at least 0. Default 2.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, in units of
    the target.

    Raises:
        ValueError: if `weight` is negative or not finite, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.UnderestimationPenalty(weight=2.0)
    >>> float(loss(np.array([[3.0], [3.0]]), np.array([[1.0], [5.0]])))
    2.0

    Limit: `weight * Pinball(q)` without its over-prediction half (Koenker & Bassett 1978).
    """

    elementwise = True

    def __init__(self, weight=2.0, **kwargs):
        super().__init__(**kwargs)
        check_number("UnderestimationPenalty", "weight", weight, minimum=0)
        self.weight = weight

    def call(self, y_true, y_pred):
        return self.weight * ops.mean(ops.relu(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class AsymmetricError(Loss):
    """An error whose two sides have prices of their own.

    `mean(under_weight * max(e, 0)^power + over_weight * max(-e, 0)^power)`, `e = y_true - y_pred`.
    Use it alone, where `UnderestimationPenalty` is a term to add.

    Args:
        under_weight: the price of predicting too little, at least 0. Default 2.0.
        over_weight: the price of predicting too much, at least 0. Default 1.0.
        power: the exponent of the error, at least 1. Default 2.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, in units of
    the target to the `power`.

    Raises:
        ValueError: if a weight is negative, `power` below 1, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.AsymmetricError(under_weight=3.0, over_weight=1.0)
    >>> float(loss(np.array([[3.0], [3.0]]), np.array([[1.0], [5.0]])))
    8.0

    Limits: (1, 1, 2) is MSE; (1, 1, 1) is MAE; (q, 1 - q, 1) is the pinball loss of quantile q
    (Koenker & Bassett 1978); (t, 1 - t, 2) is the expectile loss of t (Newey & Powell 1987).
    """

    elementwise = True

    def __init__(self, under_weight=2.0, over_weight=1.0, power=2.0, **kwargs):
        super().__init__(**kwargs)
        check_number("AsymmetricError", "under_weight", under_weight, minimum=0)
        check_number("AsymmetricError", "over_weight", over_weight, minimum=0)
        check_number("AsymmetricError", "power", power, minimum=1)
        self.under_weight = under_weight
        self.over_weight = over_weight
        self.power = power

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        # One power instead of two: at most one side is non-zero, so the sum of the sides is
        # price * |e|^power with the price of the side that e is on.
        price = ops.where(error > 0, self.under_weight, self.over_weight)
        return ops.mean(ops.cast(price, error.dtype) * self._power(magnitude(error)), axis=-1)

    def _power(self, size):
        if self.power == 1:
            return size
        if self.power == 2:
            return ops.square(size)
        # size^p = size * size^(p-1) has the derivative p * size^(p-1); at 0 the backends form it
        # as 0 * inf for p < 2. The floor inside the power passes no gradient below it.
        return size * ops.power(ops.maximum(size, 1e-30), self.power - 1)
