"""Places of the outputs of a model, and one array of sample weights for several outputs."""

from typing import Any

import keras

from combined_losses._core.batch import Batch
from combined_losses._core.outputs import Place, places_of
from combined_losses._numerics.arrays import Tensor


def places_in(batch: Batch) -> dict[str, Place]:
    """The places of the outputs; a loss that is called without a model finds them in `y_pred`."""
    return places_of(batch.y_pred) if batch.places is None else batch.places


def mean_weight(weights: Any, label: str) -> Tensor:
    """The mean of several arrays of sample weights; Keras repeats a single one for each output."""
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    if len({tuple(leaf.shape) for leaf in leaves}) > 1:
        raise ValueError(
            f"Component '{label}' reads several outputs, whose sample weights have no mean: give "
            "them one shape, or choose one by OnOutput(..., target=key). Received: sample weights "
            f"of shapes {', '.join(str(tuple(leaf.shape)) for leaf in leaves)}"
        )
    return sum(leaves[1:], leaves[0]) / len(leaves) if leaves else None
