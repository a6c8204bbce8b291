"""Qualities, beside the formulas of mmdetection, which is not installed: 8400 anchors, 20 classes.

`quality_focal_loss` and `varifocal_loss` of mmdet/models/losses (Apache 2.0), without the indexes
of positives: theirs of qualities takes a label and a score for each anchor, here both are dense.
"""

import numpy as np
import torch

import combined_losses as cl
from pairs import Pair

entropy = torch.nn.functional.binary_cross_entropy_with_logits


def anchors(rng):
    """One in a hundred has an object."""
    quality = np.where(rng.random((2, 8400, 20)) < 0.01, rng.random((2, 8400, 20)), 0)
    return quality.astype("float32"), rng.normal(-2, 2, (2, 8400, 20)).astype("float32")


def quality_focal(y_true, y_pred):
    distance = (y_true - y_pred.sigmoid()).abs()
    return (entropy(y_pred, y_true, reduction="none") * distance.pow(2.0)).mean()


def varifocal(y_true, y_pred):
    positive = (y_true > 0).float()
    miss = (y_pred.sigmoid() - y_true).abs()
    weight = y_true * positive + 0.75 * miss.pow(2.0) * (1 - positive)
    return (entropy(y_pred, y_true, reduction="none") * weight).mean()


PAIRS = {
    "QualityFocal": Pair(
        anchors, lambda: cl.losses.QualityFocal(from_logits=True), lambda: quality_focal
    ),
    "Varifocal": Pair(anchors, lambda: cl.losses.Varifocal(from_logits=True), lambda: varifocal),
}
