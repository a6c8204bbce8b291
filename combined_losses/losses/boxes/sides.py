"""Boxes by their widths and heights, each for itself."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import magnitude
from combined_losses.losses.boxes.base import (
    Axis,
    Box,
    Format,
    areas,
    distance,
    floored,
    ratio,
)

__all__ = ["EIoU", "SIoU"]


@keras.saving.register_keras_serializable("combined_losses")
class EIoU(Box):
    """`DIoU` plus the squared errors of width and height, as shares of the enclosing box.

    `DIoU + (wt - wp)^2 / max(cw^2, 1e-12) + (ht - hp)^2 / max(ch^2, 1e-12)`: cw and ch are the
    sides of the enclosing box. Use it where `CIoU` leaves boxes of the right aspect ratio and the
    wrong size: it prices each side by itself.

    Args:
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in one unit of length for both axes
    (pixels, not fractions of width and height, unless images are square); values
    `y_pred.shape[:-1]`, in [0, 3.25] unless the predicted box is inverted: its sides count as 0.
    Sample weights and masks of that shape act on single boxes, and padded boxes may hold anything,
    even NaN. A batch without boxes, `(batch, 0, 4)`, has the value 0. A number beyond 1e30, even
    inf, counts as 1e30, without a gradient.

    Raises:
        ValueError: if `format` is another one, if the last axis has not four entries, or if the
            shapes differ.

    Example: the same centre and aspect ratio, and half of each side: a quarter is shared.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 4.0, 4.0]]), np.array([[1.0, 1.0, 3.0, 3.0]])
    >>> float(cl.losses.CIoU()(y_true, y_pred))  # 1 - 1 / 4
    0.75
    >>> float(cl.losses.EIoU()(y_true, y_pred))  # + (2 / 4)^2 + (2 / 4)^2
    1.25

    Limits: `DIoU` where the sides are the same. Zhang et al. 2021, arXiv 2101.08158, without the
    focal factor; for that, weigh the boxes by their intersection over union.
    """

    def __init__(self, *, format: Format = "xyxy", **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(format, **kwargs)

    def measure(self, x: Axis, y: Axis) -> Tensor:
        return distance(x, y)[0] + _miss(x) + _miss(y)


@keras.saving.register_keras_serializable("combined_losses")
class SIoU(Box):
    """One minus the intersection over union, plus prices of the way, its direction and the shape.

    `1 - I / max(U, 1e-12) + (D + S) / 2`. The distance of the centres is (dx, dy), the enclosing
    box cw by ch: `D = 2 - exp(-g (dx / cw)^2) - exp(-g (dy / ch)^2)`, `g = 2 - 2 |dx dy| / (dx^2 +
    dy^2)`. So a way along one axis costs more than a diagonal one. The shape is `S = q(wt, wp) +
    q(ht, hp)`, `q(a, b) = (1 - exp(-|a - b| / max(a, b)))^theta`. Denominators are at least 1e-12.
    Use it as another choice beside `CIoU` and `EIoU` for the boxes of a detector.

    Args:
        theta: how little small errors of the shape count, at least 1. Default 4.0.
        format: what the four numbers are: `"xyxy"` (default; left, top, right, bottom), `"yxyx"`
            (top, left, bottom, right), `"xywh"` (left, top, width, height) or `"center_xywh"`
            (centre, width, height), as in `keras.utils.bounding_boxes`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., 4)`, equal, in one unit of length for both axes
    (pixels, not fractions of width and height, unless images are square); values
    `y_pred.shape[:-1]`, in [0, 2.5] unless the predicted box is inverted: its sides count as 0.
    Sample weights and masks of that shape act on single boxes, and padded boxes may hold anything,
    even NaN. A batch without boxes, `(batch, 0, 4)`, has the value 0. A number beyond 1e30, even
    inf, counts as 1e30, without a gradient.

    Raises:
        ValueError: if `theta` or `format` is another one, if the last axis has not four entries, or
            if the shapes differ.

    Example: two unit squares, their centres 1 apart: along an axis, and in half of it by each.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[1.0, 0.0, 2.0, 1.0]])
    >>> round(float(cl.losses.SIoU()(y_true, y_pred)), 4)  # 1 + (1 - exp(-2 / 4)) / 2
    1.1967

    Limits: `IoU` where centres and sides are the same. Two boxes of size 0 cost 1 even if they are
    equal, as in all losses of boxes. Gevorgyan 2022, arXiv 2205.12740, whose angle cost `1 - 2
    sin^2(arcsin(|dy| / rho) - pi / 4)` is `2 |dx dy| / rho^2`, rho the distance of the centres.
    """

    def __init__(
        self, theta: float = 4.0, *, format: Format = "xyxy", **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(format, **kwargs)
        check_number("SIoU", "theta", theta, minimum=1)
        self.theta = theta

    def measure(self, x: Axis, y: Axis) -> Tensor:
        dx, dy = 0.5 * x.offset, 0.5 * y.offset
        # No gradient at dx = 0, the middle of the kink.
        g = 2 - 2 * ratio(magnitude(dx * dy), dx * dx + dy * dy)
        way = _price(g, dx, x) + _price(g, dy, y)
        shape = self._unlike(x) + self._unlike(y)
        return 1 - ratio(*areas(x, y)) + 0.5 * (way + shape)

    def _unlike(self, axis: Axis) -> Tensor:
        true, pred = ops.relu(axis.true), ops.relu(axis.pred)
        larger = true + ops.relu(pred - true)
        unlike = -ops.expm1(-ratio(magnitude(true - pred), larger))
        return unlike if self.theta == 1 else unlike**self.theta


def _price(g: Tensor, way: Tensor, axis: Axis) -> Tensor:
    """`1 - exp(-g way^2 / max(c^2, 1e-12))`, c the side of the enclosing box."""
    share = _share(way, axis)
    return -ops.expm1(-g * share * share)


def _miss(axis: Axis) -> Tensor:
    """The squared error of a side, as a share of that of the enclosing box."""
    share = _share(ops.relu(axis.true) - ops.relu(axis.pred), axis)
    return share * share


def _share(length: Tensor, axis: Axis) -> Tensor:
    """`length / max(c, 1e-6)`: squared later, since `c^4`, in the slope, may underflow."""
    return length / floored(ops.relu(axis.enclosing), 1e-6)
