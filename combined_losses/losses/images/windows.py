"""Images and volumes under a window that stays inside: where it sees pixels that count."""

import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._core.checks import at_least
from combined_losses._core.loss import ChannelLoss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, weighted_mean
from combined_losses.losses.images.blur import blurred, has_channels_first

# A window that sees less than this share of the largest weight of its image is left out.
_LEAST = 1e-6


class Windows:
    """All positions of a window in images, or in what counts of them (final).

    Args:
        window: the factors along each spatial axis, which sum to 1.
        weight: how much each pixel and channel counts, laid out as the images; None: 1.
    """

    def __init__(self, window: NDArray[np.float64], weight: Tensor | None = None) -> None:
        self._window = window
        self._weight = weight
        self._total = None
        if weight is not None:
            (total,) = blurred([weight], window)
            axes = tuple(range(1, len(weight.shape)))
            largest = ops.max(weight, axis=axes, keepdims=True, initial=0.0)
            least = _LEAST * of_positions(largest, total)
            self._total = ops.where(total > least, total, 0.0)

    def means(self, images: list[Tensor]) -> list[Tensor]:
        """The mean of each of some images at each position; 0 where none of its pixels counts."""
        if self._weight is None:
            return blurred(images, self._window)
        weighted = [self._weight * image for image in images]
        return [div(mean, self._total) for mean in blurred(weighted, self._window)]

    def centre(self, image: Tensor) -> Tensor:
        """The mean of what counts in each image and channel, without a gradient.

        In float32 a variance is what remains when the square of the mean is subtracted. Far from 0
        that is nothing, so subtract this first: no variance changes with it.
        """
        first = 2 if has_channels_first() else 1
        axes = tuple(range(first, first + len(image.shape) - 2))
        return ops.stop_gradient(weighted_mean(image, self._weight, axes, keepdims=True))

    def average(self, values: Tensor) -> Tensor:
        """The mean over positions and channels, weighted by what each window sees: `(batch,)`."""
        axes = tuple(range(1, len(values.shape)))
        if self._total is None:
            return ops.mean(values, axis=axes)
        seen = ops.sum(self._total * values, axis=axes)
        return div(seen, ops.sum(self._total, axis=axes))


def of_positions(numbers: Tensor, positions: Tensor) -> Tensor:
    """Numbers of images beside those of positions, which have an axis less for volumes on JAX."""
    joined = len(numbers.shape) > len(positions.shape)
    return ops.squeeze(numbers, axis=-1) if joined else numbers


def laid_out(
    loss: ChannelLoss, arrays: list[Tensor], side: int, cure: str, volumes: bool = True
) -> list[Tensor]:
    """Images, or volumes, in the order of `blurred`.

    Args:
        loss: named in errors.
        arrays: of the same rank: truth, prediction, and perhaps weights.
        side: how long their sides must be at least.
        cure: the advice in the error.
        volumes: whether they may have three spatial axes.
    """
    shape = tuple(arrays[1].shape)
    rank, owner = len(shape), type(loss).__name__
    if rank not in ((3, 4, 5) if volumes else (3, 4)):
        more = ", or volumes (batch, depth, height, width, channels)" * volumes
        raise ValueError(
            f"{owner} compares images (batch, height, width, channels), or (batch, "
            f"height, width) of one channel{more}. Received: y_pred of shape {shape}"
        )
    axes = range(1, max(rank - 1, 3))
    smallest = min((shape[axis] for axis in axes if shape[axis] is not None), default=None)
    found = f", and the smallest side of these has {smallest}" * (smallest is not None)
    message = (
        f"{owner} needs images of at least {side} pixels a side{found}: {cure}. "
        f"Received: y_pred of shape {shape}"
    )
    # Check both images: if only one were checked, TensorFlow could fail on the other one first,
    # with a message of its own.
    arrays = [at_least(array, axes, side, message) for array in arrays]
    if rank == 3:
        arrays = [ops.expand_dims(array, -1) for array in arrays]
    if has_channels_first():
        arrays = [ops.moveaxis(array, -1, 1) for array in arrays]
    return arrays
