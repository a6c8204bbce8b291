"""Images under a Gaussian window, and at half their size."""

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend


def has_channels_first():
    """Whether what follows has the channels before the rows: where products blur."""
    return keras.config.backend() == "jax"


def halved(images):
    """Means of 2 x 2 pixels; the last window of an odd side has one pixel less along it."""
    layout = "channels_first" if has_channels_first() else "channels_last"
    return ops.average_pool(images, 2, strides=2, padding="same", data_format=layout)


def gaussian(size, sigma):
    """A Gaussian of `size` numbers that sum to 1; the window is the product of two."""
    # The squares are counted from the smallest, a factor that the sum takes out again: so that one
    # number is 1. A deviation below 1e-3 leaves nothing but the nearest pixels, as 1e-3 does.
    squares = (np.arange(size) - (size - 1) / 2) ** 2
    window = np.exp((squares.min() - squares) / (2 * max(sigma, 1e-3) ** 2))
    return window / window.sum()


def blurred(images, window):
    """Each of `images` under a separable window, where all of it lies inside.

    The fastest way: depthwise convolutions, but for XLA on a CPU, where matrix products take a
    tenth of their time, and sums of slices as long as the products.
    """
    if has_channels_first():
        return [_multiplied(image, window) for image in images]
    channels = ops.shape(images[0])[-1] * len(images)
    joined = ops.concatenate(images, axis=-1) if len(images) > 1 else images[0]
    for shape in ((1, -1, 1, 1), (-1, 1, 1, 1)):
        kernel = ops.convert_to_tensor(window.reshape(shape), images[0].dtype)
        kernel = ops.tile(kernel, (1, 1, channels, 1))
        joined = ops.depthwise_conv(joined, kernel, data_format="channels_last")
    return ops.split(joined, len(images), axis=-1) if len(images) > 1 else [joined]


def _multiplied(image, window):
    """The blurred image, with rows and columns interchanged: no loss of means minds."""
    return _along_last(ops.swapaxes(_along_last(image, window), 2, 3), window)


def _along_last(rows, window):
    """Rows cut into blocks, each with the rim that its last window needs, times a band matrix."""
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
