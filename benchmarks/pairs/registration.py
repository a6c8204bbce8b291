"""Losses that register volumes, beside MONAI: 64 x 64 x 64 voxels."""

import monai.losses as monai
import numpy as np
from scipy.ndimage import gaussian_filter

import combined_losses as cl
from pairs import Pair
from pairs.images import first

SIDE = 64


def volumes(rng):
    """Blurred noise in [0, 1], and the same with noise, of one channel."""
    field = gaussian_filter(rng.normal(size=(1, SIDE, SIDE, SIDE, 1)), (0, 2, 2, 2, 0))
    y_true = np.clip(0.5 + 0.2 * field / field.std(), 0, 1)
    y_pred = np.clip(y_true + 0.05 * rng.normal(size=y_true.shape), 0, 1)
    return y_true.astype("float32"), y_pred.astype("float32")


def displacements(rng):
    field = rng.normal(size=(1, SIDE, SIDE, SIDE, 3)).astype("float32")
    return np.zeros_like(field), field


def of_both(loss):
    return lambda y_true, y_pred: loss(y_pred, y_true)


def of_prediction(loss):
    return lambda y_true, y_pred: loss(y_pred)


PAIRS = {
    "LocalCrossCorrelation": Pair(
        volumes,
        cl.losses.LocalCrossCorrelation,
        lambda: of_both(monai.LocalNormalizedCrossCorrelationLoss(3, kernel_size=9)),
        first,
    ),
    "LocalCrossCorr., window 3": Pair(
        volumes,
        lambda: cl.losses.LocalCrossCorrelation(3),
        lambda: of_both(monai.LocalNormalizedCrossCorrelationLoss(3, kernel_size=3)),
        first,
    ),
    "MutualInformation": Pair(
        volumes,
        cl.losses.MutualInformation,
        lambda: of_both(monai.GlobalMutualInformationLoss("gaussian", num_bins=32)),
        first,
    ),
    "SSIM, volumes": Pair(
        volumes, cl.losses.SSIM, lambda: of_both(monai.SSIMLoss(3, data_range=1.0)), first
    ),
    "BendingEnergy": Pair(
        displacements,
        cl.losses.BendingEnergy,
        lambda: of_prediction(monai.BendingEnergyLoss()),
        first,
    ),
    "Diffusion": Pair(
        displacements, cl.losses.Diffusion, lambda: of_prediction(monai.DiffusionLoss()), first
    ),
}
