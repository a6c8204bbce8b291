"""Embeddings: vectors, `(batch, features)`, in which neighbours shall be alike.

`distances.py` measures by Euclidean distance, `cosines.py` by angle; `pairs.py` holds what a batch
of labels says of its pairs.
"""

from combined_losses.losses.embeddings.cosines import NTXent, SupervisedContrastive
from combined_losses.losses.embeddings.distances import (
    Contrastive,
    ContrastivePairs,
    TripletSemiHard,
)

__all__ = ["Contrastive", "ContrastivePairs", "NTXent", "SupervisedContrastive", "TripletSemiHard"]
