"""Images and volumes compared by their structure in small windows, much as an eye does."""

import math
from collections.abc import Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import are_numbers, check_number, is_integer
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.traits import Traits
from combined_losses._core.void import check_ignore_value, weight_of_counted
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.images.blur import gaussian, halved, has_channels_first
from combined_losses.losses.images.windows import Windows, laid_out, of_positions

__all__ = ["SSIM", "MultiScaleSSIM"]


@keras.saving.register_keras_serializable("combined_losses")
class SSIM(ChannelLoss):
    """One minus the structural similarity of images or volumes, as seen through a small window.

    `1 - (2 my mp + c1) (2 cov + c2) / ((my^2 + mp^2 + c1) (vy + vp + c2))`, averaged over all
    positions of the window inside the image and over the channels: means `my` and `mp`, variances
    `vy` and `vp` and the covariance `cov` of truth and prediction under a Gaussian window that sums
    to 1, and `c_i = (k_i max_value)^2`. Of volumes the window is a cube. Use it to restore images
    (denoising, superresolution, compression), where a pixel loss alone gives blurred results. Add a
    pixel loss, as in `0.84 * cl.losses.SSIM() + 0.16 * cl.as_loss("mae")`, because SSIM hardly sees
    a small shift in the brightness or colour of a whole region.

    Args:
        max_value: the range of the data, above 0: 1.0 (default) for images in [0, 1], 255 for
            bytes. It must be the true range: it sets which differences are too faint to count.
        filter_size: the side of the window in pixels, an integer of at least 1. Default 11.
        filter_sigma: the deviation of the Gaussian in pixels, above 0. Default 1.5.
        k1, k2: constants that keep dark and flat regions stable, in units of `max_value`, above 0.
            Defaults 0.01 and 0.03; fainter differences hardly count.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, in each
            channel for itself, also `nan`. What is in them, in either image, does not matter.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, or `(batch, height, width)` of
    one channel, or volumes `(batch, depth, height, width, channels)`; equal, no side smaller than
    the window. Values `(batch,)`, from 0 (equal) to 2.

    Weights and masks of pixels act inside: with the weights m (0 in void pixels) and the window G,
    every mean becomes `G * (m x) / W`, `W = G * m`, and the value `sum W (1 - ssim) / sum W`.
    Windows that see at most 1e-6 of the largest weight of their image are left out; where nothing
    counts the value is 0.

    Raises:
        ValueError: if an argument is outside its range, the images are smaller than the window or
            no images, or the shapes differ.

    Example: a chessboard against its inverse, and against grey.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> board = (np.indices((16, 16)).sum(axis=0) % 2).reshape(1, 16, 16, 1).astype("float32")
    >>> loss = cl.losses.SSIM()
    >>> float(loss(board, board))
    0.0
    >>> round(float(loss(board, 1 - board)), 3)
    1.996
    >>> round(float(loss(board, 0 * board + 0.5)), 3)
    0.996

    Limits: it agrees with `keras.ops.image.ssim` (Keras 3.15), pytorch-msssim and `tf.image.ssim`,
    of volumes with MONAI. The window stays inside the image, so pixels at the border are in fewer
    windows and count less. Pixels of more than 1e9 times `max_value` overflow.

    Wang, Bovik, Sheikh & Simoncelli 2004 (IEEE Transactions on Image Processing 13).
    """

    has_channels = True
    target_kind = "images"
    _least_rank = 4  # (batch, height, width) are images without channels

    def __init__(
        self,
        max_value: float = 1.0,
        filter_size: int = 11,
        filter_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        *,
        ignore_value: float | None = None,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        _check_window("SSIM", max_value, filter_size, filter_sigma, k1, k2)
        check_ignore_value("SSIM", ignore_value)
        self.max_value = max_value
        self.filter_size = filter_size
        self.filter_sigma = filter_sigma
        self.k1 = k1
        self.k2 = k2
        self.ignore_value = ignore_value

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)  # channels are compared one by one

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        side = self.filter_size
        cure = f"give larger ones, or filter_size below {side}"
        weight = weight_of_counted(self.ignore_value, y_true, sample_weight, y_pred.dtype)
        if weight is not None:
            y_true, y_pred = (ops.where(weight > 0, image, 0.0) for image in (y_true, y_pred))
        arrays = [y_true, y_pred] if weight is None else [y_true, y_pred, weight]
        y_true, y_pred, *weights = laid_out(self, arrays, side, cure)
        windows = Windows(gaussian(side, self.filter_sigma), *weights)
        pair = _in_range(self, y_true, y_pred)
        return windows.average(_either(*_dissimilarity(self, *pair, windows)))


