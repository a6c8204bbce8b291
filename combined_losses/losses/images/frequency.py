"""Images compared by the frequencies in them."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div

__all__ = ["FocalFrequency"]


@keras.saving.register_keras_serializable("combined_losses")
class FocalFrequency(ChannelLoss):
    """The squared error of the spectra of two images, most of it where they differ most.

    The mean over frequencies and channels of `w |F|^2`, where F is the orthonormal discrete Fourier
    transform of `y_pred - y_true` over height and width, and `w = |F|^alpha / max |F|^alpha` of the
    image and channel, which has no gradient. Use it, beside a pixel loss, for images that a network
    makes up or restores: it goes after whole patterns that are missing, such as fine texture, or
    that are too much, such as a chessboard.

    Args:
        alpha: how much the frequencies that differ most come first, at least 0. Default 1.0; 0.0 is
            the mean squared error.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, or `(batch, height, width)` of
    one channel, equal. Values `(batch,)`, of at least 0 and at most the mean squared error. Every
    frequency sees all pixels, so single pixels cannot be weighed.

    Raises:
        ValueError: if `alpha` is below 0, the arrays are no images, or the shapes differ.

    Example: a wave that is missing is one frequency of an image, and costs its mean square. Noise
    that is missing has a part in every frequency, and costs less.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> wave = np.tile(np.cos(np.pi * np.arange(16.0)), (16, 1)).reshape(1, 16, 16, 1)
    >>> noise = np.random.default_rng(0).normal(size=wave.shape)
    >>> loss = cl.losses.FocalFrequency()
    >>> round(float(loss(wave, 0 * wave)), 2), round(float(loss(noise, 0 * noise)), 2)
    (1.0, 0.51)

    Limits: `alpha=0` is the mean squared error, by Parseval's theorem. The package
    `focal_frequency_loss` agrees.

    Jiang et al. 2021 (ICCV), arXiv 2012.12821.
    """

    has_channels = True
    _least_rank = 4  # (batch, height, width) are images without channels

    def __init__(self, alpha: float = 1.0, **kwargs: Unpack[ChannelArguments]) -> None:
        super().__init__(**kwargs)
        check_number("FocalFrequency", "alpha", alpha, minimum=0)
        self.alpha = alpha

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if len(y_pred.shape) not in (3, 4):
            raise ValueError(
                "FocalFrequency compares images (batch, height, width, channels), or (batch, "
                f"height, width) of one channel. Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        difference = y_pred - y_true
        if len(difference.shape) == 3:
            difference = ops.expand_dims(difference, -1)
        if 0 in difference.shape:  # no backend transforms nothing
            return ops.sum(difference, axis=(1, 2, 3))
        return ops.mean(self._of_planes(ops.moveaxis(difference, -1, 1)), axis=1)

    def _of_planes(self, planes: Tensor) -> Tensor:
        """The values of planes `(batch, channels, height, width)`, for each channel."""
        height, width = ops.shape(planes)[2:]
        pixels = ops.cast(height * width, planes.dtype)
        power = backend.spectrum(planes) / pixels  # that of the orthonormal transform
        now = ops.stop_gradient(power)
        # (|F| / max |F|)^alpha, as the power of a square.
        weight = div(now, ops.max(now, axis=(2, 3), keepdims=True)) ** (self.alpha / 2)
        # The spectrum of real numbers is symmetric: its right half is left out, but for the first
        # column, and the last one of an even width, each column stands for two.
        column = ops.arange(power.shape[3] or ops.shape(power)[3])
        twice = ops.logical_and(column > 0, 2 * column < width)
        counts = 1 + ops.cast(twice, planes.dtype)
        return ops.sum(counts * weight * power, axis=(2, 3)) / pixels
