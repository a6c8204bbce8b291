"""Images and volumes of one thing, seen by two instruments: what they have in common, nearby."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.images.blur import box
from combined_losses.losses.images.windows import Windows, laid_out

__all__ = ["LocalCrossCorrelation"]

# A variance is a difference of two means. In float32 each is wrong by up to 1e-6 of the square.
_ROUNDING = 4e-6


@keras.saving.register_keras_serializable("combined_losses")
class LocalCrossCorrelation(ChannelLoss):
    """One minus the squared correlation of two images in a small window, averaged over all windows.

    `1 - mean cov^2 / (vy vp + epsilon)`: the variances `vy` and `vp` and the covariance `cov` of
    truth and prediction in a square, or of volumes a cube, that stays inside. Use it to register
    images of one thing under different light, from different scanners or with a shading across the
    image: in each window it sees whether one is `a + b` times the other, and not a nor b, not even
    the sign of b. Add `BendingEnergy` or `Diffusion` of the displacement, with a small weight.

    Args:
        window: the side of the window in pixels, an odd integer of at least 3. Default 9. A small
            one follows a shading that changes quickly; a large one sees a shift from farther away.
        epsilon: added to the product of the variances, above 0, in the fourth power of the images'
            unit. Default 1e-5, for images in [0, 1]: contrasts below about 0.05 hardly count.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, or `(batch, height, width)` of
    one channel, or volumes `(batch, depth, height, width, channels)`; equal, no side smaller than
    the window. Channels are compared one by one. Values `(batch,)`, from 0 to 1, which is that of
    flat images, with gradient 0.

    Weights and masks of pixels act inside, as in `SSIM`.

    Raises:
        ValueError: if an argument is outside its range, the images are smaller than the window or
            no images, or the shapes differ.

    Example: an image against its negative, darker and with less contrast, and against noise.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y, noise = np.random.default_rng(0).random((2, 1, 32, 32, 1))
    >>> loss = cl.losses.LocalCrossCorrelation()
    >>> round(float(loss(y, 0.6 - 0.5 * y)), 2), round(float(loss(y, noise)), 2)
    (0.01, 0.98)

    Limits: MONAI's and VoxelMorph's pad the images with zeros and are the negative mean; inside
    they agree. Where the contrast is less than 0.2% of how far the brightness is from the mean of
    the image, float32 cannot tell it from rounding, and the window counts as flat. Numbers
    beyond 1e9 overflow.

    Balakrishnan et al. 2019, arXiv 1809.05231; Avants et al. 2008 (Medical Image Analysis 12).
    """

    has_channels = True
    neutral_target = 1.0
    _least_rank = 4  # (batch, height, width) are images without channels

    def __init__(
        self, window: int = 9, *, epsilon: float = 1e-5, **kwargs: Unpack[ChannelArguments]
    ) -> None:
        super().__init__(**kwargs)
        if not is_integer(window) or window < 3 or window % 2 == 0:
            raise ValueError(
                "The argument `window` of LocalCrossCorrelation must be an odd integer of at least "
                f"3. Received: {window!r}"
            )
        check_number("LocalCrossCorrelation", "epsilon", epsilon, minimum=0, exclusive=True)
        self.window = window
        self.epsilon = epsilon

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        cure = f"give larger ones, or a window below {self.window}"
        arrays = [y_true, y_pred]
        if sample_weight is not None:
            arrays = [ops.where(sample_weight > 0, image, 0.0) for image in arrays]
            arrays.append(sample_weight)
        y_true, y_pred, *weights = laid_out(self, arrays, self.window, cure)
        windows = Windows(box(self.window), *weights)
        y, p = (image - windows.centre(image) for image in (y_true, y_pred))
        # The truth in windows of its own: they need no gradient if the truth has none.
        my, y2 = windows.means([y, ops.square(y)])
        mp, p2, both = windows.means([p, ops.square(p), y * p])
        vy, vp = y2 - ops.square(my), p2 - ops.square(mp)
        squared = ops.square(both - my * mp) / (ops.relu(vy) * ops.relu(vp) + self.epsilon)
        # A window as flat as this is 0 by the formula too, but for rounding, which of large numbers
        # is far above epsilon.
        flat = ops.logical_or(vy <= _ROUNDING * y2, vp <= _ROUNDING * p2)
        return windows.average(ops.where(flat, 1.0, 1 - squared))
