"""Similarities of images, beside pytorch-msssim; spectra, beside focal_frequency_loss."""

import numpy as np
from focal_frequency_loss import FocalFrequencyLoss
from pytorch_msssim import ms_ssim, ssim
from scipy.ndimage import gaussian_filter

import combined_losses as cl
from pairs import Pair


def images(channels):
    """Blurred noise in [0, 1], and the same with noise, `(8, 256, 256, channels)`."""

    def make(rng):
        field = rng.normal(size=(8, 256, 256, channels))
        field = gaussian_filter(field, (0, 3, 3, 0))
        y_true = np.clip(0.5 + 0.2 * field / field.std(), 0, 1)
        y_pred = np.clip(y_true + 0.05 * rng.normal(size=y_true.shape), 0, 1)
        return y_true.astype("float32"), y_pred.astype("float32")

    return make


def first(y_true, y_pred):
    """Channels first, as pytorch-msssim wants them."""
    return tuple(np.ascontiguousarray(np.moveaxis(array, -1, 1)) for array in (y_true, y_pred))


def _dissimilarity(function):
    return lambda y_true, y_pred: 1 - function(y_pred, y_true, data_range=1.0)


def _strided(function):
    """Of channels-last arrays seen as channels first: torch's convolutions keep that order."""
    alike = _dissimilarity(function)
    return lambda y_true, y_pred: alike(y_true.permute(0, 3, 1, 2), y_pred.permute(0, 3, 1, 2))


def _of_frequencies():
    loss = FocalFrequencyLoss()
    return lambda y_true, y_pred: loss(y_pred, y_true)


PAIRS = {
    "SSIM": Pair(images(3), cl.losses.SSIM, lambda: _dissimilarity(ssim), first),
    "SSIM, strided peer": Pair(images(3), cl.losses.SSIM, lambda: _strided(ssim)),
    "SSIM, 1 channel": Pair(images(1), cl.losses.SSIM, lambda: _dissimilarity(ssim), first),
    "MultiScaleSSIM": Pair(
        images(3), cl.losses.MultiScaleSSIM, lambda: _dissimilarity(ms_ssim), first
    ),
    "FocalFrequency": Pair(images(3), cl.losses.FocalFrequency, _of_frequencies, first),
    "MultiScaleSSIM, strided": Pair(images(3), cl.losses.MultiScaleSSIM, lambda: _strided(ms_ssim)),
    "MultiScaleSSIM, 1 chan.": Pair(
        images(1), cl.losses.MultiScaleSSIM, lambda: _dissimilarity(ms_ssim), first
    ),
}
