"""The curves of the losses of masks, images and signals, for the pictures of docs/which_loss.md."""

from dataclasses import replace

import keras
import numpy as np

import combined_losses as cl
from tests.curves_of_losses import MSE, RIGHT, Curve, Picture, make, picture_of, values

SIDE = 32
ROW, COLUMN = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
FOUND = np.linspace(0, 1, 21)


def disk(radius, row=0.0, column=0.0) -> np.ndarray:
    """A mask with a soft rim of one pixel, `(SIDE, SIDE, 1)`."""
    distance = np.hypot(ROW - row, COLUMN - column)
    return np.clip(radius - distance + 0.5, 0, 1)[..., None]


def hard(mask) -> np.ndarray:
    return (mask > 0.5).astype("float32")


def over_masks(loss, y_true, y_preds) -> np.ndarray:
    return values(loss, np.stack([y_true] * len(y_preds)), np.stack(y_preds))


# Masks.


def over_found(losses: dict, radius=6, **kwargs) -> Picture:
    """The object has the probability x everywhere, so that x of it is found."""
    mask = hard(disk(radius))
    curves = [
        Curve(label, FOUND, over_masks(loss, mask, [x * mask for x in FOUND]), label == "Dice")
        for label, loss in losses.items()
    ]
    return Picture("share of the object that is found", curves, **kwargs)


@picture_of("Dice")
def dice():
    curves = []
    for label, radius in (("large object", 12), ("small", 2)):
        mask = hard(disk(radius))
        y = over_masks(make("Dice"), mask, [x * mask for x in FOUND])
        curves.append(Curve(label, FOUND, y))
    y = over_masks(MSE, mask, [x * mask for x in FOUND])
    curves.append(Curve("mse, small", FOUND, y, other=True))
    return Picture("share of the object that is found", curves)


@picture_of("Jaccard")
def jaccard():
    return over_found({"Jaccard": make("Jaccard"), "Dice": make("Dice")})


@picture_of("FocalTversky")
def focal_tversky():
    losses = {f"γ = {g}": make("FocalTversky", g) for g in (0.5, 1, 2)}
    return over_found(losses)


RADIUS = np.linspace(0.5, 12, 24)


def over_radius(losses: dict, most=1.0, **kwargs) -> Picture:
    y_preds = [most * disk(r) + (1 - most) * (1 - disk(r)) for r in RADIUS]
    curves = [
        Curve(label, RADIUS / 6, over_masks(loss, hard(disk(6)), y_preds), label == "Dice")
        for label, loss in losses.items()
    ]
    return Picture("too small ← 1 is right → too large", curves, **kwargs)


@picture_of("Tversky")
def tversky():
    losses = {f"fn {w}": make("Tversky", 1 - w, w) for w in (0.9, 0.3)}
    return over_radius({**losses, "Dice": make("Dice")})


@picture_of("MatthewsCorrelation")
def matthews_correlation():
    return over_radius({"Matthews": make("MatthewsCorrelation"), "Dice": make("Dice")})


@picture_of("combo")
def combo():
    losses = {f"β = {b}": make("combo", beta=b) for b in (0.7, 0.3)}
    return over_radius({**losses, "Dice": make("Dice")}, most=0.99)


@picture_of("GeneralizedDice")
def generalized_dice():
    """Background, a large object and a small one, of which a share is found."""
    large, small = hard(disk(8, column=-6)), hard(disk(2, row=10, column=12))
    preds = [np.concatenate([1 - large - x * small, large, x * small], -1) for x in FOUND]
    curves = []
    for weighting in ("square", "simple", "uniform"):
        y = over_masks(make("GeneralizedDice", weighting), preds[-1], preds)
        curves.append(Curve(weighting, FOUND, y))
    return Picture("share of a small class that is found", curves)


