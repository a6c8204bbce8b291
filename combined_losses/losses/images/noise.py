"""Images pixel by pixel: how large the error is beside the signal."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import decibels, weighted_mean

__all__ = ["PeakSignalToNoise"]


@keras.saving.register_keras_serializable("combined_losses")
class PeakSignalToNoise(ChannelLoss):
    """Minus the peak signal-to-noise ratio: the mean squared error on the scale of decibels.

    `10 log10(mean((y_true - y_pred)^2) / max_value^2 + 1e-10)`, the mean over all elements of a
    sample. Use it where you report this ratio. Unlike the mean squared error, it gives a sample
    that is nearly right as much influence as one that is not.

    Args:
        max_value: the range of the data, above 0: 1.0 (default) for images in [0, 1], 255 for
            bytes.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `(batch,)` in dB, the smaller the
    better: -100 for equal images, 0 for an error of `max_value` everywhere. Weights and masks of
    pixels act inside the mean; a sample whose weights are all 0 has the value 0.

    Raises:
        ValueError: if `max_value` is not above 0, or the shapes differ.

    Example: an error of a tenth everywhere.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.zeros((1, 8, 8, 3))
    >>> round(float(cl.losses.PeakSignalToNoise()(y_true, y_true + 0.1)), 3)
    -20.0

    Limits: it is minus `keras.ops.psnr`, `tf.image.psnr` and scikit-image's ratio where these are
    finite; for equal images the 1e-10 makes the value -100 and the gradient 0. The gradient is
    proportional to one over the error, down to an error of 1e-5 of `max_value`.
    """

    has_channels = True
    target_kind = "images"
    neutral_target = 1.0

    def __init__(self, max_value: float = 1.0, **kwargs: Unpack[ChannelArguments]) -> None:
        super().__init__(**kwargs)
        check_number("PeakSignalToNoise", "max_value", max_value, minimum=0, exclusive=True)
        self.max_value = max_value

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)  # channels are compared one by one

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        axes = tuple(range(1, len(y_pred.shape)))
        squared = ops.square((y_true - y_pred) / self.max_value)
        mean = weighted_mean(squared, sample_weight, axes) if axes else squared
        values = decibels(mean + 1e-10)
        if sample_weight is None:
            return values
        return ops.where(ops.sum(sample_weight, axis=axes) <= 0, 0.0, values)
