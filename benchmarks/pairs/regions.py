"""Regions, contours and focal losses, beside MONAI and pytorch-toolbelt."""

import sys
import types

import numpy as np
import torch
from keras import ops
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


def maps_and_probabilities(rng):
    """The distances of each mask, as for every epoch."""
    y_true, p = masks_and_probabilities(rng)
    return cl.losses.distance_maps(y_true), p


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


def overlap(y_true, p, fp_weight=0.5, fn_weight=0.5, smooth=0.5, axes=(1, 2)):
    """The Tversky loss; with the defaults it is Dice with `smooth=1`."""
    tp, of_true, of_pred = (ops.sum(each, axis=axes) for each in (y_true * p, y_true, p))
    wrong = fp_weight * (of_pred - tp) + fn_weight * (of_true - tp)
    return ops.mean(wrong / (tp + wrong + smooth))


def log_dice_of_batch(y_true, p):
    """As segmentation_models.pytorch has it: `log_loss=True`, for a mask."""
    both, total = (y_true * p).sum(), (y_true + p).sum()
    return -torch.log(((2 * both + 1) / (total + 1)).clamp(min=1e-7))


def dice_of_two(y_true, p):
    """The second and the third of the channels, which come first."""
    y_true, p = y_true[:, 1:], p[:, 1:]
    both, total = (y_true * p).sum((2, 3)), (y_true + p).sum((2, 3))
    return (1 - (2 * both + 1) / (total + 1)).mean()


def dice_and_entropy(y_true, logits):
    log_p = ops.log_softmax(logits)
    return overlap(y_true, ops.exp(log_p)) - ops.mean(ops.sum(y_true * log_p, axis=-1))


def dice_and_binary_entropy(y_true, z):
    return overlap(y_true, ops.sigmoid(z)) + ops.mean(ops.softplus(z) - y_true * z)


def generalized(y_true, p):
    tp, of_true, of_pred = (ops.sum(each, axis=(1, 2)) for each in (y_true * p, y_true, p))
    weight = 1 / ops.square(of_true)
    total = ops.sum(weight * (of_true + of_pred), axis=-1)
    return ops.mean(1 - 2 * ops.sum(weight * tp, axis=-1) / total)


def focal(y_true, z):
    p = ops.sigmoid(z)
    entropy = ops.softplus(z) - y_true * z
    return ops.mean(ops.square(y_true + p - 2 * y_true * p) * entropy)


def _pair(data, ours, theirs, to_theirs=channels_first, bare=None):
    return Pair(data, ours, lambda: prediction_first(theirs()), to_theirs, bare)


SMOOTH = {"smooth_nr": 1.0, "smooth_dr": 1.0}
PAIRS = {
    "Dice": _pair(
        masks_and_probabilities,
        cl.losses.Dice,
        lambda: monai.DiceLoss(**SMOOTH),
        bare=overlap,
    ),
    "Dice, 3 classes": _pair(
        classes_and_probabilities,
        cl.losses.Dice,
        lambda: monai.DiceLoss(**SMOOTH),
        bare=overlap,
    ),
    "Dice, batch": _pair(
        masks_and_probabilities,
        lambda: cl.losses.Dice(over="batch"),
        lambda: monai.DiceLoss(batch=True, **SMOOTH),
        bare=lambda y_true, p: overlap(y_true, p, axes=(0, 1, 2)),
    ),
    "Dice, batch, 3 classes": _pair(
        classes_and_probabilities,
        lambda: cl.losses.Dice(over="batch"),
        lambda: monai.DiceLoss(batch=True, **SMOOTH),
        bare=lambda y_true, p: overlap(y_true, p, axes=(0, 1, 2)),
    ),
    "Dice, squares": _pair(
        masks_and_probabilities,
        lambda: cl.losses.Dice(power=2),
        lambda: monai.DiceLoss(squared_pred=True, **SMOOTH),
    ),
    "Dice, log, batch": Pair(
        masks_and_probabilities,
        lambda: cl.losses.Dice(log=True, over="batch"),
        lambda: log_dice_of_batch,
    ),
    "Dice, 2 of 3 classes": Pair(
        classes_and_probabilities,
        lambda: cl.losses.Dice(classes=[1, 2]),
        lambda: dice_of_two,
        channels_first,
    ),
    "dice_bce": _pair(
        masks,
        lambda: cl.losses.dice_bce(from_logits=True),
        lambda: monai.DiceCELoss(sigmoid=True, **SMOOTH),
        bare=dice_and_binary_entropy,
    ),
    "dice_ce": _pair(
        classes,
        lambda: cl.losses.dice_ce(from_logits=True),
        lambda: monai.DiceCELoss(softmax=True, **SMOOTH),
        bare=dice_and_entropy,
    ),
    "Tversky": _pair(
        masks_and_probabilities,
        lambda: cl.losses.Tversky(0.3, 0.7),
        lambda: monai.TverskyLoss(alpha=0.3, beta=0.7, **SMOOTH),
        bare=lambda y_true, p: overlap(y_true, p, 0.3, 0.7, 1.0),
    ),
    "GeneralizedDice": _pair(
        classes_and_probabilities,
        cl.losses.GeneralizedDice,
        monai.GeneralizedDiceLoss,
        bare=generalized,
    ),
    "GeneralizedDice, batch": _pair(
        classes_and_probabilities,
        lambda: cl.losses.GeneralizedDice(smooth=1e-5, over="batch"),
        lambda: monai.GeneralizedDiceLoss(batch=True),
    ),
    "MatthewsCorrelation": _pair(
        masks_and_probabilities, cl.losses.MatthewsCorrelation, lambda: monai.MCCLoss()
    ),
    "SignedDistanceBoundary": _pair(
        masks_and_probabilities, cl.losses.SignedDistanceBoundary, monai.BoundaryLoss
    ),
    "SignedDistance., precomp.": Pair(
        maps_and_probabilities,
        lambda: cl.losses.SignedDistanceBoundary(precomputed=True),
        lambda: lambda maps, p: (maps * p).mean(),
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
    "LovaszHinge, batch": _pair(
        masks,
        lambda: cl.losses.LovaszHinge(over="batch"),
        lambda: toolbelt.BinaryLovaszLoss(per_image=False),
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
        bare=focal,
    ),
    "SparseCategoricalFocal": _pair(
        labels_and_logits,
        lambda: cl.losses.SparseCategoricalFocal(from_logits=True),
        lambda: toolbelt.CrossEntropyFocalLoss(gamma=2.0),
        labels,
    ),
}
