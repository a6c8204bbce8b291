"""Boxes by what they share: four losses that are 0 where two boxes are the same."""

import math

import keras
from keras import ops

from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.boxes.base import Axis, Box, areas, distance, floored, ratio

__all__ = ["CIoU", "DIoU", "GIoU", "IoU"]


@keras.saving.register_keras_serializable("combined_losses")
class IoU(Box):
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

    def measure(self, x: Axis, y: Axis) -> Tensor:
        intersection, union = areas(x, y)
        return 1 - ratio(intersection, union)


@keras.saving.register_keras_serializable("combined_losses")
class GIoU(Box):
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

    def measure(self, x: Axis, y: Axis) -> Tensor:
        intersection, union = areas(x, y)
        enclosing = ops.relu(x.enclosing) * ops.relu(y.enclosing)
        return 1 - ratio(intersection, union) + ratio(enclosing - union, enclosing)


@keras.saving.register_keras_serializable("combined_losses")
class DIoU(Box):
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

    def measure(self, x: Axis, y: Axis) -> Tensor:
        return distance(x, y)[0]


@keras.saving.register_keras_serializable("combined_losses")
class CIoU(Box):
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

    def measure(self, x: Axis, y: Axis) -> Tensor:
        value, iou = distance(x, y)
        sides = (x.true, y.true, x.pred, y.pred)
        wt, ht, wp, hp = (floored(side, 1e-7) for side in sides)
        # The difference of the two angles is the angle between the vectors (ht, wt) and (hp, wp),
        # whose tangent is their cross product over their inner product. Both angles lie between 0
        # and pi / 2, so their difference does not wrap around.
        angle = ops.arctan2(wt * hp - wp * ht, wt * wp + ht * hp)
        v = (4 / math.pi**2) * angle * angle
        fixed = ops.stop_gradient(v)
        alpha = fixed / floored(1 - ops.stop_gradient(iou) + fixed, 1e-12)
        return value + alpha * v
