"""Contours: masks compared by the distances of their pixels. Values of shape `(batch,)`."""

import math
from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.spacing import Spacing, check_spacing
from combined_losses._core.spacing import steps as steps_of
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses._numerics.distances import nearest_other, to_other_kind
from combined_losses._numerics.floats import weighted_mean
from combined_losses.losses.regions.base import (
    LogitsMasks,
    MultilabelArguments,
    probabilities,
    spatial_axes,
)

__all__ = ["HausdorffDistance", "SignedDistanceBoundary", "distance_maps", "signed_distance"]


class _Contour(LogitsMasks):
    """A loss that measures masks by the distances of their pixels (abstract).

    A subclass implements `distances(y_true, y_pred, steps)`: one number for each pixel, from the
    masks and the spacing of their spatial axes, in units of the largest.

    Args:
        spacing: how far neighbours are apart, see `signed_distance`.
        from_logits, multilabel, data_format, reduction, name, dtype: as in `LogitsMasks`.
    """

    has_channels = True
    target_kind: str | None = "shares"
    neutral_target = 0.0  # pixels of weight 0 are background, in the prediction too

    def __init__(
        self,
        from_logits: bool = False,
        *,
        spacing: Spacing = None,
        **kwargs: Unpack[MultilabelArguments],
    ) -> None:
        super().__init__(from_logits=from_logits, **kwargs)
        check_spacing(type(self).__name__, spacing)
        self.spacing = spacing

    def distances(self, y_true: Tensor, y_pred: Tensor, steps: list[float]) -> Tensor:
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
        steps = steps_of(type(self).__name__, self.spacing, rank - 2)
        # The distances are divided by the diagonal, so their unit does not matter.
        values = self.distances(y_true, y_pred, [step / max(steps) for step in steps])
        return weighted_mean(values, sample_weight, tuple(range(1, rank)))


def _squared_diagonal(masks: Tensor, steps: list[float]) -> Tensor:
    """Of an image `(batch, spatial..., channels)`."""
    sides = [ops.cast(ops.shape(masks)[axis], masks.dtype) for axis in spatial_axes(masks)]
    return sum(ops.square(step * side) for step, side in zip(steps, sides, strict=True))


@keras.saving.register_keras_serializable("combined_losses")
class SignedDistanceBoundary(_Contour):
    """The mean distance of the predicted mask from the true contour, with a sign.

    The mean of `y_pred * phi` over pixels and channels. Outside the true mask, `y_true > 0.5`,
    `phi` is the distance to it; inside, minus the distance to its rim (0 for the pixels of the
    rim); both divided by the image's diagonal, `sqrt(sum (spacing side)^2)`. The farther away a
    false positive is, the more it costs; overlap losses do not see that. Add it to one of those,
    with a small and growing weight (`weights={"boundary": cl.weightings.LinearRamp(1000)}`). The
    value may be negative, and is no measure of quality. Distances are exact and Euclidean, computed
    inside the graph.

    Args:
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        spacing: how far the centres of neighbouring pixels are apart: a number above 0 for each
            spatial axis, such as `[3.0, 1.0, 1.0]` for a volume of thick slices, or one for all.
            The unit does not matter. None (default): 1.
        precomputed: whether `y_true` holds the distances `phi`, as `cl.losses.distance_maps` gives
            them, instead of masks: nothing is then transformed in the step. Default False.
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
        ValueError: if an argument is outside its range, `spacing` has another length than there are
            spatial axes, or the shapes differ.

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

    def __init__(
        self,
        from_logits: bool = False,
        *,
        spacing: Spacing = None,
        precomputed: bool = False,
        **kwargs: Unpack[MultilabelArguments],
    ) -> None:
        super().__init__(from_logits, spacing=spacing, **kwargs)
        check_flag("SignedDistanceBoundary", "precomputed", precomputed)
        if precomputed and spacing is not None:
            raise ValueError(
                "With `precomputed=True` the targets of SignedDistanceBoundary are distances "
                "already, so `spacing` must be None: give it to `cl.losses.distance_maps`. "
                f"Received: spacing={spacing!r}"
            )
        self.precomputed = precomputed
        if precomputed:
            self.target_kind = None  # any numbers

    def distances(self, y_true: Tensor, y_pred: Tensor, steps: list[float]) -> Tensor:
        if self.precomputed:
            return y_pred * y_true
        inside = y_true > 0.5
        distance = ops.sqrt(to_other_kind(inside, spatial_axes(y_pred), steps))
        # In an empty or full mask the distance is 0 everywhere; the minimum keeps it 0.
        to_rim = ops.minimum(min(steps) - distance, 0.0)
        signed = ops.cast(ops.where(inside, to_rim, distance), y_pred.dtype)
        return y_pred * signed / ops.sqrt(_squared_diagonal(y_pred, steps))


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
        spacing: as in `SignedDistanceBoundary`. Default None: 1.
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
        self,
        alpha: float = 2.0,
        from_logits: bool = False,
        *,
        spacing: Spacing = None,
        **kwargs: Unpack[MultilabelArguments],
    ) -> None:
        super().__init__(from_logits, spacing=spacing, **kwargs)
        check_number("HausdorffDistance", "alpha", alpha, minimum=0, exclusive=True)
        self.alpha = alpha

    def distances(self, y_true: Tensor, y_pred: Tensor, steps: list[float]) -> Tensor:
        # Both masks in one pass, as a batch of twice the size.
        masks = ops.concatenate([y_pred > 0.5, y_true > 0.5], axis=0)
        squared = ops.cast(to_other_kind(masks, spatial_axes(masks), steps), y_pred.dtype)
        squared = squared / _squared_diagonal(y_pred, steps)
        powers = squared if self.alpha == 2 else ops.power(squared, self.alpha / 2)
        samples = ops.shape(y_pred)[0]
        return ops.square(y_pred - y_true) * (powers[:samples] + powers[samples:])


def signed_distance(
    mask: ArrayLike, axes: Sequence[int] | None = None, spacing: Spacing = None
) -> NDArray[np.float32]:
    """The distance of each pixel to the contour of a mask; negative inside.

    Outside the mask it is the distance to the nearest pixel of the mask; inside it is minus the
    distance to the rim, that is, the smallest spacing minus the distance to the nearest pixel
    outside. It is the `phi` of `SignedDistanceBoundary` before the division by the diagonal: NumPy
    in and NumPy out, for data pipelines. See `distance_maps` for what to store with the data.

    Args:
        mask: an array of booleans or numbers; a pixel is inside if it is above 0.5.
        axes: the axes of one image. Default None: all of an array of rank 1 to 3, such as
            `(height, width)`; all but the first and the last of one of higher rank, such as
            `(batch, height, width, channels)`.
        spacing: how far the centres of neighbouring pixels are apart: a number above 0 for each of
            `axes`, or one for all. Default None: 1, so distances are in pixels.

    Returns:
        A float32 array of the shape of `mask`, exact (Euclidean), in the unit of `spacing`; 0 where
        a mask is empty or full.

    Raises:
        ValueError: if the mask has no axis, `axes` is empty or names an axis that it lacks, or
            `spacing` has another length or a number that is not above 0.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> cl.losses.signed_distance(np.array([[0, 1, 1, 1, 0, 0]])).tolist()
    [[1.0, 0.0, -1.0, 0.0, 1.0, 2.0]]

    Limit: `scipy.ndimage.distance_transform_edt(sampling=spacing)`. Kervadec et al. 2019, arXiv
    1812.07032, whose code subtracts 1 inside, whatever the spacing is.
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
    check_spacing("signed_distance", spacing)
    steps = steps_of("signed_distance", spacing, len(axes))
    return _signed(inside, tuple(axis % rank for axis in axes), steps).astype("float32")


