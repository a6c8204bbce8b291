"""Embeddings: vectors, `(batch, features)`, in which neighbours shall be alike.

`distances.py` measures by Euclidean distance, `cosines.py` by angle; `pairs.py` holds what a batch
of labels says of its pairs.
"""

from combined_losses.losses.embeddings import cosines, distances
from combined_losses.losses.embeddings.cosines import *  # noqa: F403
from combined_losses.losses.embeddings.distances import *  # noqa: F403

__all__ = [*distances.__all__, *cosines.__all__]
