"""Images and volumes of one thing, seen by two instruments: what one says about the other."""

import math
from collections.abc import Callable
from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div

__all__ = ["MutualInformation"]

# How many pairs of pixels and bins a block has: in float32 they take 1 MiB, which stays in a
# processor's cache. With 4 MiB torch and XLA take two and nine times as long.
_PAIRS = 2**18
_FLOOR = 1e-7


@keras.saving.register_keras_serializable("combined_losses")
class MutualInformation(ChannelLoss):
    """Minus the information that the brightness of one image holds about the other's, in nats.

    `-sum_kl J_kl log((J_kl + 1e-7) / (f_k g_l + 1e-7))`: the share `J_kl` of pixels that are in bin
    k of the truth and bin l of the prediction, and the shares `f` and `g` of the bins of each. A
    pixel of brightness x belongs to the bin with centre `b_k` by the share `softmax_k(-(x - b_k)^2
    / (2 sigma^2))`, so that there is a gradient. Use it to register images of different kinds, such
    as MR and CT, of which neither is a function of the other that you could write down. Add
    `BendingEnergy` or `Diffusion` of the displacement, with a small weight.

    Args:
        bins: the number of centres from `low` to `high`, an integer of at least 2. Default 32.
        sigma_ratio: sigma in units of the distance of two centres, above 0. Default 0.5. With a
            small one only pixels between two centres have a gradient.
        low, high: the range of the images, low below high. Defaults 0.0 and 1.0. What lies outside
            counts as the nearest bin, without a gradient.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, spatial..., channels)`, equal: signals, images or
    volumes. Channels are compared one by one and averaged. Values `(batch,)`, from `-log(bins)` to
    0: flat images know nothing. Weights and masks of pixels act inside, as shares of all pixels of
    a channel; a channel in which none counts is left out.

    Raises:
        ValueError: if an argument is outside its range, the shapes differ, or the arrays have no
            spatial axis.

    Example: an image says of its negative all that there is to know, of noise nearly nothing.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y, noise = np.random.default_rng(0).random((2, 1, 64, 64, 1))
    >>> loss = cl.losses.MutualInformation(bins=8)
    >>> round(float(loss(y, 1 - y)), 3), round(float(loss(y, noise)), 3)
    (-1.038, -0.002)

    Limits: symmetric in both images. MONAI's `GlobalMutualInformationLoss` with its Gaussian kernel
    agrees on images in [0, 1]. The first derivatives are exact, and are found without keeping what
    grows with pixels times bins; second derivatives are not.

    Viola & Wells 1997 (International Journal of Computer Vision 24); Mattes et al. 2003 (IEEE
    Transactions on Medical Imaging 22).
    """

    has_channels = True
    neutral_target = 1.0

    def __init__(
        self,
        bins: int = 32,
        *,
        sigma_ratio: float = 0.5,
        low: float = 0.0,
        high: float = 1.0,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not is_integer(bins) or not 2 <= bins <= _PAIRS:
            raise ValueError(
                "The argument `bins` of MutualInformation must be an integer of at least 2. "
                f"Received: {bins!r}"
            )
        check_number("MutualInformation", "sigma_ratio", sigma_ratio, minimum=0, exclusive=True)
        check_number("MutualInformation", "low", low)
        check_number("MutualInformation", "high", high, minimum=low, exclusive=True)
        self.bins = bins
        self.sigma_ratio = sigma_ratio
        self.low = low
        self.high = high

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        if len(y_pred.shape) < 3:
            raise ValueError(
                "MutualInformation compares arrays (batch, spatial..., channels), of rank 3 or "
                "more: give images of one channel an axis for it. "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        if sample_weight is None:
            weight = ops.ones_like(y_pred)
        else:
            weight = sample_weight
            y_true, y_pred = (ops.where(weight > 0, x, self.low) for x in (y_true, y_pred))
        batch, *spatial, channels = ops.shape(y_pred)
        # The shares of pixels, and both images in units of the bins, `(batch * channels, pixels)`.
        y, p, w = (_rows(x, batch, math.prod(spatial), channels) for x in (y_true, y_pred, weight))
        total = ops.sum(w, axis=1, keepdims=True)
        values = self._of_rows(self._in_bins(y), self._in_bins(p), div(w, total))
        values = ops.reshape(values, (batch, channels))
        if sample_weight is None:
            return ops.mean(values, axis=1)
        # The mean over the channels in which any pixel counts; the value of another one is 0.
        counted = ops.cast(ops.reshape(total, (batch, channels)) > 0, values.dtype)
        return div(ops.sum(values, axis=1), ops.sum(counted, axis=1))

    def _in_bins(self, image: Tensor) -> Tensor:
        """Brightness in units of the bins: k at the centre of bin k, counted from 0."""
        scaled = (image - self.low) * ((self.bins - 1) / (self.high - self.low))
        # From here on the outermost bin has e^20 times the share of the next one, or more.
        rim = 20 * self.sigma_ratio**2
        return ops.clip(scaled, -rim, self.bins - 1 + rim)

    def _of_rows(self, y: Tensor, p: Tensor, share: Tensor) -> Tensor:
        """The values of rows of pixels, `(rows, pixels)` each, with the shares of their pixels."""
        if 0 in y.shape:  # no backend maps over no blocks
            return ops.sum(p, axis=1)
        rows, pixels = ops.shape(y)
        y_now, p_now, share = (_in_blocks(ops.stop_gradient(x), self.bins) for x in (y, p, share))
        blocks = ops.shape(y_now)[0] // rows
        joints = _mapped(self._joint, [y_now, p_now, share])
        joint = ops.sum(ops.reshape(joints, (rows, blocks, self.bins, self.bins)), axis=1)
        values, by_joint = _information(joint)
        by_joint = ops.repeat(by_joint, blocks, axis=0)
        slopes = _mapped(self._slopes, [y_now, p_now, share, by_joint])
        slopes = ops.reshape(ops.swapaxes(slopes, 0, 1), (2, rows, -1))[:, :, :pixels]
        # The numbers of the first line, with the slopes that were found above: what is added is 0.
        for image, slope in ((y, slopes[0]), (p, slopes[1])):
            values = values + ops.sum(slope * (image - ops.stop_gradient(image)), axis=1)
        return values

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far pixels belong to each bin, `(bins, pixels)`, and how far they are from it.

        The distances are in units of `sqrt(2) sigma`.
        """
        unit = self.sigma_ratio * math.sqrt(2)
        centres = ops.expand_dims(ops.arange(self.bins, dtype=x.dtype), 1)
        apart = (x - centres) / unit
        return ops.softmax(-ops.square(apart), axis=0), apart

    def _joint(self, block: tuple[Tensor, ...]) -> Tensor:
        """The shares of pairs of bins in a block of pixels, `(bins, bins)`."""
        y, p, share = block
        return backend.products(self._shares(y)[0] * share, self._shares(p)[0])

    def _slopes(self, block: tuple[Tensor, ...]) -> Tensor:
        """The slopes of the value by the pixels of a block: of the truth, of the prediction."""
        y, p, share, by_joint = block
        of_y, y_apart = self._shares(y)
        of_p, p_apart = self._shares(p)
        by_y = backend.products(by_joint, ops.transpose(of_p))
        by_p = backend.products(ops.transpose(by_joint), ops.transpose(of_y))
        slopes = [_covariance(of_y, by_y, y_apart), _covariance(of_p, by_p, p_apart)]
        # With k = x - unit apart: d a_k / d x = a_k (k - mean k) / sigma^2 and so sum_k by_k d a_k
        # = cov(by, k) / sigma^2 = -sqrt(2) / sigma cov(by, apart), under the shares a of a pixel.
        return ops.stack(slopes) * (share * (-math.sqrt(2) / self.sigma_ratio))


def _covariance(shares: Tensor, by_shares: Tensor, apart: Tensor) -> Tensor:
    """`sum_k a_k (by_k - mean by) apart_k` of each pixel, under its shares a."""
    mean = ops.sum(shares * by_shares, axis=0)
    return ops.sum(shares * (by_shares - mean) * apart, axis=0)


def _rows(image: Tensor, batch: Tensor, pixels: Tensor, channels: Tensor) -> Tensor:
    """`(batch, spatial..., channels)` as `(batch * channels, pixels)`."""
    lines = ops.moveaxis(ops.reshape(image, (batch, pixels, channels)), -1, 1)
    return ops.reshape(lines, (batch * channels, pixels))


def _in_blocks(rows: Tensor, bins: int) -> Tensor:
    """Rows of pixels in blocks of equal size, at most `_PAIRS / bins`; zeros fill up the last."""
    number, pixels = ops.shape(rows)
    count = -(-pixels // (_PAIRS // bins))
    size = -(-pixels // count)
    filled = ops.pad(rows, [(0, 0), (0, count * size - pixels)])
    return ops.reshape(filled, (number * count, size))


def _mapped(function: Callable[..., Tensor], arrays: list[Tensor]) -> Tensor:
    """What a function gives for each block of some arrays, one after the other."""
    if arrays[0].shape[0] == 1:  # no loop, which would have a cost of its own
        return ops.expand_dims(function([array[0] for array in arrays]), 0)
    return ops.map(function, tuple(arrays))


def _information(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the information in joint shares `(rows, bins, bins)`, and its slopes by them."""
    f, g = ops.sum(joint, axis=2, keepdims=True), ops.sum(joint, axis=1, keepdims=True)
    apart = f * g + _FLOOR
    logarithm = ops.log((joint + _FLOOR) / apart)
    values = -ops.sum(joint * logarithm, axis=(1, 2))
    # The shares f_k and g_l are sums of joint shares, of row k and column l: by each of these
    # d f_k g_l = g_l and f_k.
    ratio = joint / apart
    by_f, by_g = (
        ops.sum(ratio * g, axis=2, keepdims=True),
        ops.sum(ratio * f, axis=1, keepdims=True),
    )
    return values, by_f + by_g - logarithm - joint / (joint + _FLOOR)
