"""What the losses of classes share: dtypes, arguments, unknown labels, rows of one-hot classes."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number, check_target_shape
from combined_losses._core.data_format import channels_last
from combined_losses._core.loss import ChannelLoss, Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Once, Tensor
from combined_losses._numerics.floats import accumulating, log_softmax
from combined_losses.losses.focal_formulas import smoothed

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
    largest = 1.0 if weight is None else max(1.0, *map(float, weight))  # also of an array
    steepest = _STEEPEST / largest if half else None
    return ops.cast(y_pred, accumulating(loss.dtype)), steepest


def label_column(owner: str, y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Integer labels as `(..., 1)`; raises unless there is one for each row of `y_pred`."""
    rows = tuple(y_pred.shape)[:-1]
    check_target_shape(owner, y_true, y_pred, rows, (*rows, 1))
    return y_true if len(y_true.shape) > len(rows) else ops.expand_dims(y_true, -1)


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


class OfOneHot(OfClasses):
    """A cross-entropy, or the like, of one-hot rows, or of independent labels (abstract).

    A subclass implements `of_right` and `of_labels`, and sets `class_weight`, `label_smoothing`,
    `multilabel` and `from_logits`.
    """

    neutral_target = 1.0
    target_kind = "classes"
    prediction_kind = "probabilities"

    class_weight: Sequence[float] | None
    label_smoothing: float
    multilabel: bool
    from_logits: bool

    def of_right(self, p: Tensor, log_p: Tensor | None, steepest: float | None) -> Tensor:
        """Minus the value of each class if it is the right one, from `log_p`, or else from `p`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `of_right`.")

    def of_labels(self, y_true: Tensor, y_pred: Tensor, steepest: float | None) -> Tensor:
        """The value of each label that is independent of the others."""
        raise NotImplementedError(f"{type(self).__name__} must implement `of_labels`.")

    @property
    def traits(self) -> Traits:
        apart, softmax = self.multilabel, self.from_logits and not self.multilabel
        return super().traits._replace(
            elementwise=apart, summed=apart, apart=apart, softmax=softmax
        )

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, *, once: Once | None = None) -> Tensor:
        if self.multilabel:
            return ops.sum(self.elements(y_true, y_pred), axis=-1)
        y_pred, steepest = cast_prediction(self, y_pred, self.class_weight)
        y_true = smoothed(y_true, self.label_smoothing, y_pred.shape[-1])
        if self.class_weight is not None:
            y_true = y_true * tensor_of("class_weight", self.class_weight, self, y_pred)
        log_p = None
        if self.from_logits:
            log_p = log_softmax(y_pred) if once is None else once(log_softmax, y_pred)
        values = self.of_right(y_pred, log_p, steepest)
        return -ops.sum(backend.ordered_as(values, y_true, once) * values, axis=-1)

    def elements(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """With `multilabel`: what each channel adds to the value, in the shape of `y_pred`."""
        y_pred, steepest = cast_prediction(self, y_pred, self.class_weight)
        y_true = smoothed(y_true, self.label_smoothing)
        values = self.of_labels(y_true, y_pred, steepest)
        if self.class_weight is None:
            return values
        return values * tensor_of("class_weight", self.class_weight, self, y_pred)
