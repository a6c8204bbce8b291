"""Embeddings, beside pytorch-metric-learning: 512 of 128 numbers."""

import sys
import types

import numpy as np

import combined_losses as cl
from pairs import Pair

# pytorch-metric-learning imports a progress bar, for its trainers.
sys.modules.setdefault("tqdm", types.SimpleNamespace(tqdm=None))

from pytorch_metric_learning import distances, losses, miners, reducers  # noqa: E402

EUCLIDEAN = {"distance": distances.LpDistance(normalize_embeddings=False)}
# Theirs averages over the pairs or triplets that cost something, unless told otherwise.
OVER_ALL = {"reducer": reducers.MeanReducer()}


def classes(rng):
    """Eight embeddings of each of 64 classes that overlap: 1.6 apart in one, 1.8 in two."""
    labels = np.repeat(np.arange(64), 8)
    embeddings = 0.05 * rng.normal(size=(64, 128))[labels] + 0.1 * rng.normal(size=(512, 128))
    return labels, embeddings.astype("float32")


def views(rng):
    """Two views each of 256 samples."""
    labels = np.tile(np.arange(256), 2)
    return labels, rng.normal(size=(512, 128)).astype("float32")


def distances_of_pairs(rng):
    """A thousand times a thousand pairs, similar or not."""
    similar = rng.integers(0, 2, (1000, 1000)).astype("float32")
    return similar, rng.uniform(0, 2, (1000, 1000)).astype("float32")


def formula(similar, distance):
    """What Siamese examples of torch write out; the library has it of embeddings only."""
    near, far = distance.pow(2), (1 - distance).clamp(min=0).pow(2)
    return (similar * near + (1 - similar) * far).mean()


def contrastive_pairs():
    """Not squared, and the sum of the means over the pairs of each kind."""
    loss = losses.ContrastiveLoss(pos_margin=0, neg_margin=1, **EUCLIDEAN, **OVER_ALL)
    return lambda labels, embeddings: loss(embeddings, labels)


def triplets():
    """All positives, and all negatives beyond by less than the margin; ours is the nearest one.

    And where no negative is beyond, ours is the farthest, theirs none. The miner that takes one
    negative, `BatchEasyHardMiner`, does so for one positive of an anchor only.
    """
    loss = losses.TripletMarginLoss(margin=1.0, **EUCLIDEAN)
    miner = miners.TripletMarginMiner(margin=1.0, type_of_triplets="semihard", **EUCLIDEAN)
    return lambda labels, embeddings: loss(embeddings, labels, miner(embeddings, labels))


def _labelled(loss):
    """The peers take the embeddings first."""
    return lambda: lambda labels, embeddings: loss(embeddings, labels)


PAIRS = {
    "Contrastive": Pair(distances_of_pairs, cl.losses.Contrastive, lambda: formula),
    "ContrastivePairs": Pair(classes, cl.losses.ContrastivePairs, contrastive_pairs),
    "TripletSemiHard": Pair(classes, cl.losses.TripletSemiHard, triplets),
    "NTXent": Pair(views, cl.losses.NTXent, _labelled(losses.NTXentLoss(temperature=0.5))),
    "SupervisedContrastive": Pair(
        classes,
        cl.losses.SupervisedContrastive,
        _labelled(losses.SupConLoss(temperature=0.1, **OVER_ALL)),
    ),
}
