"""Boxes: how far predicted bounding boxes are from the true ones. One value for each box."""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import bounded

__all__ = ["CIoU", "DIoU", "GIoU", "IoU"]

_FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh")
_Format: TypeAlias = Literal["xyxy", "yxyx", "xywh", "center_xywh"]


class _Box(Loss):
    """A loss that compares boxes one by one (abstract).

    A subclass implements `measure(x, y)`; x holds both boxes along the first axis, y along the
    second.
    """

    neutral_target = 1.0
    whole_rows = True

    def __init__(self, format: _Format = "xyxy", **kwargs: Unpack[LossArguments]) -> None:
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

    def measure(self, x: "_Axis", y: "_Axis") -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")


@keras.saving.register_keras_serializable("combined_losses")
class IoU(_Box):
    """One minus the intersection over union of two boxes.

    `1 - I / max(U, 1e-12)`, where I and U are the areas of intersection and union. It is the usual
    score of boxes, whatever their size; but boxes that do not meet cost 1 with gradient 0, however
    far apart they are. Train on `GIoU`, `DIoU` or `CIoU`, and watch this one.

    Args:
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in any unit of length; values
    `y_pred.shape[:-1]`, in [0, 1]. Sample weights and masks of that shape act on single boxes, and
    padded boxes may hold anything, even NaN. A batch without boxes, `(batch, 0, 4)`, has the value
    0. A number beyond 1e30, even inf, counts as 1e30, without a gradient.

    Raises:
        ValueError: if `format` is another one, if the last axis has not four entries, or if the
            shapes differ.

    Example: two of six squares are shared.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])
    >>> round(float(cl.losses.IoU()(y_true, y_pred)), 4)  # 1 - 2 / 6
    0.6667

    A box that ends before it begins has area 0. Areas below 1e-12 count as empty, and two empty
    boxes cost 1. Limits: one minus the Jaccard index of the boxes as masks (`cl.losses.Jaccard`).
    As a loss Yu et al. 2016, arXiv 1608.01471, who take its logarithm.
    """

    def measure(self, x: "_Axis", y: "_Axis") -> Tensor:
        intersection, union = _areas(x, y)
        return 1 - _ratio(intersection, union)


@keras.saving.register_keras_serializable("combined_losses")
class GIoU(_Box):
    """One minus the generalised intersection over union: it sees how far apart boxes are.

    `1 - I / max(U, 1e-12) + (C - U) / max(C, 1e-12)`: `IoU`, plus the share of the enclosing box,
    of area C, that neither box fills. If boxes are far apart, training first enlarges the predicted
    box towards the true one.

    Args:
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in any unit of length; values
    `y_pred.shape[:-1]`, in [0, 2]. Sample weights and masks of that shape act on single boxes, and
    padded boxes may hold anything, even NaN. A batch without boxes, `(batch, 0, 4)`, has the value
    0. A number beyond 1e30, even inf, counts as 1e30, without a gradient.

    Raises:
        ValueError: if `format` is another one, if the last axis has not four entries, or if the
            shapes differ.

    Example: two unit squares with two more between them.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[3.0, 0.0, 4.0, 1.0]])
    >>> float(cl.losses.GIoU()(y_true, y_pred))  # 1 - 0 + (4 - 2) / 4
    1.5

    Limits: if one box contains the other it equals `IoU`, and the gradient does not depend on where
    the inner box lies. As with `IoU`, the unit of length does not matter, nor do two units for the
    two axes; and a predicted box that is inverted may have no gradient. Rezatofighi et al. 2019,
    arXiv 1902.09630.
    """

    def measure(self, x: "_Axis", y: "_Axis") -> Tensor:
        intersection, union = _areas(x, y)
        enclosing = ops.relu(x.enclosing) * ops.relu(y.enclosing)
        return 1 - _ratio(intersection, union) + _ratio(enclosing - union, enclosing)


