"""What the losses of classes share: the dtype of a prediction, arguments, unknown labels."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.loss import ChannelLoss, Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating

# The largest slope by a float16 prediction. At a probability near 0 it would be 1e7, which is
# infinite in float16: its largest number is 65504.
_STEEPEST = 2.0**14


class OfClasses(ChannelLoss):
    """A loss of classes that may have channels; it casts its predictions itself (abstract)."""

    @property
    def traits(self) -> Traits:
        return super().traits._replace(casts_prediction=False)


def cast_prediction(
    loss: Loss, y_pred: Tensor, weight: Sequence[float] | None = None
) -> tuple[Tensor, float | None]:
    """Predictions in the dtype of the computation, and a limit of the slope by them, or None.

    The values are multiplied by a `weight`, so the limit is divided by the largest.
    """
    half = keras.backend.standardize_dtype(y_pred.dtype) == "float16"
    steepest = _STEEPEST / max(1.0, *(weight or [1.0])) if half else None
    return ops.cast(y_pred, accumulating(loss.dtype)), steepest


def known_labels(y_true: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Integer labels, with 0 for each that is outside 0 to classes - 1, and which are inside.

    As an index, -1 would be the last class.
    """
    known = ops.logical_and(y_true >= 0, y_true < classes)
    return ops.cast(ops.where(known, y_true, 0), "int32"), known


def check_each(owner: str, name: str, value: Any, **bounds: Any) -> None:
    """`check_number` of one number, or of each of a list of them."""
    if not isinstance(value, (list, tuple)):
        return check_number(owner, name, value, **bounds)
    try:
        for number in value or [math.nan]:
            check_number(owner, name, number, **bounds)
    except ValueError as error:
        allowed = str(error).partition(" Received: ")[0]
        raise ValueError(f"{allowed[:-1]}, or a list of such. Received: {value!r}") from None


def tensor_of(name: str, numbers: Sequence[float], loss: Loss, y_pred: Tensor) -> Tensor:
    """An argument as a tensor; raises unless it has one number for each class."""
    if y_pred.shape[-1] not in (len(numbers), None):
        raise ValueError(
            f"The argument `{name}` of {type(loss).__name__} must have one number for each of the "
            f"{y_pred.shape[-1]} classes of y_pred. Received: {numbers!r}"
        )
    return ops.convert_to_tensor(numbers, y_pred.dtype)
