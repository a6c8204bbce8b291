"""Predictions changed by functions, to see what the components make of it."""

import keras
from keras import ops

from combined_losses._internal.masks import read_mask, with_mask


def like(y_pred, points):
    """Points in the structure of predictions, with their masks."""
    masked = [
        with_mask(point, read_mask(leaf))
        for point, leaf in zip(points, keras.tree.flatten(y_pred), strict=True)
    ]
    return keras.tree.pack_sequence_as(y_pred, masked)


def changed(y_pred, mask=lambda mask: mask, change=lambda prediction: 1 * prediction):
    """Predictions without a gradient, changed by a function, and their masks by another one.

    Each is a tensor of its own: on JAX the same one would keep its mask.
    """

    def mapped(leaf):
        found = read_mask(leaf)
        moved = ops.stop_gradient(change(leaf))
        return moved if found is None else with_mask(moved, mask(found))

    return keras.tree.map_structure(mapped, y_pred)


def beside(tensor):
    noise = keras.random.normal(ops.shape(tensor), dtype="float32", seed=2)
    return tensor + 1e-3 * (1 + ops.abs(tensor)) * ops.cast(noise, tensor.dtype)


def unlike(prediction):
    """Predictions that differ from sample to sample; of probabilities, probabilities again."""
    largest = ops.maximum(ops.max(ops.abs(prediction)), 1)
    spread = ops.cast(_spread(ops.shape(prediction)), prediction.dtype)
    return 0.5 * prediction + 0.5 * spread * largest


# Of independent square roots: their multiples modulo 1 are spread over [0, 1) without a pattern.
_STEPS = (0.618034, 0.414214, 0.732051, 0.645751, 0.316625)


def _spread(shape):
    """Numbers in [0, 1) that differ from element to element, the same in every call."""
    total = 0.0
    for axis, size in enumerate(shape):
        steps = ops.cast(ops.arange(size), "float32") * _STEPS[axis % len(_STEPS)] % 1.0
        total = total + ops.reshape(steps, (-1, *([1] * (len(shape) - axis - 1))))
    return total % 1.0


def other_mask(mask):
    """A mask that leaves out about half of what there was; of nothing, half of all."""
    drawn = keras.random.uniform(ops.shape(mask), seed=0) < 0.5
    was = ops.cast(mask, "bool")
    return ops.where(ops.any(was), ops.logical_and(was, drawn), drawn)
