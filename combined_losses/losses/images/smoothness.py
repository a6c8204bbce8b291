"""Images and displacements without a target: how smooth they are."""

import itertools
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import at_least
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.spacing import Spacing, check_spacing, steps
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.distances import part
from combined_losses._numerics.edges import edges, mean_edge

__all__ = ["BendingEnergy", "Diffusion", "TotalVariation"]


@keras.saving.register_keras_serializable("combined_losses")
class TotalVariation(ChannelLoss):
    """How rough a field is: the mean absolute difference of neighbours, summed over the axes.

    The sum over the spatial axes of `mean |p[i + 1] - p[i]|` along that axis. It reads no target:
    `y_true` is ignored, and may be None. Add it, with a small weight, where predictions shall be
    smooth but may have edges: a step costs no more than a ramp of the same height.

    Args:
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, spatial..., channels)` of one to three spatial axes: signals, images
    or volumes; `y_true` any. Values `(batch,)`, of at least 0, in units of the field per pixel,
    whatever the size of the image. An axis of length 1 contributes 0.

    Raises:
        ValueError: if `y_pred` has another number of axes.

    Example: a step of height 1 between two of four columns.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> step = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1)).reshape(1, 3, 4, 1)
    >>> round(float(cl.losses.TotalVariation()(None, step)), 4)
    0.3333

    Limits: `tf.image.total_variation` and torchmetrics take sums instead of means, so the right
    weight there depends on the size of the image. The gradient is 0 inside every flat area.

    Rudin, Osher & Fatemi 1992 (Physica D 60); this is the anisotropic form.
    """

    same_shape = False
    has_channels = True
    needs_target = False

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        axes = _spatial_axes(self, y_pred)
        return sum(mean_edge(edges(y_pred, axis)) for axis in axes)


class _Displacement(ChannelLoss):
    """A loss of displacements alone (abstract).

    Args:
        spacing: how far the centres of neighbouring pixels are apart.
        data_format, reduction, name, dtype: as in `ChannelLoss`.
    """

    same_shape = False
    has_channels = True
    needs_target = False

    def __init__(self, *, spacing: Spacing = None, **kwargs: Unpack[ChannelArguments]) -> None:
        super().__init__(**kwargs)
        check_spacing(type(self).__name__, spacing)
        self.spacing = spacing


@keras.saving.register_keras_serializable("combined_losses")
class BendingEnergy(_Displacement):
    """How much a displacement bends space: the mean square of its second derivatives.

    The mean over positions and components of `sum_a (x[+a] - 2 x + x[-a])^2 / h_a^4 + 2 sum_{a<b}
    ((x[+a+b] - x[+a-b] - x[-a+b] + x[-a-b]) / (4 h_a h_b))^2`, for the spatial axes a, b with the
    spacings h. It reads no target: `y_true` is ignored, and may be None. Add it with a small weight
    to the similarity of two images that a network registers: shifts, turns and stretches cost
    nothing, folds and kinks much.

    Args:
        spacing: how far the centres of neighbouring pixels are apart: a number above 0 for each
            spatial axis, or one for all. None (default): 1.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, spatial..., components)` of one to three spatial axes, each of at
    least 3: a displacement has one component for each axis. `y_true` any. Values `(batch,)`, of at
    least 0: the mean is over the positions that have neighbours along every axis.

    Raises:
        ValueError: if an argument is outside its range, `y_pred` has another number of axes, or a
            side is shorter than 3.

    Example: a displacement that grows evenly, as in a stretch, and one that grows faster and
    faster.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> x = np.arange(6.0).reshape(1, 6, 1)
    >>> loss = cl.losses.BendingEnergy()
    >>> round(float(loss(None, 0.1 * x)), 4), round(float(loss(None, 0.1 * x**2)), 4)
    (0.0, 0.04)

    Limits: 0 for affine displacements. MONAI 1.6.1 agrees. Older versions of it take central
    differences of central differences: the same for quadratic fields, but blind to a chessboard.

    Rueckert et al. 1999 (IEEE Transactions on Medical Imaging 18).
    """

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        axes = _spatial_axes(self, y_pred)
        apart = dict(zip(axes, steps("BendingEnergy", self.spacing, len(axes)), strict=True))
        message = (
            "BendingEnergy needs fields of at least 3 pixels a side, for second differences. "
            f"Received: y_pred of shape {tuple(y_pred.shape)}"
        )
        y_pred = at_least(y_pred, axes, 3, message)
        total = 0.0
        for axis in axes:
            bend = _inside(y_pred, [a for a in axes if a != axis])
            bend = _step(_step(bend, axis), axis)  # (x[+a] - x) - (x - x[-a])
            total = total + _mean_square(bend) / apart[axis] ** 4
        for a, b in itertools.combinations(axes, 2):
            twist = _inside(y_pred, [axis for axis in axes if axis not in (a, b)])
            twist = _step(_step(twist, a, 2), b, 2)
            total = total + 2 * _mean_square(twist) / (4 * apart[a] * apart[b]) ** 2
        return total


