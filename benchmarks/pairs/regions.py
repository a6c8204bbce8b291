"""Regions, contours and focal losses, beside MONAI and pytorch-toolbelt."""

import sys
import types

import numpy as np
from scipy.ndimage import gaussian_filter

import combined_losses as cl
from pairs import Pair

# pytorch-toolbelt imports one function of torchvision, for its losses of boxes.
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision.ops"] = types.SimpleNamespace(box_iou=None)

import monai.losses as monai  # noqa: E402
import pytorch_toolbelt.losses as toolbelt  # noqa: E402


def masks(rng):
    """Blobs, and noisy logits of them, `(8, 256, 256, 1)`."""
    blobs = [gaussian_filter(rng.normal(size=(256, 256)), 12) for _ in range(8)]
    field = np.stack(blobs)[..., None]
    field /= field.std()
    logits = 3 * (field - 0.6 + 0.3 * rng.normal(size=field.shape))
    return (field > 0.8).astype("float32"), logits.astype("float32")


def classes(rng):
    """One-hot maps of three classes, and noisy logits of them, `(8, 128, 128, 3)`."""
    field = np.stack([gaussian_filter(rng.normal(size=(128, 128, 3)), (6, 6, 0)) for _ in range(8)])
    field /= field.std()
    y_true = np.eye(3, dtype="float32")[field.argmax(-1)]
    return y_true, (3 * field + rng.normal(size=field.shape)).astype("float32")


def masks_and_probabilities(rng):
    y_true, logits = masks(rng)
    return y_true, 1 / (1 + np.exp(-logits))


def classes_and_probabilities(rng):
    y_true, logits = classes(rng)
    return y_true, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def labels_and_logits(rng):
    y_true, logits = classes(rng)
    return y_true.argmax(-1).astype("int32"), logits


def first(array):
    """Channels first."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def channels_first(y_true, y_pred):
    return first(y_true), first(y_pred)


def labels_of_one_hot(y_true, y_pred):
    return y_true.argmax(-1).astype("int64"), first(y_pred)


def labels(y_true, y_pred):
    return y_true.astype("int64"), first(y_pred)


def prediction_first(loss):
    """The peers take the prediction first."""
    return lambda y_true, y_pred: loss(y_pred, y_true)


def _pair(data, ours, theirs, to_theirs=channels_first):
    return Pair(data, ours, lambda: prediction_first(theirs()), to_theirs)


SMOOTH = {"smooth_nr": 1.0, "smooth_dr": 1.0}
PAIRS = {
    "Dice": _pair(masks_and_probabilities, cl.losses.Dice, lambda: monai.DiceLoss(**SMOOTH)),
    "Dice, 3 classes": _pair(
        classes_and_probabilities, cl.losses.Dice, lambda: monai.DiceLoss(**SMOOTH)
    ),
    "dice_ce": _pair(
        classes,
        lambda: cl.losses.dice_ce(from_logits=True),
        lambda: monai.DiceCELoss(softmax=True, **SMOOTH),
    ),
    "Tversky": _pair(
        masks_and_probabilities,
        lambda: cl.losses.Tversky(0.3, 0.7),
        lambda: monai.TverskyLoss(alpha=0.3, beta=0.7, **SMOOTH),
    ),
    "GeneralizedDice": _pair(
        classes_and_probabilities, cl.losses.GeneralizedDice, monai.GeneralizedDiceLoss
    ),
    "HausdorffDistance": _pair(
        masks_and_probabilities, cl.losses.HausdorffDistance, monai.HausdorffDTLoss
    ),
    "CenterlineDice": _pair(
        masks_and_probabilities, cl.losses.CenterlineDice, lambda: monai.SoftclDiceLoss(iter_=3)
    ),
    "LovaszHinge": _pair(
        masks, cl.losses.LovaszHinge, lambda: toolbelt.BinaryLovaszLoss(per_image=True)
    ),
    "LovaszSoftmax": _pair(
        classes_and_probabilities,
        cl.losses.LovaszSoftmax,
        lambda: toolbelt.LovaszLoss(per_image=True),
        labels_of_one_hot,
    ),
    "BinaryFocal": _pair(
        masks,
        lambda: cl.losses.BinaryFocal(from_logits=True),
        lambda: toolbelt.BinaryFocalLoss(gamma=2.0),
    ),
    "SparseCategoricalFocal": _pair(
        labels_and_logits,
        lambda: cl.losses.SparseCategoricalFocal(from_logits=True),
        lambda: toolbelt.CrossEntropyFocalLoss(gamma=2.0),
        labels,
    ),
}
