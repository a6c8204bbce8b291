"""Where the outputs of a model are, and one array of sample weights for several of them."""

from typing import Any

import keras

from combined_losses._core.batch import Batch
from combined_losses._core.outputs import Place, places_of
from combined_losses._numerics.arrays import Tensor


def places_in(batch: Batch) -> dict[str, Place]:
    """Where the outputs are; a loss that is called by itself is given a dict of them."""
    return places_of(batch.y_pred) if batch.places is None else batch.places


def mean_weight(weights: Any, label: str) -> Tensor:
    """One array of sample weights in place of several, which are equal where one was given."""
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    if len({tuple(leaf.shape) for leaf in leaves}) > 1:
        raise ValueError(
            f"Component '{label}' reads several outputs, whose sample weights have no mean: give "
            "them one shape, or choose one by OnOutput(..., target=key). Received: sample weights "
            f"of shapes {', '.join(str(tuple(leaf.shape)) for leaf in leaves)}"
        )
    return sum(leaves[1:], leaves[0]) / len(leaves) if leaves else None