def over_probability(loss, channels=1) -> Picture:
    """A loss and its parts over the probability that all pixels of an object have."""
    mask = hard(disk(6))
    p = [x * mask + 0.02 * (1 - mask) for x in RIGHT]
    if channels == 2:
        mask, p = np.concatenate([1 - mask, mask], -1), [np.concatenate([1 - q, q], -1) for q in p]
    y_true, y_pred = np.stack([mask] * len(p)), np.stack(p).astype("float32")
    curves = [Curve("sum", RIGHT, values(loss, y_true, y_pred))]
    for name, part in loss.components(y_true, y_pred).items():
        y = loss.weights[name] * keras.ops.convert_to_numpy(part)
        curves.append(Curve(name, RIGHT, y))
    return Picture("probability of the object's pixels", curves)


@picture_of("dice_bce")
def dice_bce():
    return over_probability(cl.losses.dice_bce(reduction="none"))


@picture_of("dice_focal")
def dice_focal():
    return over_probability(cl.losses.dice_focal(reduction="none"))


@picture_of("generalized_dice_focal")
def generalized_dice_focal():
    loss = cl.losses.generalized_dice_focal(reduction="none")
    return over_probability(loss, channels=2)


@picture_of("unified_focal")
def unified_focal():
    return over_probability(cl.losses.unified_focal(reduction="none"))


@picture_of("LovaszSoftmax")
def lovasz_softmax():
    mask, x = hard(disk(6)), np.linspace(0, 1, 41)
    preds = [p * mask + 0.4 * hard(disk(9)) * (1 - mask) for p in x]
    curves = [
        Curve(label, x, over_masks(make(name), mask, preds), label == "Jaccard")
        for label, name in (("Lovász", "LovaszSoftmax"), ("Jaccard", "Jaccard"))
    ]
    return Picture("probability of the object's pixels", curves)


@picture_of("LovaszHinge")
def lovasz_hinge():
    mask, x = hard(disk(6)), np.linspace(-3, 3, 41)
    logits = [z * mask - 3 * (1 - mask) for z in x]
    entropy = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    curves = [
        Curve("Lovász", x, over_masks(make("LovaszHinge"), mask, logits)),
        Curve("cross-entropy", x, over_masks(entropy, mask, logits), other=True),
    ]
    return Picture("logit of the object's pixels", curves)


@picture_of("CenterlineDice")
def centerline_dice():
    """A vessel of 5 pixels across the image, without `5 n` pixels of its middle or its rim."""
    vessel = (np.abs(ROW + 0.5) < 2.6).astype("float32")[..., None]
    missing = np.arange(0, 13, 2)
    gaps = [vessel * (np.abs(COLUMN)[..., None] > n / 2) for n in missing]
    rims = [vessel.copy() for n in missing]
    for rim, n in zip(rims, missing, strict=True):
        rim[(ROW == 1.5) & (2.5 * n - 15.5 > COLUMN)] = 0
        rim[(ROW == -2.5) & (2.5 * n - 15.5 > COLUMN)] = 0
    loss = make("CenterlineDice")
    curves = [
        Curve("a break", 5 * missing, over_masks(loss, vessel, gaps)),
        Curve("the rim", 5 * missing, over_masks(loss, vessel, rims)),
        Curve("Dice of both", 5 * missing, over_masks(make("Dice"), vessel, gaps), other=True),
    ]
    return Picture("pixels that are missing", curves)


# Contours and edges.


def false_alarm(losses: dict) -> Picture:
    """A disk and a spot that is none, at some distance from it."""
    away = np.arange(3, 21)
    mask = hard(disk(4, column=-9))
    spots = [np.maximum(mask, hard(disk(1, column=-5 + d))) for d in away]
    curves = []
    for label, loss in losses.items():
        y = over_masks(loss, mask, spots) - over_masks(loss, mask, [mask])
        curves.append(Curve(label, away, y / y[0], label == "Dice"))
    return Picture("distance of a false alarm, pixels", curves, y_label="cost, first = 1")


@picture_of("SignedDistanceBoundary")
def signed_distance_boundary():
    return false_alarm({"distance": make("SignedDistanceBoundary"), "Dice": make("Dice")})


