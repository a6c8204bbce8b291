"""Embeddings, beside pytorch-metric-learning and lightly: 512, most of 128 numbers."""

import functools
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

import combined_losses as cl
from pairs import Pair

# pytorch-metric-learning imports a progress bar, for its trainers.
sys.modules.setdefault("tqdm", types.SimpleNamespace(tqdm=None))

from pytorch_metric_learning import distances, losses, miners, reducers  # noqa: E402

EUCLIDEAN = {"distance": distances.LpDistance(normalize_embeddings=False)}
# Theirs averages over the pairs or triplets that cost something, unless told otherwise.
OVER_ALL = {"reducer": reducers.MeanReducer()}


PROXIES = np.random.default_rng(1).normal(size=(64, 128)).astype("float32")


def from_lightly(module):
    """A module of `lightly.loss`: the package itself imports torchvision, for its data."""
    if "lightly" not in sys.modules:
        [root] = importlib.util.find_spec("lightly").submodule_search_locations
        for name in ("lightly", "lightly.loss", "lightly.utils"):
            package = types.ModuleType(name)
            package.__path__ = [str(Path(root, *name.split(".")[1:]))]
            sys.modules[name] = package
    return importlib.import_module(f"lightly.loss.{module}")


def classes(rng):
    """Eight embeddings of each of 64 classes that overlap: 1.6 apart in one, 1.8 in two."""
    labels = np.repeat(np.arange(64), 8)
    embeddings = 0.05 * rng.normal(size=(64, 128))[labels] + 0.1 * rng.normal(size=(512, 128))
    return labels, embeddings.astype("float32")


def views(rng):
    """Two views each of 256 samples."""
    labels = np.tile(np.arange(256), 2)
    return labels, rng.normal(size=(512, 128)).astype("float32")


def unit_classes(rng):
    """Of length 1, as the peers make them."""
    labels, embeddings = classes(rng)
    return labels, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def few_classes(rng):
    """128 of them: the peers list all triplets, or go through all pairs one by one."""
    labels, embeddings = unit_classes(rng)
    return labels[:128], embeddings[:128]


def two_outputs(rng, features=512):
    """The second is near the first."""
    one = rng.normal(size=(512, features)).astype("float32")
    return one, one + 0.5 * rng.normal(size=one.shape).astype("float32")


def projected(rng):
    """Of many features, which losses of correlations are given."""
    return two_outputs(rng, 1024)


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


def hard_triplets():
    loss = losses.TripletMarginLoss(margin=0.2, **OVER_ALL)
    miner = miners.BatchHardMiner()
    return lambda labels, embeddings: loss(embeddings, labels, miner(embeddings, labels))


def all_triplets():
    loss = losses.TripletMarginLoss(margin=0.2, **OVER_ALL)
    return lambda labels, embeddings: loss(embeddings, labels)


def lifted():
    loss = losses.LiftedStructureLoss(neg_margin=1.0, **EUCLIDEAN, **OVER_ALL)
    return lambda labels, embeddings: loss(embeddings, labels)


def n_pairs(_, embeddings):
    """As users write it: each of two views among all; the library takes one pair of a class."""
    logits = (embeddings @ embeddings.T).fill_diagonal_(-torch.inf)
    return torch.nn.functional.cross_entropy(logits, (torch.arange(512) + 256) % 512)


def proxies():
    loss = losses.ProxyAnchorLoss(64, 128)
    loss.proxies.data = torch.tensor(PROXIES)
    return lambda labels, embeddings: loss(embeddings, labels)


def partners(y, p):
    """The two cross-entropies of CLIP, as its users write them."""
    y, p = (torch.nn.functional.normalize(array, dim=-1) for array in (y, p))
    logits, right = y @ p.T / 0.07, torch.arange(len(y))
    both = (torch.nn.functional.cross_entropy(each, right) for each in (logits, logits.T))
    return sum(both) / 2


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
    "TripletHard": Pair(unit_classes, functools.partial(cl.losses.TripletHard, 0.2), hard_triplets),
    "TripletHard, all": Pair(
        few_classes, functools.partial(cl.losses.TripletHard, 0.2, "all"), all_triplets
    ),
    "LiftedStructure": Pair(few_classes, cl.losses.LiftedStructure, lifted),
    "MultiSimilarity": Pair(
        classes, cl.losses.MultiSimilarity, _labelled(losses.MultiSimilarityLoss())
    ),
    "NPairs": Pair(views, cl.losses.NPairs, lambda: n_pairs),
    "ProxyAnchor": Pair(
        classes,
        functools.partial(cl.losses.ProxyAnchor, 64, 128, proxies=PROXIES.tolist()),
        proxies,
    ),
    "PairedContrastive": Pair(two_outputs, cl.losses.PairedContrastive, lambda: partners),
    "BarlowTwins": Pair(
        projected,
        cl.losses.BarlowTwins,
        lambda: from_lightly("barlow_twins_loss").BarlowTwinsLoss(),
    ),
    "VICReg": Pair(projected, cl.losses.VICReg, lambda: from_lightly("vicreg_loss").VICRegLoss()),
}