@keras.saving.register_keras_serializable("combined_losses")
class DIoU(_Box):
    """One minus the intersection over union, plus the squared distance of the centres.

    `1 - I / max(U, 1e-12) + rho^2 / max(c^2, 1e-12)`: rho is the distance of the centres, c the
    diagonal of the enclosing box. Use it where `IoU` has no gradient: it moves the predicted box
    towards the true one, even if one contains the other or the predicted one is inverted.

    Args:
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in one unit of length for both axes
    (pixels, not fractions of width and height, unless images are square); values
    `y_pred.shape[:-1]`, in [0, 2] unless the predicted box is inverted. Sample weights and masks
    of that shape act on single boxes, and padded boxes may hold anything, even NaN. A batch without
    boxes, `(batch, 0, 4)`, has the value 0. A number beyond 1e30, even inf, counts as 1e30, without
    a gradient.

    Raises:
        ValueError: if `format` is another one, if the last axis has not four entries, or if the
            shapes differ.

    Example: two unit squares, their centres 3 apart, in a box of 4 by 1.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[3.0, 0.0, 4.0, 1.0]])
    >>> round(float(cl.losses.DIoU()(y_true, y_pred)), 4)  # 1 - 0 + 9 / 17
    1.5294

    Limits: `IoU` where the centres are the same. Zheng et al. 2020, arXiv 1911.08287.
    """

    def measure(self, x: "_Axis", y: "_Axis") -> Tensor:
        return _distance(x, y)[0]


@keras.saving.register_keras_serializable("combined_losses")
class CIoU(_Box):
    """`DIoU` plus a price on the wrong aspect ratio.

    `DIoU + alpha v`. `v = 4 / pi^2 (atan2(wt, ht) - atan2(wp, hp))^2` compares the shapes; widths
    and heights below 1e-7 count as 1e-7. The factor `alpha = v / max(1 - IoU + v, 1e-12)` has no
    gradient; with it the shape counts more, the better the boxes overlap. The usual choice for the
    boxes of a detector.

    Args:
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in one unit of length for both axes
    (pixels, not fractions of width and height, unless images are square); values
    `y_pred.shape[:-1]`, in [0, 2.5] unless the predicted box is inverted. Sample weights and masks
    of that shape act on single boxes, and padded boxes may hold anything, even NaN. A batch without
    boxes, `(batch, 0, 4)`, has the value 0. A number beyond 1e30, even inf, counts as 1e30, without
    a gradient.

    Raises:
        ValueError: if `format` is another one, if the last axis has not four entries, or if the
            shapes differ.

    Example: the same centre, but 4 by 1 instead of 1 by 4; 1 of 7 squares is shared.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 1.0, 4.0]]), np.array([[-1.5, 1.5, 2.5, 2.5]])
    >>> round(float(cl.losses.DIoU()(y_true, y_pred)), 4)  # 1 - 1 / 7
    0.8571
    >>> round(float(cl.losses.CIoU()(y_true, y_pred)), 4)  # + v^2 / (6 / 7 + v), v = 0.4734
    1.0256

    Limits: `DIoU` if the aspect ratios are equal. The gradient by a side is proportional to one
    over that side, so it is large for a thin box. Zheng et al. 2020, arXiv 1911.08287.
    """

    def measure(self, x: "_Axis", y: "_Axis") -> Tensor:
        value, iou = _distance(x, y)
        sides = (x.true, y.true, x.pred, y.pred)
        wt, ht, wp, hp = (_floored(side, 1e-7) for side in sides)
        # The difference of the two angles is the angle between the vectors (ht, wt) and (hp, wp),
        # whose tangent is their cross product over their inner product. Both angles lie between 0
        # and pi / 2, so their difference does not wrap around.
        angle = ops.arctan2(wt * hp - wp * ht, wt * wp + ht * hp)
        v = (4 / math.pi**2) * angle * angle
        fixed = ops.stop_gradient(v)
        alpha = fixed / _floored(1 - ops.stop_gradient(iou) + fixed, 1e-12)
        return value + alpha * v