@picture_of("HausdorffDistance")
def hausdorff():
    losses = {f"α = {a}": make("HausdorffDistance", a) for a in (2.0, 1.0)}
    return false_alarm({**losses, "Dice": make("Dice")})


@picture_of("SobelEdge")
def sobel_edge():
    width = np.linspace(0.2, 4, 20)
    edges = [np.tanh(COLUMN / w)[..., None] / 2 + 0.5 for w in width]
    y_true = hard(COLUMN[..., None] + 0.5)
    loss = make("SobelEdge")
    curves = [
        Curve("blurred", width, over_masks(loss, y_true, edges)),
        Curve("brighter", width, over_masks(loss, y_true, [y_true + w / 4 for w in width])),
        Curve("mse, blurred", width, over_masks(MSE, y_true, edges), other=True),
    ]
    return Picture("how much", curves)


@picture_of("BoundaryDisagreement")
def boundary_disagreement():
    contrast = np.linspace(-2, 2, 41)
    mask = hard(disk(8))
    preds = [c * (mask - 0.5) + 0.5 for c in contrast]
    y = over_masks(make("BoundaryDisagreement"), mask, preds)
    return Picture("contrast of the prediction, 1 is right", [Curve("edges", contrast, y)])


# Images.


def texture(side) -> np.ndarray:
    row, column = np.indices((side, side))[..., None]
    return 0.5 + 0.12 * (np.sin(0.9 * row) + np.sin(0.7 * column + 0.3 * row))


def changed(image, kind) -> np.ndarray:
    """A change of mean square 1."""
    row, column = np.indices(image.shape[:2])[..., None]
    change = {
        "noise": np.random.default_rng(0).normal(size=image.shape),
        "brighter": np.ones(image.shape),
        "broad stain": np.exp(-((row - 20) ** 2 + (column - 20) ** 2) / 200),
    }[kind]
    return change / np.sqrt(np.mean(change**2))


RMS = np.linspace(0, 0.15, 16)


def over_change(losses: list) -> Picture:
    image = texture(64)
    curves = [
        Curve(
            label,
            RMS,
            over_masks(loss, image, [image + x * changed(image, kind) for x in RMS]),
            label.startswith("SSIM"),
        )
        for label, loss, kind in losses
    ]
    return Picture("size of the change (root mean square)", curves)


@picture_of("SSIM")
def ssim():
    loss = make("SSIM")
    return over_change([(kind, loss, kind) for kind in ("noise", "brighter")])


@picture_of("MultiScaleSSIM")
def multi_scale_ssim():
    loss = make("MultiScaleSSIM", power_factors=(0.2, 0.3, 0.5))
    shown = [(kind, loss, kind) for kind in ("noise", "broad stain")]
    return over_change([*shown, ("SSIM, stain", make("SSIM"), "broad stain")])


@picture_of("Perceptual")
def perceptual():
    """A network that sees means of 4 x 4 pixels."""
    eye = keras.Sequential([keras.Input((64, 64, 1)), keras.layers.AveragePooling2D(4, name="eye")])
    loss = make("Perceptual", eye, ["eye"])
    picture = over_change([(kind, loss, kind) for kind in ("noise", "broad stain")])
    return replace(picture, curves=[*picture.curves, Curve("mse", RMS, RMS**2, other=True)])


@picture_of("TotalVariation")
def total_variation():
    width = np.arange(1, 25)
    ramps = [np.clip(COLUMN / w + 0.5, 0, 1)[..., None] for w in width]
    squared = np.array([np.mean(np.diff(r, axis=1) ** 2) for r in ramps])
    y = over_masks(make("TotalVariation"), ramps[0], ramps)
    curves = [
        Curve("total variation", width, y),
        Curve("squared slopes", width, squared, other=True),
    ]
    return Picture("width of a ramp: 1 is an edge", curves)


@picture_of("PeakSignalToNoise")
def peak_signal_to_noise():
    error = np.geomspace(0.001, 1, 31)
    y_pred = np.tile(error[:, None, None, None], (1, 4, 4, 1))
    y = values(make("PeakSignalToNoise"), 0 * y_pred, y_pred)
    return Picture(
        "error, of a range of 1", [Curve("decibels", error, y)], ticks=(0.001, 0.01, 0.1, 1)
    )


