"""Embeddings: vectors, `(batch, features)`, that shall be near each other for similar samples.

`distances.py` measures by Euclidean distance, `cosines.py` by angle, `towers.py` the products of
pairs; `pairs.py` finds which pairs of samples in a batch have the same label.
"""

from combined_losses.losses.embeddings.cosines import NTXent, SupervisedContrastive
from combined_losses.losses.embeddings.distances import (
    Contrastive,
    ContrastivePairs,
    TripletSemiHard,
)
from combined_losses.losses.embeddings.towers import InBatchSoftmax

__all__ = [
    "Contrastive",
    "ContrastivePairs",
    "InBatchSoftmax",
    "NTXent",
    "SupervisedContrastive",
    "TripletSemiHard",
]
