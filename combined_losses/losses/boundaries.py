"""Boundaries: the edges of fields. Values of shape `(batch,)`."""

from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._core.checks import are_finite, at_least
from combined_losses._core.data_format import Format, channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses._numerics.edges import edges, mean_edge
from combined_losses._numerics.floats import magnitude

__all__ = ["BoundaryDisagreement", "SobelEdge"]


@keras.saving.register_keras_serializable("combined_losses")
class BoundaryDisagreement(ChannelLoss):
    """How far the edge strengths of two fields differ, along given axes.

    For each axis the mean of `| |d y_true| - |d y_pred| |`, where `d` is the difference of
    neighbours along that axis; then the mean over the axes. It sees only the strength of edges: a
    constant offset and an inverted contrast cost nothing, and a flat prediction has gradient 0. So
    do not train on it alone, but add it to a pixel or region loss.

    Args:
        axes: the spatial axes of the arrays as they are given, a sequence of integers, never the
            batch axis 0. Default None: height and width by `data_format`, `(1, 2)` of `(batch,
            height, width, channels)`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `(batch,)`, in units of the field.
    An axis of length 1 contributes 0.

    Raises:
        ValueError: if `axes` is empty, holds 0 or an axis that the arrays do not have, or if the
            shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> step = np.array([0.0, 0.0, 1.0, 1.0]).reshape(1, 4, 1)
    >>> loss = cl.losses.BoundaryDisagreement(axes=(1,))
    >>> round(float(loss(step, np.zeros((1, 4, 1)))), 4)
    0.3333
    >>> float(loss(step, 1.0 - step))
    0.0

    Limit: against a flat truth with two axes it is half the mean total variation of `y_pred`
    (Rudin, Osher & Fatemi 1992).
    """

    _least_rank = 4  # (batch, height, width) are images without channels

    def __init__(
        self, axes: Sequence[int] | None = None, **kwargs: Unpack[ChannelArguments]
    ) -> None:
        super().__init__(**kwargs)
        sequence = isinstance(axes, (tuple, list)) and len(axes)
        if axes is not None and (not sequence or any(_not_spatial(axis) for axis in axes)):
            raise ValueError(
                "The argument `axes` of BoundaryDisagreement must be None or a non-empty sequence "
                "of integers other than the batch axis 0, for example (1, 2) for images. "
                f"Received: {axes!r}"
            )
        self.axes = axes

    @property
    def formats(self) -> list[Format]:
        # With given axes nothing is moved, because they count the axes of the arrays as they are.
        return super().formats if self.axes is None else []

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        rank = len(y_pred.shape)
        axes = (1, 2) if self.axes is None else self.axes
        axes = [axis + rank if axis < 0 else axis for axis in axes]
        if any(not 0 < axis < rank for axis in axes):
            raise ValueError(
                f"The argument `axes` of BoundaryDisagreement must name axes of arrays of rank "
                f"{rank}. Received: axes={self.axes!r} and y_pred of shape {tuple(y_pred.shape)}"
            )
        total = 0.0
        for axis in axes:
            total = total + mean_edge(magnitude(edges(y_true, axis) - edges(y_pred, axis)))
        return total / len(axes)


def _not_spatial(axis: object) -> bool:
    return isinstance(axis, bool) or not isinstance(axis, int) or axis == 0


_SOBEL = ((-1 / 8, 0.0, 1 / 8), (-2 / 8, 0.0, 2 / 8), (-1 / 8, 0.0, 1 / 8))


@keras.saving.register_keras_serializable("combined_losses")
class SobelEdge(ChannelLoss):
    """The mean absolute difference of two images' edges, as a small kernel finds them.

    The mean of `|K * (y_pred - y_true)|` over positions and channels, for the kernel `K` and its
    transpose, without padding, so that no edges are invented at the border. Use it beside a pixel
    loss if blurred edges are what you fear. A constant offset costs nothing.

    Args:
        kernel: None (default): Sobel's, divided by 8 so that it measures the slope per pixel; or
            a kernel of your own, a matrix of finite numbers that finds edges along the width. Its
            transpose finds those along the height.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, equal, at least as large as
    the kernel; values `(batch,)`, in units of the image per pixel.

    Raises:
        ValueError: if `kernel` is no matrix of finite numbers, or the images are smaller than it.

    Example: a ramp of 2 per pixel along the width, and of 0 along the height, against a flat image.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> ramp = np.tile(np.arange(0.0, 10.0, 2.0), (5, 1)).reshape(1, 5, 5, 1)
    >>> float(cl.losses.SobelEdge()(ramp, np.zeros((1, 5, 5, 1))))
    1.0

    Sobel & Feldman 1968. Limit: `scipy.ndimage.sobel(...) / 8` away from the border.
    """

    has_channels = True
    _least_rank = 4

    def __init__(self, kernel: ArrayLike | None = None, **kwargs: Unpack[ChannelArguments]) -> None:
        super().__init__(**kwargs)
        self.kernel = kernel
        self._kernel = np.asarray(_SOBEL if kernel is None else _matrix(kernel))

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        smallest = max(self._kernel.shape)
        shape = tuple(y_pred.shape)
        message = (
            "SobelEdge compares images (batch, height, width, channels), each side at least "
            f"{smallest}, the size of its kernel. Received: y_pred of shape {shape}"
        )
        if len(shape) != 4:
            raise ValueError(message)
        difference = at_least(y_pred, (1, 2), smallest, message) - y_true
        responses = [_correlated(difference, kernel) for kernel in (self._kernel, self._kernel.T)]
        means = [ops.mean(magnitude(response), axis=(1, 2, 3)) for response in responses]
        return (means[0] + means[1]) / 2


def _matrix(kernel: ArrayLike) -> NDArray[np.float64]:
    """A kernel as an array; raises if it is no matrix of finite numbers."""
    try:
        matrix = np.asarray(kernel, "float64")
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    if matrix.ndim != 2 or not np.any(matrix) or not are_finite(matrix):
        raise ValueError(
            "The argument `kernel` of SobelEdge must be None or a matrix of finite numbers, "
            f"not all of them 0, for example [[-1.0, 0.0, 1.0]]. Received: {kernel!r}"
        )
    return matrix


def _correlated(image: Tensor, kernel: NDArray[np.float64]) -> Tensor:
    """An image correlated with a kernel, at all places where the kernel lies inside."""
    height, width = (ops.shape(image)[1 + axis] - kernel.shape[axis] + 1 for axis in (0, 1))
    return sum(
        float(factor) * image[:, row : row + height, column : column + width]
        for (row, column), factor in np.ndenumerate(kernel)
        if factor
    )