@keras.saving.register_keras_serializable("combined_losses")
class Diffusion(_Displacement):
    """How unevenly a displacement moves neighbours: the mean square of its slopes.

    The sum over the spatial axes a of `mean ((x[i + 1] - x[i]) / h_a)^2` along that axis, with the
    spacings h. It reads no target: `y_true` is ignored, and may be None. Add it with a small weight
    to the similarity of two images that a network registers. Unlike `BendingEnergy` it prices turns
    and stretches too, and pulls every displacement towards a shift.

    Args:
        spacing: how far the centres of neighbouring pixels are apart: a number above 0 for each
            spatial axis, or one for all. None (default): 1.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, spatial..., components)` of one to three spatial axes; `y_true` any.
    Values `(batch,)`, of at least 0. An axis of length 1 contributes 0.

    Raises:
        ValueError: if an argument is outside its range, or `y_pred` has another number of axes.

    Example: a shift, and a stretch by a tenth along one of two axes.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> row, column = np.indices((4, 4))
    >>> shift, stretch = np.zeros((2, 1, 4, 4, 2)) + 3.0
    >>> stretch[0, ..., 1] += 0.1 * column
    >>> loss = cl.losses.Diffusion()
    >>> float(loss(None, shift)), round(float(loss(None, stretch)), 4)
    (0.0, 0.005)

    Limits: VoxelMorph's `Grad("l2")` is this divided by the number of axes. MONAI's takes central
    differences, the same for affine fields.

    Balakrishnan et al. 2019, arXiv 1809.05231.
    """

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        axes = _spatial_axes(self, y_pred)
        apart = steps("Diffusion", self.spacing, len(axes))
        return sum(
            mean_edge(ops.square(_step(y_pred, axis))) / step**2
            for axis, step in zip(axes, apart, strict=True)
        )


# What the losses share.


def _spatial_axes(loss: ChannelLoss, y_pred: Tensor) -> tuple[int, ...]:
    """The axes of a field between the first and the last."""
    rank = len(y_pred.shape)
    if not 3 <= rank <= 5:
        raise ValueError(
            f"{type(loss).__name__} needs fields (batch, spatial..., channels) with one to three "
            "spatial axes: give fields of one channel an axis for it. "
            f"Received: y_pred of shape {tuple(y_pred.shape)}"
        )
    return tuple(range(1, rank - 1))


def _step(field: Tensor, axis: int, size: int = 1) -> Tensor:
    """The difference of pixels that are `size` apart along an axis."""
    return part(field, axis, size, None) - part(field, axis, None, -size)


def _inside(field: Tensor, axes: list[int]) -> Tensor:
    """Without the first and the last pixel along some axes."""
    for axis in axes:
        field = part(field, axis, 1, -1)
    return field


def _mean_square(field: Tensor) -> Tensor:
    return ops.mean(ops.square(field), axis=tuple(range(1, len(field.shape))))
