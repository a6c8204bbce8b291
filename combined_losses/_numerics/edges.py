"""How much the neighbours in a field differ."""

import math

from keras import ops

from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.distances import part
from combined_losses._numerics.floats import magnitude


def edges(field: Tensor, axis: int) -> Tensor:
    """The absolute differences of neighbours along `axis`."""
    return magnitude(part(field, axis, 1, None) - part(field, axis, None, -1))


def mean_edge(values: Tensor) -> Tensor:
    """The mean over each sample, `(batch,)`; 0 where an axis of length 1 leaves no edges."""
    number = ops.maximum(math.prod(ops.shape(values)[1:]), 1)
    axes = tuple(range(1, len(values.shape)))
    return ops.sum(values, axis=axes) / ops.cast(number, values.dtype)
