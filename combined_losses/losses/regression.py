"""Regression: numbers against numbers, element by element. Values of shape `y_pred.shape[:-1]`."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import em1x, magnitude

__all__ = [
    "AsymmetricError",
    "Charbonnier",
    "Expectile",
    "Linex",
    "UnderestimationPenalty",
]


@keras.saving.register_keras_serializable("combined_losses")
class UnderestimationPenalty(Loss):
    """Prices predictions below the target: `weight * mean(max(y_true - y_pred, 0))`.

    Over-prediction is free (value and gradient 0), so this is a term to add to another loss, where
    predicting too little is the costly side: understocking, underestimating a risk.

    Args:
        weight: the price of one unit of underestimation, at least 0. Default 2.0. It is part of the
            value, and so of the curve: by default `under_loss` shows twice the mean
            underestimation. To weigh the term against others and still see it in units of the
            target, set this to 1.0 and give the composite `weights={"under": 2.0}`: curves do not
            contain the weights of a composite.
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

    Limit: the under-prediction half of `Pinball` (Koenker & Bassett 1978), at the price `weight`.
    """

    elementwise = True

    def __init__(self, weight: float = 2.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("UnderestimationPenalty", "weight", weight, minimum=0)
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.weight * ops.mean(ops.relu(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class AsymmetricError(Loss):
    """An error whose two sides have prices of their own.

    `mean(under_weight * max(e, 0)^power + over_weight * max(-e, 0)^power)`, `e = y_true - y_pred`.
    Use it alone; `UnderestimationPenalty` is a term to add to another loss.

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

    def __init__(
        self,
        under_weight: float = 2.0,
        over_weight: float = 1.0,
        power: float = 2.0,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("AsymmetricError", "under_weight", under_weight, minimum=0)
        check_number("AsymmetricError", "over_weight", over_weight, minimum=0)
        check_number("AsymmetricError", "power", power, minimum=1)
        self.under_weight = under_weight
        self.over_weight = over_weight
        self.power = power

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = y_true - y_pred
        # One power instead of two: at most one side is non-zero, so the sum of the sides is
        # price * |e|^power with the price of the side that e is on.
        price = _price(error, self.under_weight, self.over_weight)
        return ops.mean(price * self._power(magnitude(error)), axis=-1)

    def _power(self, size: Tensor) -> Tensor:
        if self.power == 1:
            return size
        if self.power == 2:
            return ops.square(size)
        # size^p as size * size^(p-1). For p < 2 the slope of size^(p-1) at 0 is infinite, and the
        # backends would multiply it by size, 0 * inf; the floor passes no gradient below itself.
        return size * ops.power(ops.maximum(size, 1e-30), self.power - 1)


@keras.saving.register_keras_serializable("combined_losses")
class Expectile(Loss):
    """Expectile regression: `mean(t * max(e, 0)^2 + (1 - t) * max(-e, 0)^2)`.

    `e = y_true - y_pred`. It is to the squared error what `Pinball` is to the absolute one: smooth,
    and its minimum depends on how *far* targets lie beyond it, not on how many do.

    Args:
        expectile: t, above 0 and below 1; above 0.5 it prices predicting too little more. Default
            0.5, the mean.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, in units of
    the target squared.

    Raises:
        ValueError: if `expectile` is not above 0 and below 1, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Expectile(expectile=0.75)
    >>> float(loss(np.array([[3.0], [3.0]]), np.array([[1.0], [5.0]])))
    2.0

    Limit: t = 0.5 is half the mean squared error.

    Reference: Newey & Powell, Asymmetric Least Squares Estimation and Testing, Econometrica 1987.
    """

    elementwise = True

    def __init__(self, expectile: float = 0.5, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("Expectile", "expectile", expectile, minimum=0, exclusive=True, below=1)
        self.expectile = expectile

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = y_true - y_pred
        # At most one side is not 0, so the sum of the sides is the price of that side times e^2.
        price = _price(error, self.expectile, 1 - self.expectile)
        return ops.mean(price * ops.square(error), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class Linex(Loss):
    """Linear on one side, exponential on the other: `mean(2 / a^2 * (exp(a e) - 1 - a e))`.

    `e = y_true - y_pred`. Use it where errors of one sign are a nuisance and large errors of the
    other sign a catastrophe, as for the height of a dam: with `a > 0` the price of predicting too
    little is exponential, with `a < 0` that of predicting too much.

    Args:
        sharpness: a, of either sign, its absolute value from 1e-15 to 1e15; `1 / a` is the error,
            in units of the target, where the sides begin to differ. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, in units of
    the target squared.

    Raises:
        ValueError: if `sharpness` is outside its range, or if the shapes differ.

    Example: on the cheap side the slope tends to `2 / a`; on the other it grows without bound.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Linex(sharpness=1.0)
    >>> round(float(loss(np.array([[0.0]]), np.array([[10.0]]))), 2)
    18.0
    >>> round(float(loss(np.array([[10.0]]), np.array([[0.0]]))))
    44031

    Limit: a -> 0 is the mean squared error. Beyond `|a e| = 20` the loss continues along its
    tangent, so that it is finite, and has a slope, at any error.

    References: Varian, A Bayesian Approach to Real Estate Assessment, 1975; Zellner, Bayesian
    Estimation and Prediction Using Asymmetric Loss Functions, JASA 1986.
    """

    elementwise = True

    def __init__(self, sharpness: float = 1.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        number = isinstance(sharpness, (int, float)) and not isinstance(sharpness, bool)
        # Outside this range float32 cannot hold both a^2 and 1 / a^2.
        if not number or not 1e-15 <= abs(sharpness) <= 1e15:
            raise ValueError(
                "The argument `sharpness` of Linex must be a number of size 1e-15 to 1e15, above "
                f'or below 0; for the limit 0 use "mse". Received: {sharpness!r}'
            )
        self.sharpness = sharpness

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        scaled = self.sharpness * (y_true - y_pred)
        return 2 / self.sharpness**2 * ops.mean(em1x(scaled), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class Charbonnier(Loss):
    """The absolute error with a rounded tip: `mean(sqrt(e^2 + epsilon^2))`, `e = y_true - y_pred`.

    It is as robust to outliers as the absolute error, and smooth at 0, where that has a kink: the
    usual choice for restoring images.

    Args:
        epsilon: the error, in units of the target, below which the loss is nearly a parabola; at
            least 1e-15. Default 1e-3.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, in units of
    the target.

    Raises:
        ValueError: if `epsilon` is below 1e-15 or not finite, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Charbonnier(epsilon=3.0)
    >>> float(loss(np.array([[4.0]]), np.array([[0.0]])))
    5.0

    Limits: epsilon -> 0 is the mean absolute error. Where `e = 0` the value is `epsilon`, not 0,
    and the gradient 0. Some programs put `epsilon` under the root without squaring it.

    References: Charbonnier et al., Two Deterministic Half-Quadratic Regularization Algorithms for
    Computed Imaging, ICIP 1994; for images Lai et al., LapSRN, 2017, arXiv 1704.03915.
    """

    elementwise = True

    def __init__(self, epsilon: float = 1e-3, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        # The square of a smaller epsilon may be 0 in float32, and the root has no derivative at 0.
        check_number("Charbonnier", "epsilon", epsilon, minimum=1e-15)
        self.epsilon = epsilon

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = y_true - y_pred
        return ops.mean(ops.sqrt(ops.square(error) + self.epsilon**2), axis=-1)


def _price(error: Tensor, under: float, over: float) -> Tensor:
    """The price of the side that each error is on, in the dtype of the error."""
    prices = (ops.convert_to_tensor(price, error.dtype) for price in (under, over))
    return ops.where(error > 0, *prices)
