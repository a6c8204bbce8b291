"""Boundaries: edges and contours of fields. Values of shape `(batch,)`."""

from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._core.checks import are_finite, at_least, check_number
from combined_losses._core.data_format import Format, channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses._numerics.distances import nearest_other, to_other_kind
from combined_losses._numerics.edges import edges, mean_edge
from combined_losses._numerics.floats import magnitude, weighted_mean
from combined_losses.losses.regions.base import (
    LogitsMasks,
    MultilabelArguments,
    probabilities,
    spatial_axes,
)

__all__ = [
    "BoundaryDisagreement",
    "HausdorffDistance",
    "SignedDistanceBoundary",
    "SobelEdge",
    "signed_distance",
]


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


class _Contour(LogitsMasks):
    """A loss that measures masks by the distances of their pixels (abstract).

    A subclass implements `distances(y_true, y_pred, axes, diagonal)`: one number for each pixel,
    from the masks, their spatial axes and the diagonal of an image in pixels.
    """

    has_channels = True
    target_kind = "shares"
    neutral_target = 0.0  # pixels of weight 0 are background, in the prediction too

    def distances(
        self, y_true: Tensor, y_pred: Tensor, axes: tuple[int, ...], diagonal: Tensor
    ) -> Tensor:
        raise NotImplementedError

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        rank = len(y_pred.shape)
        if rank < 3:
            raise ValueError(
                f"{type(self).__name__} compares masks (batch, spatial..., channels), of rank 3 or "
                f"more. Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        if self.from_logits:
            y_pred = probabilities(y_pred, self.multilabel)
        if sample_weight is not None:
            y_pred = ops.where(sample_weight > 0, y_pred, 0.0)
        axes = spatial_axes(y_pred)
        sides = [ops.cast(ops.shape(y_pred)[axis], y_pred.dtype) for axis in axes]
        diagonal = ops.sqrt(sum(ops.square(side) for side in sides))
        values, all_axes = self.distances(y_true, y_pred, axes, diagonal), (*axes, rank - 1)
        return weighted_mean(values, sample_weight, all_axes)


@keras.saving.register_keras_serializable("combined_losses")
class SignedDistanceBoundary(_Contour):
    """The mean distance of the predicted mask from the true contour, with a sign.

    The mean of `y_pred * phi` over pixels and channels. Outside the true mask, `y_true > 0.5`,
    `phi` is the distance to it; inside, minus the distance to its rim (0 for the pixels of the
    rim); both divided by the image's diagonal. The farther away a false positive is, the more it
    costs; overlap losses do not see that. Add it to one of those, with a small and growing weight
    (`weights={"boundary": cl.weightings.LinearRamp(1000)}`). The value may be negative, and is no
    measure of quality. Distances are exact and Euclidean, computed inside the graph.

    Args:
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        multilabel: whether the channels are independent of each other, as masks that may overlap:
            logits go through a sigmoid in each, and weights and missing labels are those of single
            entries. Default False: classes that exclude each other.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, spatial..., channels)`, equal, 2-D or 3-D; values
    `(batch,)`, in diagonals of the image. A channel whose truth is empty or full gives 0 with
    gradient 0: pair it with a region loss. Weights and masks of pixels act inside the mean; pixels
    of weight 0 are background.

    Raises:
        ValueError: if `from_logits` is no flag, or the shapes differ.

    Example: a false positive two pixels away from the only true pixel, which lies on the rim.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([[1.0, 0.0, 0.0, 0.0]]).reshape(1, 1, 4, 1)
    >>> y_pred = np.array([[1.0, 0.0, 1.0, 0.0]]).reshape(1, 1, 4, 1)
    >>> loss = cl.losses.SignedDistanceBoundary()
    >>> round(float(loss(y_true, y_pred)), 4)  # 2 / sqrt(17) / 4
    0.1213

    Kervadec et al. 2019, arXiv 1812.07032.
    """

    def distances(
        self, y_true: Tensor, y_pred: Tensor, axes: tuple[int, ...], diagonal: Tensor
    ) -> Tensor:
        inside = y_true > 0.5
        distance = ops.sqrt(to_other_kind(inside, axes))
        # In an empty or full mask the distance is 0 everywhere; the minimum keeps it 0.
        to_rim = ops.minimum(1 - distance, 0.0)
        return y_pred * ops.cast(ops.where(inside, to_rim, distance), y_pred.dtype) / diagonal


@keras.saving.register_keras_serializable("combined_losses")
class HausdorffDistance(_Contour):
    """The squared error of each pixel, weighted by its distance from both contours.

    The mean of `(p - y)^2 (d_p^alpha + d_y^alpha)` over pixels and channels. `d_p` is the distance
    to the nearest pixel of the other kind in the mask `p > 0.5`, `d_y` that in `y > 0.5`, both
    divided by the image's diagonal. The Hausdorff distance itself, the largest distance between two
    contours, depends on a single pixel; this loss approximates it, so far-off islands and missed
    parts dominate. Distances are exact and Euclidean, computed inside the graph, without a
    gradient. Add it to a region loss.

    Args:
        alpha: the power of the distance, above 0. Default 2.0; with a larger one only the farthest
            pixels matter.
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        multilabel: whether the channels are independent of each other, as masks that may overlap:
            logits go through a sigmoid in each, and weights and missing labels are those of single
            entries. Default False: classes that exclude each other.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, spatial..., channels)`, equal, 2-D or 3-D; values
    `(batch,)`, of at least 0. The distances of an empty or full mask are 0: if the truth is empty
    and no prediction is above 0.5, the loss is 0 with gradient 0, so pair it with a region loss.
    Weights and masks of pixels act inside the mean; pixels of weight 0 are background.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: one of two true pixels is missed.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([[1.0, 1.0, 0.0, 0.0]]).reshape(1, 1, 4, 1)
    >>> y_pred = np.array([[1.0, 0.0, 0.0, 0.0]]).reshape(1, 1, 4, 1)
    >>> loss = cl.losses.HausdorffDistance(alpha=1.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # (1 + 1) / sqrt(17) / 4
    0.1213

    Karimi & Salcudean 2019, arXiv 1904.10030.
    """

    def __init__(
        self, alpha: float = 2.0, from_logits: bool = False, **kwargs: Unpack[MultilabelArguments]
    ) -> None:
        super().__init__(from_logits=from_logits, **kwargs)
        check_number("HausdorffDistance", "alpha", alpha, minimum=0, exclusive=True)
        self.alpha = alpha

    def distances(
        self, y_true: Tensor, y_pred: Tensor, axes: tuple[int, ...], diagonal: Tensor
    ) -> Tensor:
        # Both masks in one pass, as a batch of twice the size.
        masks = ops.concatenate([y_pred > 0.5, y_true > 0.5], axis=0)
        squared = ops.cast(to_other_kind(masks, axes), y_pred.dtype) / ops.square(diagonal)
        powers = squared if self.alpha == 2 else ops.power(squared, self.alpha / 2)
        samples = ops.shape(y_pred)[0]
        return ops.square(y_pred - y_true) * (powers[:samples] + powers[samples:])


def signed_distance(mask: ArrayLike, axes: Sequence[int] | None = None) -> NDArray[np.float32]:
    """The distance of each pixel to the contour of a mask, in pixels; negative inside.

    Outside the mask it is the distance to the nearest pixel of the mask; inside it is minus the
    distance to the rim, that is, 1 minus the distance to the nearest pixel outside. It is the `phi`
    of `SignedDistanceBoundary` before the division by the diagonal: NumPy in and NumPy out, for
    data pipelines that store it with the data.

    Args:
        mask: an array of booleans or numbers; a pixel is inside if it is above 0.5.
        axes: the axes of one image. Default None: all of an array of rank 1 to 3, such as
            `(height, width)`; all but the first and the last of one of higher rank, such as
            `(batch, height, width, channels)`.

    Returns:
        A float32 array of the shape of `mask`, exact (Euclidean); 0 where a mask is empty or full.

    Raises:
        ValueError: if the mask has no axis, or `axes` is empty or names an axis that it lacks.

    Example:

    >>> import numpy as np
    >>> from combined_losses.losses.boundaries import signed_distance
    >>> signed_distance(np.array([[0, 1, 1, 1, 0, 0]])).tolist()
    [[1.0, 0.0, -1.0, 0.0, 1.0, 2.0]]

    Limit: `scipy.ndimage.distance_transform_edt`. Kervadec et al. 2019, arXiv 1812.07032.
    """
    mask = np.asarray(mask)
    inside = mask if mask.dtype == bool else mask > 0.5
    rank = inside.ndim
    if axes is None:
        axes = tuple(range(rank)) if rank < 4 else tuple(range(1, rank - 1))
    if not rank or not axes or any(not -rank <= axis < rank for axis in axes):
        raise ValueError(
            f"The argument `axes` of signed_distance must name axes of the mask, at least one. "
            f"Received: axes={axes!r} and a mask of shape {inside.shape}"
        )
    distance = np.sqrt(nearest_other(inside, tuple(axis % rank for axis in axes)))
    return np.where(inside, np.minimum(1 - distance, 0), distance).astype("float32")
