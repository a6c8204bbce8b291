"""Ensembles: members that stand for a distribution, without a formula for it."""

from typing import Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import check_flag, check_number, check_target_shape
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import magnitude
from combined_losses.losses.distributions.rows import OfRows, relative

__all__ = ["EnergyScore", "EnsembleCRPS"]


@keras.saving.register_keras_serializable("combined_losses")
class EnsembleCRPS(Loss):
    """The continuous ranked probability score of M members: their error less half their spread.

    `mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1))`. Use it for a model that gives several
    members in place of a formula: the members spread as the target does, with any number of peaks.
    In units of the target. For several targets that depend on each other take `EnergyScore`.

    Args:
        fair: whether the spread is that of the distribution that the members are drawn from, so
            that few members are not told to spread too little. False divides by `2 M^2`: the score
            of these M members as they are, never negative. Default True.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` members `(batch, ..., M)`; `y_true` `(batch, ..., 1)` or `(batch, ...)`. Values
    `y_pred.shape[:-1]`.

    Raises:
        ValueError: if `y_true` has another shape.

    Example: a target between two members, and one far off.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.EnsembleCRPS(fair=False, reduction="none")
    >>> [float(v) for v in loss(np.array([1.0, 4.0]), np.array([[0.0, 2.0], [0.0, 2.0]]))]
    [0.5, 2.5]

    Limits: one member is the mean absolute error. The fair score may be negative. It takes the time
    of a sort. Of equal members the slope depends on their order, but its sum does not.

    Reference: Ferro, Fair scores for ensemble forecasts, Q. J. R. Meteorol. Soc. 2014.
    """

    same_shape = False
    prediction_layout = "columns"

    def __init__(self, *, fair: bool = True, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_flag("EnsembleCRPS", "fair", fair)
        self.fair = fair

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        members = y_pred.shape[-1] if len(y_pred.shape) > 1 else None
        if members is None:
            raise ValueError(
                "EnsembleCRPS needs a known number M of members, predictions of shape (batch, ..., "
                f"M). Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        rows = tuple(y_pred.shape[:-1])
        check_target_shape("EnsembleCRPS", y_true, y_pred, (*rows, 1), rows)
        error = y_pred - ops.reshape(y_true, (*ops.shape(y_pred)[:-1], 1))
        found = ops.mean(magnitude(error), axis=-1)
        if members == 1:
            return found
        # sum_ij |x_i - x_j| = 2 sum_k (2 k - M + 1) x_(k), k from 0 in the sorted members. The
        # factors add up to 0, so that of the errors it is the same as of the members.
        factors = 2 * np.arange(members) - members + 1
        pairs = members * (members - 1) if self.fair else members**2
        spread = ops.sort(error, axis=-1) * ops.convert_to_tensor(factors / pairs, error.dtype)
        return found - ops.sum(spread, axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class EnergyScore(OfRows):
    """`EnsembleCRPS` of whole rows: members `(M, D)` against D targets that belong together.

    `mean_i |x_i - y|^beta - sum_ij |x_i - x_j|^beta / (2 M (M - 1))` of Euclidean norms. Use it
    where the D targets depend on each other, such as the places of a path: the score sees whether
    the members move together as the targets do, which D single scores do not.

    Args:
        beta: the power of the norms, above 0 and below 2. Default 1.0, the unit of the target.
        fair: as in `EnsembleCRPS`; False divides by `2 M^2`. Default True.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` members `(batch, ..., M, D)`; `y_true` `(batch, ..., D)`, or `(batch, ...)`
    where D is 1. Values `y_pred.shape[:-2]`.

    A missing target leaves all norms; a row counts by its share of the D targets. Weights of single
    targets act in the squares of the norms, relative to their mean in the row.

    Raises:
        ValueError: if `beta` is not above 0 and below 2, or `y_true` has another shape.

    Example: two members, each 5 from the target and 6 from each other.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.EnergyScore()
    >>> float(loss(np.array([[0.0, 0.0]]), np.array([[[3.0, 4.0], [-3.0, 4.0]]])))
    2.0

    Limits: D = 1 is `EnsembleCRPS` (beta 1), one member a distance. The memory of a row grows with
    the square of M. The slope at a distance of 0 is 0. The fair score may be negative.

    Reference: Gneiting & Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA
    2007.
    """

    row_rank = 2

    def __init__(
        self, beta: float = 1.0, *, fair: bool = True, **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_number("EnergyScore", "beta", beta, minimum=0, exclusive=True, below=2)
        check_flag("EnergyScore", "fair", fair)
        self.beta = beta
        self.fair = fair

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        if len(y_pred.shape) < 3 or y_pred.shape[-1] is None:
            raise ValueError(
                "EnergyScore needs a known number D of targets, predictions of shape (batch, ..., "
                "M, D): end the model with keras.layers.Reshape((M, D)). "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        *rows, members, size = tuple(y_pred.shape)
        of_one = [(*rows,), (*rows, 1, 1)] if size == 1 else []
        check_target_shape("EnergyScore", y_true, y_pred, (*rows, size), *of_one)
        y_true = ops.reshape(y_true, (*ops.shape(y_pred)[:-2], 1, size))
        weight = None
        if sample_weight is not None:
            weight, _ = relative(ops.reshape(sample_weight, ops.shape(y_true)))
        error = ops.mean(self._powers(y_pred - y_true, weight), axis=-1)
        if members == 1:
            return error
        between = ops.expand_dims(y_pred, -2) - ops.expand_dims(y_pred, -3)
        weight = None if weight is None else ops.expand_dims(weight, -2)
        number = ops.cast(ops.shape(y_pred)[-2], error.dtype)
        # TensorFlow may not know yet that there is one member: then the sum of the pairs is 0.
        pairs = ops.maximum(number * (number - 1), 1.0) if self.fair else number * number
        return error - ops.sum(self._powers(between, weight), axis=(-2, -1)) / (2 * pairs)

    def _powers(self, differences: Tensor, weight: Tensor | None) -> Tensor:
        """The norms over the last axis, to the power `beta`; 0 with slope 0 where they are 0."""
        squares = ops.square(differences)
        total = ops.sum(squares if weight is None else weight * squares, axis=-1)
        nothing = total <= 1e-24
        return ops.where(nothing, 0.0, ops.where(nothing, 1.0, total) ** (self.beta / 2))
