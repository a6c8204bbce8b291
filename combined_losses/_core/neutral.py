"""What a loss is given in rows of weight 0: numbers that cannot spoil its value or gradient.

A NaN in a row of weight 0 has to be replaced *before* the loss: a `where` on the values alone
leaves the gradient 0 * NaN = NaN, even where only the derivative is not finite.
"""

from collections.abc import Iterable

from keras import ops

from combined_losses._core.alignment import fit_from_left, is_used
from combined_losses._core.checks import is_float
from combined_losses._numerics.arrays import Tensor

# Replaces a prediction in a row of weight 0, and a number that is not finite there.
NEUTRAL = 0.5


def where_used(weights: Iterable[Tensor], tensor: Tensor) -> Tensor:
    """The places where each weight that fits `tensor` is not 0; None if no weight fits."""
    used = None
    for weight in weights:
        fitted = fit_from_left(weight, tensor)
        if fitted is not None:
            this = is_used(fitted)
            used = this if used is None else ops.logical_and(used, this)
    return used


def neutralised(tensor: Tensor, used: Tensor, neutral: float | None = None) -> Tensor:
    """`tensor` with `neutral` in the places that are not `used`.

    With `neutral=None` only the numbers there that are not finite are replaced, by `NEUTRAL`.
    """
    if used is None:
        return tensor
    if neutral is None:
        if not is_float(tensor):
            return tensor
        used, neutral = ops.logical_or(used, ops.isfinite(tensor)), NEUTRAL
    return ops.where(used, tensor, ops.cast(neutral, tensor.dtype))


def without_gradient(y_pred: Tensor, used: Tensor) -> Tensor:
    """Predictions that get no gradient, and are made finite, in the places that are not `used`."""
    if used is None or not is_float(y_pred):
        return y_pred
    finite = ops.where(ops.isfinite(y_pred), y_pred, ops.cast(NEUTRAL, y_pred.dtype))
    return ops.where(used, y_pred, ops.stop_gradient(finite))


def keeping_ignored(y_true: Tensor, replaced: Tensor, ignored: int | None) -> Tensor:
    """`replaced`, but with the targets of `y_true` that the loss itself ignores left in place.

    A valid label in their place would make the loss count the row among the valid ones.
    """
    if ignored is None or y_true is None:
        return replaced
    is_ignored = ops.equal(y_true, ops.cast(ignored, y_true.dtype))
    return ops.where(is_ignored, y_true, replaced)