@keras.saving.register_keras_serializable("combined_losses")
class MultiScaleSSIM(ChannelLoss):
    """One minus the structural similarity of two images, from fine detail to broad shapes.

    `1 - prod_j max(cs_j, 1e-6)^w_j * max(ssim, 1e-6)^w_M` for each channel, then the mean over the
    channels: `cs_j = mean((2 cov + c2) / (vy + vp + c2))` compares contrast and structure at scale
    j, each scale half as fine as the one before (means of 2 x 2 pixels), and the `SSIM` of the
    coarsest also compares the brightness. Use it instead of `SSIM` where images are large enough
    and their parts have many sizes. Add a pixel loss, as in
    `0.84 * cl.losses.MultiScaleSSIM() + 0.16 * cl.as_loss("mae")` (Zhao et al. 2017), because this
    loss hardly sees a small shift in brightness or colour, and has no gradient where the structure
    is inverted at a scale.

    Args:
        max_value: the range of the data, above 0: 1.0 (default) for images in [0, 1], 255 for
            bytes.
        power_factors: the exponents w from the finest scale to the coarsest, a list of numbers of
            at least 0, not all 0; as many as there are scales. Default: the five of the paper,
            which sum to 1.
        filter_size: the side of the window in pixels, an integer of at least 1. Default 11.
        filter_sigma: the deviation of the Gaussian in pixels, above 0. Default 1.5.
        k1, k2: constants that keep dark and flat regions stable, in units of `max_value`, above 0.
            Defaults 0.01 and 0.03.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, height, width, channels)`, or `(batch, height, width)` of
    one channel, equal; no side smaller than `filter_size * 2^(scales - 1)`, which is 176 with the
    defaults. If a side is odd, the last mean along it is over fewer pixels. Values `(batch,)`, from
    0 (equal) to 1.

    Raises:
        ValueError: if an argument is outside its range, the images are too small or no images, or
            the shapes differ.

    Example: images of 32 x 32 pixels have room for two scales of a window of 11.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.random.default_rng(0).random((1, 32, 32, 3))
    >>> loss = cl.losses.MultiScaleSSIM(power_factors=(0.5, 0.5))
    >>> float(loss(y_true, y_true))
    0.0
    >>> round(float(loss(y_true, 1 - y_true)), 6)  # the floor
    0.999999

    Limits: with one scale and the exponent 1 it is `SSIM`, except below the floor of 1e-6; for even
    sides pytorch-msssim and `tf.image.ssim_multiscale` agree. A scale at the floor has gradient 0:
    start from a network that is roughly right, or add a pixel loss.

    Wang, Simoncelli & Bovik 2003 (Asilomar Conference); as a loss Zhao et al. 2017,
    arXiv 1511.08861.
    """

    has_channels = True
    target_kind = "images"
    _least_rank = 4

    def __init__(
        self,
        max_value: float = 1.0,
        power_factors: Sequence[float] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
        filter_size: int = 11,
        filter_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        _check_window("MultiScaleSSIM", max_value, filter_size, filter_sigma, k1, k2)
        if not are_numbers(power_factors) or min(power_factors) < 0 or not max(power_factors):
            raise ValueError(
                "The argument `power_factors` of MultiScaleSSIM must be a list of finite numbers "
                "of at least 0, not all of them 0, one for each scale. "
                f"Received: {power_factors!r}"
            )
        self.max_value = max_value
        self.power_factors = power_factors
        self.filter_size = filter_size
        self.filter_sigma = filter_sigma
        self.k1 = k1
        self.k2 = k2

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        *finer, coarsest = (float(power) for power in self.power_factors)
        side = self.filter_size * 2 ** len(finer)
        cure = f"{len(finer) + 1} scales of a window of {self.filter_size} need that many; give "
        cure += "fewer power_factors, or a smaller filter_size"
        images = laid_out(self, [y_true, y_pred], side, cure, volumes=False)
        y_true, difference = _in_range(self, *images)
        windows = Windows(gaussian(self.filter_size, self.filter_sigma))
        logarithm = 0.0
        for power in finer:
            _, structure = _dissimilarity(self, y_true, difference, windows)
            logarithm = logarithm + power * _log_similarity(structure)
            y_true, difference = halved(y_true), halved(difference)
        either = _either(*_dissimilarity(self, y_true, difference, windows))
        logarithm = logarithm + coarsest * _log_similarity(either)
        # 1 - exp(x) = -expm1(x), which does not round what is close to 0.
        return ops.mean(-ops.expm1(logarithm), axis=-1)


# What the two losses share.


def _check_window(
    owner: str, max_value: float, filter_size: int, filter_sigma: float, k1: float, k2: float
) -> None:
    if not is_integer(filter_size) or filter_size < 1:
        raise ValueError(
            f"The argument `filter_size` of {owner} must be an integer of at least 1. "
            f"Received: {filter_size!r}"
        )
    numbers = {"max_value": max_value, "filter_sigma": filter_sigma, "k1": k1, "k2": k2}
    for name, number in numbers.items():
        check_number(owner, name, number, minimum=0, exclusive=True)


def _in_range(loss: SSIM | MultiScaleSSIM, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """The truth and its difference from the prediction, in units of `max_value`."""
    # SSIM does not change if images and range are divided by the same number, here `max_value`.
    if loss.max_value != 1:
        y_true, y_pred = y_true / loss.max_value, y_pred / loss.max_value
    return y_true, y_true - y_pred


def _dissimilarity(
    loss: SSIM | MultiScaleSSIM, y_true: Tensor, difference: Tensor, windows: Windows
) -> tuple[Tensor, Tensor]:
    """`1 - l` and `1 - cs` at each position: how luminance, and contrast and structure, differ."""
    # With d = y - p and s = y + p, the means are ms = my + mp and md = my - mp, and the variances
    # vs = vy + vp + 2 cov and vd = vy + vp - 2 cov. So vs + vd = 2 (vy + vp), vs - vd = 4 cov and
    #   1 - cs = (vy + vp - 2 cov) / (vy + vp + c2) = 2 vd / (vs + vd + 2 c2).
    # Likewise ms^2 + md^2 = 2 (my^2 + mp^2), ms^2 - md^2 = 4 my mp and
    #   1 - l = (my - mp)^2 / (my^2 + mp^2 + c1) = 2 md^2 / (ms^2 + md^2 + 2 c1).
    # That takes four windows instead of five, and the first needs no gradient if the truth has
    # none. Nor is a number close to 1 subtracted from 1: for similar images d is small, and
    # rounding errors of s only scale it. The sums are taken of images without their `centre`, which
    # only `ms` needs.
    centre = windows.centre(y_true)
    twice = 2 * (y_true - centre)
    total = twice - difference
    (mean_twice,) = windows.means([twice])
    parts = [difference, ops.square(difference), ops.square(total)]
    mean_difference, square_difference, square_total = windows.means(parts)
    mean_total = mean_twice - mean_difference
    ms = mean_total + 2 * of_positions(centre, mean_total)
    md2, ms2 = ops.square(mean_difference), ops.square(ms)
    # A variance below 0 is a rounding error; without the relu the denominator could become 0.
    vd, vs = ops.relu(square_difference - md2), ops.relu(square_total - ops.square(mean_total))
    # The floor acts for k below 3e-8, whose square would vanish in float32.
    c1, c2 = (max(float(k) ** 2, 1e-15) for k in (loss.k1, loss.k2))
    return 2 * md2 / (ms2 + md2 + 2 * c1), 2 * vd / (vs + vd + 2 * c2)


def _either(luminance: Tensor, structure: Tensor) -> Tensor:
    """`1 - l cs`, from `1 - l` and `1 - cs`."""
    return luminance + structure - luminance * structure


def _log_similarity(dissimilarity: Tensor) -> Tensor:
    """`log(max(1 - mean, 1e-6))` of each sample and channel, with gradient 0 at the floor."""
    mean = ops.mean(dissimilarity, axis=(2, 3) if has_channels_first() else (1, 2))
    floored = mean > 1 - 1e-6
    return ops.where(floored, math.log(1e-6), ops.log1p(-ops.where(floored, 0.0, mean)))
