"""Cases of `combined_losses.losses.images`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.contracts.cases.regions import NOT_IGNORED
from tests.oracles import images

NOT_ABOVE_0 = [0, -1.0, *NOT_A_NUMBER]
WINDOW = {
    "max_value": NOT_ABOVE_0,
    "filter_size": [0, -3, 1.5, 11.0, True, "11", None, (11, 11)],
    "filter_sigma": NOT_ABOVE_0,
    "k1": NOT_ABOVE_0,
    "k2": NOT_ABOVE_0,
}


def photographs(*shape, seed):
    """Uniform numbers in [0, 1], and the same with noise."""
    rng = np.random.default_rng(seed)
    y_true = rng.random(shape)
    y_pred = y_true + 0.2 * rng.normal(size=shape)
    return {"y_true": y_true.astype("float32"), "y_pred": y_pred.astype("float32")}


CASES = [
    Case(
        loss=cl.losses.SSIM,
        oracle=images.ssim,
        **photographs(4, 12, 13, 2, seed=40),
        arguments={
            "max_value": 2.0,
            "filter_size": 4,
            "filter_sigma": 0.9,
            "k1": 0.2,
            "k2": 0.1,
        },
        refused={**WINDOW, "ignore_value": NOT_IGNORED},
    ),
    Case(  # five scales of the default window of 11 would need 176 pixels a side
        loss=cl.losses.MultiScaleSSIM,
        oracle=images.multi_scale_ssim,
        **photographs(4, 48, 49, 1, seed=41),
        arguments={
            "max_value": 2.0,
            "power_factors": [0.5, 0.0, 0.7],
            "filter_size": 2,
            "filter_sigma": 0.9,
            "k1": 0.2,
            "k2": 0.1,
        },
        required={"filter_size": 3},
        refused={
            **WINDOW,
            "power_factors": [[], (), [0.0, 0], [0.5, -0.1], [0.5, float("nan")], 1.0, "0.5", None],
        },
    ),
    Case(
        loss=cl.losses.TotalVariation,
        oracle=images.total_variation,
        y_true=np.zeros((4, 3, 4, 2), "float32"),
        y_pred=normal(4, 3, 4, 2, seed=42),
    ),
    Case(
        loss=cl.losses.PeakSignalToNoise,
        oracle=images.peak_signal_to_noise,
        y_true=normal(4, 3, 4, 2, seed=43),
        y_pred=normal(4, 3, 4, 2, seed=44),
        arguments={"max_value": 3.0},
        refused={"max_value": NOT_ABOVE_0},
    ),
    Case(
        loss=cl.losses.FocalFrequency,
        oracle=images.focal_frequency,
        **photographs(4, 5, 6, 2, seed=45),
        arguments={"alpha": 1.5},
        refused={"alpha": [-0.1, *NOT_A_NUMBER]},
    ),
]


def volumes_with_void(*shape, seed):
    data = photographs(*shape, seed=seed)
    data["y_true"][np.random.default_rng(seed).random(shape) < 0.2] = -1.0
    return data


VARIANTS = [
    Case(
        loss=cl.losses.SSIM,
        label="void in volumes",
        oracle=images.ssim,
        **volumes_with_void(4, 6, 5, 7, 2, seed=46),
        required={"filter_size": 4},
        arguments={"ignore_value": -1.0},
    ),
]
