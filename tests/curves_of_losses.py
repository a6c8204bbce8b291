"""What the pictures of docs/which_loss.md show: a few calls of each loss, as curves.

`tests/draw_losses.py` draws them. A curve is one call of the loss: the points are a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

import combined_losses as cl


@dataclass(frozen=True)
class Curve:
    label: str
    x: np.ndarray
    y: np.ndarray
    other: bool = False  # another loss, to compare with: grey and dashed


@dataclass(frozen=True)
class Picture:
    x_label: str
    curves: list[Curve]
    y_label: str = "loss"
    y_max: float | None = None
    ticks: tuple[float, ...] = ()  # of a logarithmic x axis


PICTURES: dict[str, Callable[[], Picture]] = {}


def picture_of(name: str):
    """Registers the function that makes the picture of a loss."""

    def register(make):
        PICTURES[name] = make
        return make

    return register


def values(loss, y_true, y_pred) -> np.ndarray:
    """One value for each sample: the mean over all of its elements."""
    found = keras.ops.convert_to_numpy(loss(as_floats(y_true), as_floats(y_pred)))
    return found.reshape(len(found), -1).mean(axis=-1)


def as_floats(array):
    return array if array.dtype.kind == "i" else np.asarray(array, "float32")


def make(name: str, *args, **kwargs):
    return getattr(cl.losses, name)(*args, **kwargs, reduction="none")


MSE = keras.losses.MeanSquaredError(reduction="none")
MAE = keras.losses.MeanAbsoluteError(reduction="none")
ERROR = np.linspace(-3, 3, 61)
TOO_LOW = "too low ← prediction → too high"


# Numbers: the value over the error.


def over_error(losses: dict, **kwargs) -> Picture:
    x = ERROR[:, None]
    curves = [
        Curve(label, ERROR, values(loss, 0 * x, x), loss in (MSE, MAE))
        for label, loss in losses.items()
    ]
    return Picture(TOO_LOW, curves, **kwargs)


@picture_of("UnderestimationPenalty")
def underestimation():
    name = "UnderestimationPenalty"
    return over_error({"weight 2": make(name, 2.0), "1": make(name, 1.0), "mae": MAE})


@picture_of("AsymmetricError")
def asymmetric():
    losses = {"(2, 1)": make("AsymmetricError"), "(0.5, 1)": make("AsymmetricError", 0.5, 1.0)}
    return over_error({**losses, "mse": MSE})


@picture_of("Pinball")
def pinball():
    return over_error({f"q = {q}": make("Pinball", q) for q in (0.9, 0.5, 0.1)})


@picture_of("Expectile")
def expectile():
    return over_error({f"t = {t}": make("Expectile", t) for t in (0.9, 0.5, 0.1)})


@picture_of("Linex")
def linex():
    losses = {f"a = {a}": make("Linex", a) for a in (1.0, -1.0)}
    return over_error({**losses, "mse": MSE}, y_max=20)


@picture_of("Charbonnier")
def charbonnier():
    losses = {"ε = 0.001": make("Charbonnier"), "ε = 1": make("Charbonnier", 1.0)}
    return over_error({**losses, "mse": MSE}, y_max=5)


# Numbers with their uncertainty.


def with_sigma(loss, mean, sigma) -> np.ndarray:
    mean, sigma = np.broadcast_arrays(mean, sigma)
    return values(loss, np.zeros((len(mean), 1)), np.stack([mean, 2 * np.log(sigma)], -1))


@picture_of("GaussianNLL")
def gaussian_nll():
    curves = [
        Curve(f"σ = {s}", ERROR, with_sigma(make("GaussianNLL"), ERROR, s)) for s in (0.5, 1, 2)
    ]
    return Picture("error of the mean", curves, y_max=5)


@picture_of("BetaNLL")
def beta_nll():
    """The slope by the mean: the factor of the loss depends on sigma alone."""
    sigma, step = np.linspace(0.7, 4, 40), 0.01

    def pull(loss):
        return (with_sigma(loss, 1 + step, sigma) - with_sigma(loss, 1 - step, sigma)) / (2 * step)

    curves = [Curve(f"β = {b}", sigma, pull(make("BetaNLL", b))) for b in (1.0, 0.5)]
    curves.append(Curve("NLL", sigma, pull(make("GaussianNLL")), other=True))
    return Picture("predicted σ", curves, y_label="pull on mean")


@picture_of("GaussianCRPS")
def gaussian_crps():
    curves = [
        Curve(f"σ = {s}", ERROR, with_sigma(make("GaussianCRPS"), ERROR, s)) for s in (0.5, 2)
    ]
    curves.append(Curve("mae", ERROR, np.abs(ERROR), other=True))
    return Picture("error of the mean", curves)


@picture_of("GaussianKL")
def gaussian_kl():
    curves = [
        Curve(f"σ = {s}", ERROR, with_sigma(make("GaussianKL"), ERROR, s)) for s in (1, 2, 0.2)
    ]
    return Picture("mean of the code", curves)


# Classes: the value over the probability of the true class.

RIGHT = np.linspace(0.01, 1, 60)
PROBABILITY = "probability of the true class"


@picture_of("BinaryFocal")
def binary_focal():
    y, p = np.ones((60, 1)), RIGHT[:, None]
    curves = [Curve(f"γ = {g}", RIGHT, values(make("BinaryFocal", g), y, p)) for g in (1, 2)]
    entropy = keras.losses.BinaryCrossentropy(reduction="none")
    curves.append(Curve("γ = 0", RIGHT, values(entropy, y, p), other=True))
    return Picture(PROBABILITY, curves, y_max=3)


@picture_of("CategoricalFocal")
def categorical_focal():
    p = np.stack([RIGHT, (1 - RIGHT) / 2, (1 - RIGHT) / 2], axis=-1)
    ids = np.zeros(60, "int32")
    rare = make("SparseCategoricalFocal", class_weight=[3.0, 1.0, 1.0])
    entropy = keras.losses.SparseCategoricalCrossentropy(reduction="none")
    curves = [
        Curve("rare, weight 3", RIGHT, values(rare, ids, p)),
        Curve("weight 1", RIGHT, values(make("SparseCategoricalFocal"), ids, p)),
        Curve("γ = 0", RIGHT, values(entropy, ids, p), other=True),
    ]
    return Picture(PROBABILITY, curves, y_max=3)


@picture_of("AsymmetricFocal")
def asymmetric_focal():
    loss, absent = make("AsymmetricFocal"), np.zeros((60, 1))
    p = RIGHT[:, None]
    entropy = keras.losses.BinaryCrossentropy(reduction="none")
    curves = [
        Curve("absent tag", RIGHT, values(loss, absent, p)),
        Curve("present tag", RIGHT, values(loss, 1 - absent, p)),
        Curve("absent, cross-entropy", RIGHT, values(entropy, absent, p), other=True),
    ]
    return Picture("probability of the tag", curves, y_max=3)


@picture_of("PolyCrossEntropy")
def poly_cross_entropy():
    y, p = np.tile([1.0, 0.0], (60, 1)), np.stack([RIGHT, 1 - RIGHT], axis=-1)
    curves = [
        Curve(f"ε = {e}", RIGHT, values(make("PolyCrossEntropy", e), y, p), other=e == 0)
        for e in (2, 0, -1)
    ]
    return Picture(PROBABILITY, curves, y_max=3)


@picture_of("WeightedKappa")
def weighted_kappa():
    """Ten perfect predictions of five grades, of which one is moved."""
    labels = np.tile(np.arange(5, dtype="int32"), 2)
    curves = []
    for power in (2, 1):
        loss = cl.losses.WeightedKappa(5, power)
        y = [float(loss(labels, np.eye(5, dtype="float32")[[k, *labels[1:]]])) for k in range(5)]
        curves.append(Curve(f"power {power}", np.arange(5), np.array(y)))
    return Picture("grades between truth and prediction", curves)


# Boxes.


def boxes(x0, y0, x1, y1) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x0, y0, x1, y1), axis=-1).astype(float)


def over_boxes(name, other, x, y_true, y_pred, x_label, **kwargs) -> Picture:
    y_true = np.broadcast_to(y_true, y_pred.shape)
    curves = [Curve(name, x, values(make(name), y_true, y_pred))]
    curves.append(Curve(other, x, values(make(other), y_true, y_pred), other=True))
    return Picture(x_label, curves, **kwargs)


def moved_boxes(name, other):
    x = np.linspace(0, 3, 61)
    return over_boxes(
        name, other, x, boxes(0, 0, 1, 1), boxes(x, 0, x + 1, 1), "distance, in sides of the box"
    )


@picture_of("IoU")
def iou():
    return moved_boxes("IoU", "GIoU")


@picture_of("GIoU")
def giou():
    return moved_boxes("GIoU", "IoU")


@picture_of("DIoU")
def diou():
    x = np.linspace(-1.5, 1.5, 61)
    inner = boxes(x - 0.5, -0.5, x + 0.5, 0.5)
    return over_boxes(
        "DIoU", "GIoU", x, boxes(-2, -2, 2, 2), inner, "left ← place inside the true box → right"
    )


@picture_of("CIoU")
def ciou():
    ratio = np.geomspace(0.125, 8, 61)
    w, h = np.sqrt(ratio) / 2, 1 / np.sqrt(ratio) / 2
    truth, predicted = boxes(-1, -0.25, 1, 0.25), boxes(-w, -h, w, h)
    label = "width / height, the true one is 4"
    return over_boxes("CIoU", "DIoU", ratio, truth, predicted, label, ticks=(0.25, 1, 4))


@picture_of("EIoU")
def eiou():
    """The same centre and aspect ratio."""
    side = np.linspace(0.1, 2, 61)
    truth, predicted = boxes(-0.5, -0.5, 0.5, 0.5), boxes(-side / 2, -side / 2, side / 2, side / 2)
    label = "side, the true one is 1"
    return over_boxes("EIoU", "CIoU", side, truth, predicted, label)


@picture_of("SIoU")
def siou():
    """The sum of what is added to IoU, of two unit squares."""
    degrees = np.linspace(0, 90, 61)
    dx, dy = 2 * np.cos(np.deg2rad(degrees)), 2 * np.sin(np.deg2rad(degrees))
    predicted = boxes(dx, dy, dx + 1, dy + 1)
    label = "direction of the way, in degrees"
    return over_boxes("SIoU", "DIoU", degrees, boxes(0, 0, 1, 1), predicted, label)


@picture_of("DistributionFocal")
def distribution_focal():
    """Two peaks, at 2 and 6, and one between them."""
    bins, x = np.arange(9), np.linspace(0, 8, 81)
    two = -0.5 * np.minimum(np.abs(bins - 2), np.abs(bins - 6)) ** 2
    rows = {"peaks at 2 and 6": two, "one at 4": -0.5 * (bins - 4) ** 2}
    curves = [
        Curve(label, x, values(DFL, x, np.tile(row, (len(x), 1)))) for label, row in rows.items()
    ]
    return Picture("target", curves)


DFL = make("DistributionFocal", from_logits=True)


def over_probability(losses: dict) -> Picture:
    p = np.linspace(0.01, 0.99, 99)
    curves = [
        Curve(label, p, values(loss, np.full((len(p), 1), y), p[:, None]), other)
        for label, (loss, y, other) in losses.items()
    ]
    return Picture("probability", curves)


@picture_of("QualityFocal")
def quality_focal():
    focal = make("QualityFocal")
    losses = {"y = 0.8": (focal, 0.8, False), "0.3": (focal, 0.3, False)}
    return over_probability({**losses, "BinaryFocal, 0.8": (make("BinaryFocal"), 0.8, True)})


@picture_of("Varifocal")
def varifocal():
    losses = {f"y = {y}": (make("Varifocal"), y, False) for y in (0.9, 0.4)}
    return over_probability({**losses, "0": (make("Varifocal"), 0.0, False)})
