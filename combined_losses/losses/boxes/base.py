"""What the losses of boxes share: formats, lengths and areas that are exact and finite."""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, Unpack

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import bounded

_FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh")
Format: TypeAlias = Literal["xyxy", "yxyx", "xywh", "center_xywh"]


class Box(Loss):
    """A loss that compares boxes one by one (abstract).

    A subclass implements `measure(x, y)`; x holds both boxes along the first axis, y along the
    second.
    """

    neutral_target = 1.0
    whole_rows = True

    def __init__(self, format: Format = "xyxy", **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        if not isinstance(format, str) or format not in _FORMATS:
            raise ValueError(
                f"The argument `format` of {type(self).__name__} must be one of "
                f"{quoted(_FORMATS, 'or')}: convert others, for example by "
                f"keras.utils.bounding_boxes.convert_format. Received: {format!r}"
            )
        self.format = format

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        shape = tuple(y_pred.shape)
        if len(shape) < 2 or shape[-1] not in (4, None):
            raise ValueError(
                f"{type(self).__name__} compares boxes: arrays (batch, 4) or (batch, ..., 4), the "
                f"four numbers being {self.format!r}. End the model with keras.layers.Dense(4) or "
                "keras.layers.Reshape((-1, 4)), or take the first four of more numbers by "
                f"cl.wrappers.OnSlice(loss, np.s_[..., :4]). Received: y_pred of shape {shape}"
            )
        # Bounded before the entries are taken: JAX takes them by products, and 0 * inf is NaN.
        boxes = (bounded(numbers, 1e30) for numbers in (y_true, y_pred))
        true, pred = _moderate(*(backend.entries(each, 4) for each in boxes))
        along = _AXES[self.format]
        return self.measure(*(along(true[i::2], pred[i::2]) for i in (0, 1)))

    def measure(self, x: "Axis", y: "Axis") -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")


def _moderate(true: Sequence[Tensor], pred: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The numbers of two boxes in a unit of length in which no square overflows.

    The losses of boxes do not depend on the unit.
    """
    largest = functools.reduce(ops.maximum, map(ops.abs, [*true, *pred]))
    unit = ops.stop_gradient(ops.where(largest > 1e9, largest / 1e9, 1.0))
    return [number / unit for number in true], [number / unit for number in pred]


class Axis(NamedTuple):
    """A true and a predicted box along one axis.

    Attributes:
        true, pred: their lengths; negative if a box is inverted.
        overlap: from the later beginning to the earlier end; negative if the boxes do not meet.
        enclosing: from the earlier beginning to the later end.
        offset: twice the distance from the centre of the true box to that of the predicted one.
    """

    true: Tensor
    pred: Tensor
    overlap: Tensor
    enclosing: Tensor
    offset: Tensor


def _axis(true: Tensor, pred: Tensor, before: Tensor, behind: Tensor) -> Axis:
    """Two boxes, from their lengths and how far the predicted one reaches beyond the true one.

    It does so by `before` at the beginning and by `behind` at the end; where it does not, these are
    negative. All of these are differences of coordinates, so the results are exact even far from
    the origin. With beginnings p1, t1 and ends p2, t2:
    min(p2, t2) - max(p1, t1) = (p2 - relu(p2 - t2)) - (p1 + relu(t1 - p1)), and
    max(p2, t2) - min(p1, t1) = (t2 + relu(p2 - t2)) - (t1 - relu(t1 - p1)).
    """
    outside = _excess(before) + _excess(behind)
    return Axis(true, pred, pred - outside, true + outside, behind - before)


def _excess(x: Tensor) -> Tensor:
    """`relu(x)`, with the slope 1/2 at 0: the middle between both sides of the kink.

    So if two boxes are equal, the intersection, the union and the enclosing box each have half the
    slope of the area, and the gradient of every loss is 0. With `ops.minimum` and
    `ops.maximum` this would hold on JAX and torch, but not on TensorFlow.
    """
    return x * (0.5 * ops.sign(ops.stop_gradient(x)) + 0.5)


# One function for each format. It is given the two numbers of each box along one axis. In "yxyx"
# the first axis is the height. That makes no difference: if width and height are swapped, each
# angle of CIoU becomes pi / 2 minus itself, so the difference of the angles only changes its sign;
# in the other losses both axes count alike.


def _of_ends(true: Sequence[Tensor], pred: Sequence[Tensor]) -> Axis:
    before, behind = true[0] - pred[0], pred[1] - true[1]
    return _axis(true[1] - true[0], pred[1] - pred[0], before, behind)


def _of_beginnings(true: Sequence[Tensor], pred: Sequence[Tensor]) -> Axis:
    before = true[0] - pred[0]
    # p2 - t2 = (p1 + wp) - (t1 + wt)
    return _axis(true[1], pred[1], before, pred[1] - true[1] - before)


def _of_centres(true: Sequence[Tensor], pred: Sequence[Tensor]) -> Axis:
    offset, growth = pred[0] - true[0], 0.5 * (pred[1] - true[1])
    # t1 - p1 = (ct - wt / 2) - (cp - wp / 2) and p2 - t2 = (cp + wp / 2) - (ct + wt / 2)
    return _axis(true[1], pred[1], growth - offset, growth + offset)


_AXES = {
    "xyxy": _of_ends,
    "yxyx": _of_ends,
    "xywh": _of_beginnings,
    "center_xywh": _of_centres,
}


def areas(x: Axis, y: Axis) -> tuple[Tensor, Tensor]:
    """The areas of intersection and union."""
    intersection = ops.relu(x.overlap) * ops.relu(y.overlap)
    true, pred = ops.relu(x.true) * ops.relu(y.true), ops.relu(x.pred) * ops.relu(y.pred)
    return intersection, pred + (true - intersection)


def distance(x: Axis, y: Axis) -> tuple[Tensor, Tensor]:
    """The values of DIoU, and the intersection over union."""
    iou = ratio(*areas(x, y))
    squared = 0.25 * (x.offset * x.offset + y.offset * y.offset)
    width, height = ops.relu(x.enclosing), ops.relu(y.enclosing)
    return 1 - iou + ratio(squared, width * width + height * height), iou


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / floored(whole, 1e-12)


def floored(x: Tensor, floor: float) -> Tensor:
    """`max(x, floor)`, with gradient 0 at the floor."""
    return ops.threshold(x, floor, floor)
