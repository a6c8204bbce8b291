"""Predictions, targets, weights and masks that are changed, to see what the components do."""

import keras
import numpy as np
from keras import ops

from combined_losses._core.masks import read_mask, with_mask

# Tensors.


def packed_like(y_pred, points):
    """Points in the structure of predictions, with their masks."""
    masked = [
        with_mask(point, read_mask(leaf))
        for point, leaf in zip(points, keras.tree.flatten(y_pred), strict=True)
    ]
    return keras.tree.pack_sequence_as(y_pred, masked)


def perturbed(y_pred, change=lambda prediction: 1 * prediction, change_mask=lambda mask: mask):
    """Predictions without a gradient, changed by a function, and their masks by another one.

    Each is a tensor of its own: on JAX the same one would keep its mask.
    """

    def mapped(leaf):
        mask = read_mask(leaf)
        changed = ops.stop_gradient(change(leaf))
        return changed if mask is None else with_mask(changed, change_mask(mask))

    return keras.tree.map_structure(mapped, y_pred)


def nearby(tensor):
    """A tensor that differs a little."""
    noise = keras.random.normal(ops.shape(tensor), dtype="float32", seed=2)
    return tensor + 1e-3 * (1 + ops.abs(tensor)) * ops.cast(noise, tensor.dtype)


def different_samples(prediction):
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


def other_value(variable):
    """Another value of a variable, of the same order."""
    value = ops.convert_to_tensor(variable.value)
    noise = keras.random.normal(ops.shape(value), dtype="float32", seed=3)
    noise = ops.cast(noise, value.dtype)
    return value * (1 + 0.1 * noise) + 0.01 * noise


def turned_channels(prediction):
    """Predictions with the channels in another order."""
    return ops.roll(prediction, 1, axis=-1)


# From arrays.


def changes_for(y):
    """Functions that change predictions in all ways, to see whether a component reacts to any."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    finite = [leaf[np.isfinite(leaf)] for leaf in leaves if leaf.dtype.kind in "fiu"]
    sizes = [np.abs(leaf.astype("float64")).mean() for leaf in finite if leaf.size]
    step = 1.0 + max(map(float, sizes), default=0.0)
    rng = np.random.default_rng(0)

    def far(scale):
        return lambda p: p + ops.cast(scale * step * rng.normal(size=p.shape), p.dtype)

    of_probabilities = (lambda p: ops.roll(p, 1, axis=0), lambda p: 0.5 * p, lambda p: 1.0 - p)
    return [*of_probabilities, far(1.0), far(1e4)]


def other_weights(weights):
    """Weights between 0.5 and 1.5 times as large, 0 stays 0; None where one sample alone counts."""
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    if not leaves or any(np.count_nonzero(leaf) < 2 for leaf in leaves):
        return None
    rng = np.random.default_rng(0)

    def other(weight):
        drawn = rng.uniform(0.5, 1.5, weight.shape)
        return (weight * drawn).astype(keras.config.floatx())

    return keras.tree.map_structure(lambda w: None if w is None else other(w), weights)


def repeated_targets(y, shape):
    """Targets repeated to the shape of the predictions, and others; None where that cannot be."""
    if shape is None or not hasattr(y, "shape") or len(y.shape) != len(shape):
        return None
    if not all(n in (1, m) for n, m in zip(y.shape, shape, strict=True)):
        return None
    return np.broadcast_to(y, shape), np.broadcast_to(y + 1 + np.abs(y), shape)
