"""Places of the outputs of a model, and one array of sample weights for several outputs."""

from typing import Any

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.outputs import Place, places_of
from combined_losses._numerics.arrays import Tensor


def places_in(batch: Batch) -> dict[str, Place]:
    """The places of the outputs; a loss that is called without a model finds them in `y_pred`."""
    return places_of(batch.y_pred) if batch.places is None else batch.places


def weight_of_rows(weights: Any, rows: Tensor) -> Tensor:
    """The mean of the sample weights of several outputs, for a term that names none of them.

    `rows` is the array whose rows are weighed. Keras repeats a single array of weights for each
    output, and that one has its rows. Weights with other numbers of rows are those of other
    outputs alone: then the term counts unweighted. TensorFlow may know the numbers only later.
    """
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    sizes = [array.shape[0] if len(array.shape) else 1 for array in (*leaves, rows)]
    if len({size for size in sizes if size is not None}) > 1:
        return None
    ranks = {len(leaf.shape) for leaf in leaves}
    if None not in sizes or len(leaves) < 2 or ranks != {1}:
        return mean_weight(leaves, "")
    lengths = [ops.shape(array)[0] for array in (*leaves, rows)]
    same = ops.all(ops.equal(ops.stack(lengths[:-1]), lengths[-1]))
    return ops.cond(
        same,
        lambda: mean_weight(leaves, ""),
        lambda: ops.ones((lengths[-1],), leaves[0].dtype),
    )


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