def _signed(
    inside: NDArray[np.bool_], axes: tuple[int, ...], steps: list[float]
) -> NDArray[np.float64]:
    # In units of the largest spacing no square overflows.
    unit = max(steps)
    relative = [step / unit for step in steps]
    distance = np.sqrt(nearest_other(inside, axes, relative))
    return unit * np.where(inside, np.minimum(min(relative) - distance, 0), distance)


def distance_maps(mask: ArrayLike, spacing: Spacing = None) -> NDArray[np.float32]:
    """The targets of `SignedDistanceBoundary(precomputed=True)`, from masks.

    `signed_distance` of each sample and channel, divided by the diagonal of an image. Make them
    once, and store them with the data, where masks do not change between epochs: the loss then has
    nothing to transform.

    Args:
        mask: an array `(batch, spatial..., channels)` of booleans or numbers, of rank 3 or more; a
            pixel is inside if it is above 0.5.
        spacing: as in `SignedDistanceBoundary`. Default None: 1.

    Returns:
        A float32 array of the shape of `mask`; 0 where a mask is empty or full.

    Raises:
        ValueError: if the mask has fewer axes, or `spacing` does not fit.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> mask = np.array([[1, 0, 0, 0]]).reshape(1, 1, 4, 1)
    >>> maps = cl.losses.distance_maps(mask)
    >>> [round(number, 4) for number in maps.ravel().tolist()]  # 0 to 3, over sqrt(17)
    [0.0, 0.2425, 0.4851, 0.7276]
    >>> loss = cl.losses.SignedDistanceBoundary(precomputed=True)
    >>> y_pred = np.full((1, 1, 4, 1), 0.5)
    >>> float(loss(maps, y_pred)) == float(cl.losses.SignedDistanceBoundary()(mask, y_pred))
    True

    Kervadec et al. 2019, arXiv 1812.07032.
    """
    mask = np.asarray(mask)
    inside = mask if mask.dtype == bool else mask > 0.5
    if inside.ndim < 3:
        raise ValueError(
            "The argument `mask` of distance_maps must be an array (batch, spatial..., channels), "
            f"of rank 3 or more. Received: a mask of shape {inside.shape}"
        )
    check_spacing("distance_maps", spacing)
    axes = tuple(range(1, inside.ndim - 1))
    steps = steps_of("distance_maps", spacing, len(axes))
    relative = [step / max(steps) for step in steps]
    diagonal = math.hypot(*(s * inside.shape[a] for s, a in zip(relative, axes, strict=True)))
    return (_signed(inside, axes, relative) / diagonal).astype("float32")
