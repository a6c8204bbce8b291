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


def float32(tensor):
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")


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
    drawn = keras.random.uniform(ops.shape(prediction), dtype="float32", seed=1)
    return 0.5 * prediction + 0.5 * ops.cast(drawn, prediction.dtype) * largest


def other_mask(mask):
    """A mask that leaves out about half of what there was; of nothing, half of all."""
    drawn = keras.random.uniform(ops.shape(mask), seed=0) < 0.5
    was = ops.cast(mask, "bool")
    return ops.where(ops.any(was), ops.logical_and(was, drawn), drawn)
