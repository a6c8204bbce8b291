"""Images and volumes blurred by a separable window; images at half their size."""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor


def has_channels_first() -> bool:
    """Whether images have the channels before the rows here, which matrix products need."""
    return bool(keras.config.backend() == "jax")


def halved(images: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; along an odd side the last window is one pixel wide."""
    return backend.halved(images, has_channels_first())


def gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """A Gaussian of `size` numbers that sum to 1; the window is the product of two of them."""
    # Subtracting the smallest square makes the largest number 1, so that not all are rounded to 0;
    # the division by the sum removes that factor. A deviation below 1e-3 gives the same window as
    # 1e-3: the nearest pixels only.
    squares = (np.arange(size) - (size - 1) / 2) ** 2
    window = np.exp((squares.min() - squares) / (2 * max(sigma, 1e-3) ** 2))
    normalised: NDArray[np.float64] = window / window.sum()
    return normalised


def box(size: int) -> NDArray[np.float64]:
    """`size` equal numbers that sum to 1."""
    return np.full(size, 1 / size)


def blurred(images: list[Tensor], window: NDArray[np.float64]) -> list[Tensor]:
    """Each of `images` blurred by a separable window, at all places where it lies inside.

    They are images or volumes; `has_channels_first` says where their channels are.

    Depthwise convolutions are the fastest way, except for XLA on a CPU, where matrix products take
    a tenth of their time.
    """
    if has_channels_first():
        return [_multiplied(image, window) for image in images]
    if len(images) == 1:
        return [_convolved(images[0], window)]
    joined = _convolved(ops.concatenate(images, axis=-1), window)
    return list(ops.split(joined, len(images), axis=-1))


def _convolved(images: Tensor, window: NDArray[np.float64]) -> Tensor:
    """Images blurred, or volumes: their planes, and then the columns that go through the planes."""
    if len(images.shape) == 4:
        return backend.blurred(images, window)
    batch, depth, height, width, channels = ops.shape(images)
    planes = ops.reshape(images, (batch * depth, height, width, channels))
    planes = backend.blurred(planes, window)
    _, height, width, _ = ops.shape(planes)
    columns = ops.reshape(planes, (batch, depth, height * width, channels))
    columns = backend.blurred(columns, window, upright=True)
    return ops.reshape(columns, (batch, ops.shape(columns)[1], height, width, channels))


def _multiplied(image: Tensor, window: NDArray[np.float64]) -> Tensor:
    """The image blurred, with its spatial axes in another order, which changes no mean over all."""
    if len(image.shape) == 4:
        return _along_last(ops.swapaxes(_along_last(image, window), 2, 3), window)
    batch, channels, depth, height, width = image.shape
    planes = ops.reshape(image, (batch, channels * depth, height, width))
    planes = _multiplied(planes, window)
    width, height = planes.shape[2:]
    columns = ops.reshape(planes, (batch, channels, depth, width * height))
    return _along_last(ops.swapaxes(columns, 2, 3), window)


def _along_last(rows: Tensor, window: NDArray[np.float64]) -> Tensor:
    """Rows blurred along the last axis: cut into blocks that overlap by a rim, times a band matrix.

    The rim is what the last window of a block needs beyond it.
    """
    rim = len(window) - 1
    block = max(32, rim)
    band = np.zeros((block + rim, block), "float32")
    for column in range(block):
        band[column : column + rim + 1, column] = window
    *shape, size = rows.shape
    count = -(-(size - rim) // block)
    rows = ops.pad(rows, [(0, 0)] * 3 + [(0, (count + 1) * block - size)])
    rows = ops.reshape(rows, (*shape, count + 1, block))
    rows = ops.concatenate([rows[..., :-1, :], rows[..., 1:, :rim]], axis=-1)
    rows = backend.products(rows, ops.convert_to_tensor(band.T, rows.dtype))
    return ops.reshape(rows, (*shape, count * block))[..., : size - rim]
