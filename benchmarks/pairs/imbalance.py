"""Few positives: focal losses of tags, the hardest elements, and quotients by the positives.

The peers are written here: timm's `AsymmetricLossMultiLabel` (timm/loss/asymmetric_loss.py, Apache
2.0), nnU-Net's top-k, the loss of RetinaNet as in Detectron2, and Poly-1 as in the paper.
"""

import numpy as np
import torch
from torch.nn import functional

import combined_losses as cl
from pairs import Pair
from pairs.regions import first, labels_and_logits, masks


def tags(rng):
    """Three of 80 tags for each of 4096 samples, and logits that know a little, `(4096, 80)`."""
    y_true = (rng.random((4096, 80)) < 3 / 80).astype("float32")
    logits = 2 * y_true - 3 + rng.normal(size=y_true.shape)
    return y_true, logits.astype("float32")


def anchors(rng):
    """One of 1000 anchors holds an object; `(8, 32768, 1)`."""
    y_true = (rng.random((8, 32768, 1)) < 1e-3).astype("float32")
    logits = 3 * y_true - 4 + rng.normal(size=y_true.shape)
    return y_true, logits.astype("float32")


def asymmetric(y_true, logits):
    """The sum is here a mean, as ours is; its logarithms are cut at 1e-8."""
    p = torch.sigmoid(logits)
    not_p = (1 - p + 0.05).clamp(max=1)
    entropy = y_true * torch.log(p.clamp(min=1e-8))
    entropy = entropy + (1 - y_true) * torch.log(not_p.clamp(min=1e-8))
    right = p * y_true + not_p * (1 - y_true)
    gamma = y_true + 4 * (1 - y_true)
    return -(entropy * torch.pow(1 - right, gamma)).mean()


def poly(y_true, logits):
    """One-hot classes last."""
    log_p = torch.log_softmax(logits, -1)
    entropy = -(y_true * log_p).sum(-1)
    return (entropy + 1 - (y_true * log_p.exp()).sum(-1)).mean()


def hardest(y_true, logits):
    entropy = functional.binary_cross_entropy_with_logits(logits, y_true, reduction="none")
    entropy = entropy.reshape(-1)
    return entropy.topk(entropy.numel() // 10, sorted=False)[0].mean()


def hardest_of_each(y_true, logits):
    entropy = functional.binary_cross_entropy_with_logits(logits, y_true, reduction="none")
    entropy = entropy.reshape(len(entropy), -1)
    return entropy.topk(entropy.shape[1] // 10, sorted=False)[0].mean()


def hardest_of_classes(y_true, logits):
    """Labels, and logits channels first, as nnU-Net has them."""
    entropy = functional.cross_entropy(logits, y_true, reduction="none").reshape(-1)
    return entropy.topk(entropy.numel() // 10, sorted=False)[0].mean()


def by_positives(y_true, logits):
    """`sigmoid_focal_loss` of fvcore: written with p and p_t."""
    p = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, y_true, reduction="none")
    p_t = p * y_true + (1 - p) * (1 - y_true)
    balance = 0.25 * y_true + 0.75 * (1 - y_true)
    total = (balance * entropy * (1 - p_t) ** 2).sum()
    return total / y_true.sum().clamp(min=1)


def one_hot_and_logits(rng):
    labels, logits = labels_and_logits(rng)
    return np.eye(3, dtype="float32")[labels], logits


def labels_first(labels, logits):
    return labels.astype("int64"), first(logits)


def binary():
    return cl.losses.BinaryFocal(0.0, from_logits=True)


PAIRS = {
    "AsymmetricFocal": Pair(
        tags, lambda: cl.losses.AsymmetricFocal(from_logits=True), lambda: asymmetric
    ),
    "PolyCrossEntropy": Pair(
        one_hot_and_logits, lambda: cl.losses.PolyCrossEntropy(from_logits=True), lambda: poly
    ),
    "Hardest, batch": Pair(
        masks,
        lambda: cl.wrappers.Hardest(binary(), fraction=0.1, over="batch"),
        lambda: hardest,
    ),
    "Hardest, sample": Pair(
        masks, lambda: cl.wrappers.Hardest(binary(), fraction=0.1), lambda: hardest_of_each
    ),
    "Hardest, 3 classes": Pair(
        labels_and_logits,
        lambda: cl.wrappers.Hardest(
            cl.losses.SparseCategoricalFocal(0.0, from_logits=True), fraction=0.1, over="batch"
        ),
        lambda: hardest_of_classes,
        labels_first,
    ),
    "NormalizedByPositives": Pair(
        anchors,
        lambda: cl.wrappers.NormalizedByPositives(
            cl.losses.BinaryFocal(2.0, 0.25, from_logits=True)
        ),
        lambda: by_positives,
    ),
}
