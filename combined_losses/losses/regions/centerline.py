"""Losses of thinned masks, for vessels, roads and cracks."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.over import added_up
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.regions.base import (
    LogitsRegion,
    MaskArguments,
    spatial_axes,
)

__all__ = ["CenterlineDice"]


@keras.saving.register_keras_serializable("combined_losses")
class CenterlineDice(LogitsRegion):
    """One minus the harmonic mean of two overlaps: of each centre line with the other mask.

    `1 - 2 Tp Ts / (Tp + Ts)`. `Tp = (sum S(p) y + smooth) / (sum S(p) + smooth)` is the share of
    the predicted centre line that lies in the true mask, `Ts = (sum S(y) p + smooth) / (sum S(y) +
    smooth)` the share of the true centre line that lies in the predicted mask; `S` is a soft
    skeleton, made of repeated erosions and openings. The loss counts breaks in a vessel, not the
    pixels at its rim. Add it to `Dice` with a small weight (0.1 to 0.2 to begin with): with a large
    one the network can learn to draw lines that are not there.

    Args:
        iterations: the number of erosions, an integer of at least 1; at least the largest radius
            of a vessel in pixels. Default 3.
        smooth: added to numerator and denominator, in pixels, above 0. Default 1.0.
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        multilabel: whether the channels are independent of each other, as masks that may overlap:
            logits go through a sigmoid in each, and weights and missing labels are those of single
            entries. Default False: classes that exclude each other.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
            Void pixels are background in both masks.
        over: `"sample"` (default): a value for each sample; `"batch"`: one for all samples of all
            replicas. See `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, spatial..., channels)`, equal, in 2-D or 3-D; values
    `(batch,)`, in [0, 1], the mean over the channels. Weights and masks of pixels act inside.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: a line of one pixel with a gap; 4 of 5 true pixels are found, and no other.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.zeros((1, 5, 5, 1))
    >>> y_true[:, 2] = 1.0
    >>> y_pred = y_true.copy()
    >>> y_pred[:, 2, 2] = 0.0
    >>> loss = cl.losses.CenterlineDice(iterations=1, smooth=1e-6)
    >>> round(float(loss(y_true, y_pred)), 4)  # 1 - 2 * 0.8 / 1.8
    0.1111

    Shit et al. 2021 (CVPR), arXiv 2003.07311.
    """

    def __init__(
        self,
        iterations: int = 3,
        smooth: float = 1.0,
        *,
        from_logits: bool = False,
        ignore_value: float | None = None,
        **kwargs: Unpack[MaskArguments],
    ) -> None:
        super().__init__(from_logits=from_logits, ignore_value=ignore_value, **kwargs)
        if not is_integer(iterations) or iterations < 1:
            raise ValueError(
                "The argument `iterations` of CenterlineDice must be an integer of at least 1. "
                f"Received: {iterations!r}"
            )
        check_number("CenterlineDice", "smooth", smooth, minimum=0, exclusive=True)
        self.iterations = iterations
        self.smooth = smooth

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        if weight is not None:
            y_pred = ops.where(weight > 0, y_pred, ops.zeros_like(y_pred))
        of_pred = self._overlap(skeleton(y_pred, self.iterations), y_true, weight)
        of_true = self._overlap(skeleton(y_true, self.iterations), y_pred, weight)
        found, predicted, seen, true = added_up(self.over, *of_pred, *of_true)
        # The share of each centre line that lies in the other mask; both are above 0.
        precision = (found + self.smooth) / (predicted + self.smooth)
        recall = (seen + self.smooth) / (true + self.smooth)
        return ops.mean(1 - 2 * precision * recall / (precision + recall), axis=-1)

    def _overlap(self, line: Tensor, mask: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """How much of a centre line lies in a mask, and how much there is, `(batch, channels)`."""
        line = line if weight is None else line * weight
        axes = spatial_axes(mask)
        return ops.sum(line * mask, axis=axes), ops.sum(line, axis=axes)


def skeleton(mask: Tensor, iterations: int) -> Tensor:
    """The soft centre lines of a mask `(batch, spatial..., channels)`."""
    eroded = _erode(mask)
    line = ops.relu(mask - _dilate(eroded))
    for _ in range(iterations):
        mask, eroded = eroded, _erode(eroded)
        thin = ops.relu(mask - _dilate(eroded))
        line = line + ops.relu(thin - line * thin)
    return line


def _erode(mask: Tensor) -> Tensor:
    """The smallest of each pixel and its neighbours along the axes, inside the image."""
    eroded, *others = (backend.least_of_three(mask, axis) for axis in spatial_axes(mask))
    for along in others:
        eroded = backend.lesser(eroded, along)
    return eroded


def _dilate(mask: Tensor) -> Tensor:
    """The largest of the block of 3 pixels a side around each pixel, inside the image."""
    for axis in spatial_axes(mask):
        mask = backend.greatest_of_three(mask, axis)
    return mask
