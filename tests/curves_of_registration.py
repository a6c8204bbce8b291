"""The curves of the losses that register images, and of FocalFrequency."""

import numpy as np
from scipy.ndimage import gaussian_filter

import combined_losses as cl
from tests.curves_of_fields import RMS, changed, over_masks, texture
from tests.curves_of_losses import MSE, Curve, Picture, make, picture_of, values

SIDE, SHIFT = 48, np.arange(-8, 9)


def scene() -> np.ndarray:
    """A smooth random scene in [0, 1], periodic, so that it can be shifted."""
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE, 1))
    smooth = gaussian_filter(noise, (3, 3, 0), mode="wrap")
    return (smooth - smooth.min()) / np.ptp(smooth)


def over_shift(losses: list, change) -> Picture:
    """The prediction is the truth, changed by a function of its brightness, and shifted."""
    image = scene()
    preds = [np.roll(change(image), shift, axis=1) for shift in SHIFT]
    curves = [
        Curve(label, SHIFT, over_masks(loss, image, preds), loss is MSE) for label, loss in losses
    ]
    return Picture("shift of the other image, in pixels", curves)


@picture_of("LocalCrossCorrelation")
def local_cross_correlation():
    losses = [(f"window {n}", make("LocalCrossCorrelation", n)) for n in (9, 21)]
    return over_shift([*losses, ("mse", MSE)], lambda image: 0.8 - 0.5 * image)


@picture_of("MutualInformation")
def mutual_information():
    """Bright and dark are one to the other image."""
    losses = [("32 bins", make("MutualInformation")), ("8 bins", make("MutualInformation", 8))]
    return over_shift([*losses, ("mse", MSE)], lambda image: 4 * (image - 0.5) ** 2)


def over_displacement(loss) -> Picture:
    place = (np.arange(SIDE) / SIDE)[None, :, None]
    size = np.linspace(0, 4, 17)
    fields = {
        "shift": np.ones((1, SIDE, 1)),
        "stretch": place,
        "wave": np.sin(4 * np.pi * place) / 2,
    }
    curves = []
    for label, field in fields.items():
        moved = size[:, None, None] * field
        curves.append(Curve(label, size, values(loss, 0 * moved, moved)))
    return Picture("size of a displacement, in pixels", curves)


@picture_of("BendingEnergy")
def bending_energy():
    return over_displacement(make("BendingEnergy"))


@picture_of("Diffusion")
def diffusion():
    return over_displacement(make("Diffusion"))


@picture_of("FocalFrequency")
def focal_frequency():
    image, loss = texture(64), cl.losses.FocalFrequency(reduction="none")
    wave = np.sqrt(2) * np.cos(np.pi / 4 * np.arange(64))[None, :, None] * np.ones((64, 1, 1))
    changes = {"one wave": wave, "noise": changed(image, "noise")}
    curves = [
        Curve(label, RMS, over_masks(loss, image, [image + x * change for x in RMS]))
        for label, change in changes.items()
    ]
    return Picture(
        "size of the change (root mean square)",
        [*curves, Curve("mse", RMS, RMS**2, other=True)],
    )