# Signals.

TIME = np.arange(2048)


def over_signals(loss, y_true, y_preds) -> np.ndarray:
    return values(loss, np.stack([y_true] * len(y_preds)), np.stack(y_preds))


@picture_of("STFT")
def stft():
    phase = np.linspace(0, 360, 25)
    tone = np.sin(0.3 * TIME)
    preds = [np.sin(0.3 * TIME + a) for a in np.radians(phase)]
    loss = cl.losses.STFT(128, 32, 128, weights={"log_magnitude": 0.0}, reduction="none")
    curves = [
        Curve("convergence", phase, over_signals(loss, tone, preds)),
        Curve("mse", phase, over_signals(MSE, tone, preds), other=True),
    ]
    return Picture("phase of a tone, degrees", curves)


@picture_of("MultiResolutionSTFT")
def multi_resolution_stft():
    pitch = np.linspace(0.8, 1.2, 41)
    tone = np.sin(0.5 * TIME)
    preds = [np.sin(0.5 * x * TIME) for x in pitch]
    curves = []
    for label, size in (("long window", 1024), ("short", 64)):
        loss = cl.losses.MultiResolutionSTFT(
            [size], [size // 4], [size], weights={"log_magnitude": 0.0}, reduction="none"
        )
        curves.append(Curve(label, pitch, over_signals(loss, tone, preds)))
    return Picture("pitch of a tone, 1 is right", curves)


@picture_of("MelSTFT")
def mel_stft():
    pitch = np.linspace(0.8, 1.2, 41)
    tone = np.sin(0.5 * TIME)
    preds = [np.sin(0.5 * x * TIME) for x in pitch]
    only = {"weights": {"log_magnitude": 0.0}, "reduction": "none"}
    size = {"fft_size": 512, "hop": 128, "window": 512}
    bands, bins = cl.losses.MelSTFT(mels=20, **size, **only), cl.losses.STFT(**size, **only)
    curves = [
        Curve("bands", pitch, over_signals(bands, tone, preds)),
        Curve("STFT: bins", pitch, over_signals(bins, tone, preds), other=True),
    ]
    return Picture("pitch of a tone, 1 is right", curves)


@picture_of("SNR")
def snr():
    level = np.linspace(0.1, 2, 39)
    tone = np.sin(0.3 * TIME)
    noisy = tone + 0.1 * np.random.default_rng(0).normal(size=TIME.shape)
    preds = [x * noisy for x in level]
    curves = [
        Curve("SNR", level, over_signals(make("SNR"), tone, preds)),
        Curve("SI-SDR", level, over_signals(make("SISDR"), tone, preds), other=True),
    ]
    return Picture("level of the prediction, 1 is right", curves, y_label="decibels")


@picture_of("ErrorToSignal")
def error_to_signal():
    pitch = np.linspace(0.05, 3.0, 60)
    tone = np.sin(0.3 * TIME)
    preds = [tone + 0.3 * np.sin(x * TIME + 1) for x in pitch]
    curves = [
        Curve("pre_emphasis=0.95", pitch, over_signals(make("ErrorToSignal", 0.95), tone, preds)),
        Curve("without", pitch, over_signals(make("ErrorToSignal"), tone, preds)),
    ]
    return Picture("pitch of a quiet error, radians a step", curves)


@picture_of("SISDR")
def si_sdr():
    level = np.linspace(0.1, 2, 39)
    tone = np.sin(0.3 * TIME)
    noisy = tone + 0.1 * np.random.default_rng(0).normal(size=TIME.shape)
    preds = [x * noisy for x in level]
    loss = make("PeakSignalToNoise", 1.0)
    curves = [
        Curve("SI-SDR", level, over_signals(make("SISDR"), tone, preds)),
        Curve("peak ratio", level, over_signals(loss, tone, preds), other=True),
    ]
    return Picture("level of the prediction, 1 is right", curves, y_label="decibels")