def _moderate(true: Sequence[Tensor], pred: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The numbers of two boxes in a unit of length in which no square overflows.

    The losses of boxes do not depend on the unit.
    """
    largest = functools.reduce(ops.maximum, map(ops.abs, [*true, *pred]))
    unit = ops.stop_gradient(ops.where(largest > 1e9, largest / 1e9, 1.0))
    return [number / unit for number in true], [number / unit for number in pred]


class _Axis(NamedTuple):
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


def _axis(true: Tensor, pred: Tensor, before: Tensor, behind: Tensor) -> _Axis:
    """Two boxes, from their lengths and how far the predicted one reaches beyond the true one.

    It does so by `before` at the beginning and by `behind` at the end; where it does not, these are
    negative. All of these are differences of coordinates, so the results are exact even far from
    the origin. With beginnings p1, t1 and ends p2, t2:
    min(p2, t2) - max(p1, t1) = (p2 - relu(p2 - t2)) - (p1 + relu(t1 - p1)), and
    max(p2, t2) - min(p1, t1) = (t2 + relu(p2 - t2)) - (t1 - relu(t1 - p1)).
    """
    outside = _excess(before) + _excess(behind)
    return _Axis(true, pred, pred - outside, true + outside, behind - before)


def _excess(x: Tensor) -> Tensor:
    """`relu(x)`, with the slope 1/2 at 0: the middle between both sides of the kink.

    So if two boxes are equal, the intersection, the union and the enclosing box each have half the
    slope of the area, and the gradient of all four losses is 0. With `ops.minimum` and
    `ops.maximum` this would hold on JAX and torch, but not on TensorFlow.
    """
    return x * (0.5 * ops.sign(ops.stop_gradient(x)) + 0.5)


# One function for each format. It is given the two numbers of each box along one axis. In "yxyx"
# the first axis is the height. That makes no difference: if width and height are swapped, each
# angle of CIoU becomes pi / 2 minus itself, so the difference of the angles only changes its sign.


def _of_ends(true: Sequence[Tensor], pred: Sequence[Tensor]) -> _Axis:
    before, behind = true[0] - pred[0], pred[1] - true[1]
    return _axis(true[1] - true[0], pred[1] - pred[0], before, behind)


def _of_beginnings(true: Sequence[Tensor], pred: Sequence[Tensor]) -> _Axis:
    before = true[0] - pred[0]
    # p2 - t2 = (p1 + wp) - (t1 + wt)
    return _axis(true[1], pred[1], before, pred[1] - true[1] - before)


def _of_centres(true: Sequence[Tensor], pred: Sequence[Tensor]) -> _Axis:
    offset, growth = pred[0] - true[0], 0.5 * (pred[1] - true[1])
    # t1 - p1 = (ct - wt / 2) - (cp - wp / 2) and p2 - t2 = (cp + wp / 2) - (ct + wt / 2)
    return _axis(true[1], pred[1], growth - offset, growth + offset)


_AXES = {
    "xyxy": _of_ends,
    "yxyx": _of_ends,
    "xywh": _of_beginnings,
    "center_xywh": _of_centres,
}


def _areas(x: _Axis, y: _Axis) -> tuple[Tensor, Tensor]:
    """The areas of intersection and union."""
    intersection = ops.relu(x.overlap) * ops.relu(y.overlap)
    true, pred = ops.relu(x.true) * ops.relu(y.true), ops.relu(x.pred) * ops.relu(y.pred)
    return intersection, pred + (true - intersection)


def _distance(x: _Axis, y: _Axis) -> tuple[Tensor, Tensor]:
    """The values of DIoU, and the intersection over union."""
    iou = _ratio(*_areas(x, y))
    squared = 0.25 * (x.offset * x.offset + y.offset * y.offset)
    width, height = ops.relu(x.enclosing), ops.relu(y.enclosing)
    return 1 - iou + _ratio(squared, width * width + height * height), iou


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / _floored(whole, 1e-12)


def _floored(x: Tensor, floor: float) -> Tensor:
    """`max(x, floor)`, with gradient 0 at the floor."""
    return ops.threshold(x, floor, floor)
