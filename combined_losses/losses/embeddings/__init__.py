"""Embeddings: vectors, `(batch, features)`, that shall be near each other for similar samples.

`distances.py` measures by Euclidean distance, `cosines.py` by angle; `pairs.py` finds which pairs
of samples in a batch have the same label.
"""

from combined_losses.losses.embeddings.cosines import NTXent, SupervisedContrastive
from combined_losses.losses.embeddings.distances import (
    Contrastive,
    ContrastivePairs,
    TripletSemiHard,
)

__all__ = ["Contrastive", "ContrastivePairs", "NTXent", "SupervisedContrastive", "TripletSemiHard"]
