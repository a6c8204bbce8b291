"""Embeddings: vectors, `(batch, features)`, that shall be near each other for similar samples.

`distances.py` and `triplets.py` measure by distance, `cosines.py` and `similarities.py` by angle or
inner product, `towers.py` the products of pairs; `pairs.py` finds which pairs of samples in a batch
have the same label, and `measures.py` how far they are apart. `paired.py` and `views.py` compare
two outputs of a model; `proxies.py` compares embeddings with learned vectors.
"""

from combined_losses.losses.embeddings.cosines import NTXent, SupervisedContrastive
from combined_losses.losses.embeddings.distances import (
    Contrastive,
    ContrastivePairs,
    TripletSemiHard,
)
from combined_losses.losses.embeddings.paired import PairedContrastive
from combined_losses.losses.embeddings.proxies import ProxyAnchor
from combined_losses.losses.embeddings.similarities import MultiSimilarity, NPairs
from combined_losses.losses.embeddings.towers import InBatchSoftmax
from combined_losses.losses.embeddings.triplets import LiftedStructure, TripletHard
from combined_losses.losses.embeddings.views import BarlowTwins, VICReg

__all__ = [
    "BarlowTwins",
    "Contrastive",
    "ContrastivePairs",
    "InBatchSoftmax",
    "LiftedStructure",
    "MultiSimilarity",
    "NPairs",
    "NTXent",
    "PairedContrastive",
    "ProxyAnchor",
    "SupervisedContrastive",
    "TripletHard",
    "TripletSemiHard",
    "VICReg",
]
