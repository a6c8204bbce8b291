"""Predictions, targets, weights and masks that are changed, to see what the components do."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from combined_losses._core.masks import read_mask, with_mask
from combined_losses._numerics.arrays import Tensor
from combined_losses.diagnosis.batches import Arrays

Change: TypeAlias = Callable[[Tensor], Tensor]
"""A function that changes one tensor."""

Tensors: TypeAlias = Any
"""A tensor, None, or lists and dicts of these."""


def _copied(tensor: Tensor) -> Tensor:
    return 1 * tensor  # on JAX the tensor itself would keep its mask


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


# Tensors.


def packed_like(y_pred: Tensors, points: Sequence[Tensor]) -> Tensors:
    """Points in the structure of predictions, with the masks of these."""
    masked = [
        with_mask(point, read_mask(leaf))
        for point, leaf in zip(points, keras.tree.flatten(y_pred), strict=True)
    ]
    return keras.tree.pack_sequence_as(y_pred, masked)


def perturbed(
    y_pred: Tensors, change: Change = _copied, change_mask: Change = _unchanged
) -> Tensors:
    """Predictions without a gradient, changed by a function, and their masks by another one."""

    def mapped(leaf: Tensor) -> Tensor:
        mask = read_mask(leaf)
        changed = ops.stop_gradient(change(leaf))
        return changed if mask is None else with_mask(changed, change_mask(mask))

    return keras.tree.map_structure(mapped, y_pred)


def nearby(tensor: Tensor) -> Tensor:
    """A tensor whose numbers differ a little from those of the given one."""
    noise = keras.random.normal(ops.shape(tensor), dtype="float32", seed=2)
    return tensor + 1e-3 * (1 + ops.abs(tensor)) * ops.cast(noise, tensor.dtype)


def different_samples(prediction: Tensor) -> Tensor:
    """Predictions that differ from sample to sample; probabilities remain probabilities."""
    if 0 in prediction.shape:
        return prediction  # an output without rows in this batch has no largest number
    largest = ops.maximum(ops.max(ops.abs(prediction)), 1)
    spread = ops.cast(_spread(ops.shape(prediction)), prediction.dtype)
    return 0.5 * prediction + 0.5 * spread * largest


# The fractions of independent square roots. Their multiples modulo 1 fill [0, 1) without a pattern.
_STEPS = (0.618034, 0.414214, 0.732051, 0.645751, 0.316625)


def _spread(shape: Sequence[int]) -> Tensor:
    """Numbers in [0, 1) that differ from element to element, and are the same in every call."""
    total: Tensor = 0.0
    for axis, size in enumerate(shape):
        steps = ops.cast(ops.arange(size), "float32") * _STEPS[axis % len(_STEPS)] % 1.0
        total = total + ops.reshape(steps, (-1, *([1] * (len(shape) - axis - 1))))
    return total % 1.0


def other_mask(mask: Tensor) -> Tensor:
    """A mask that keeps about half of the elements of another mask; half of all if it has none."""
    drawn = keras.random.uniform(ops.shape(mask), seed=0) < 0.5
    given = ops.cast(mask, "bool")
    return ops.where(ops.any(given), ops.logical_and(given, drawn), drawn)


def other_value(variable: keras.Variable) -> Tensor:
    """Another value for a variable, of about the same size."""
    value = ops.convert_to_tensor(variable.value)
    noise = keras.random.normal(ops.shape(value), dtype="float32", seed=3)
    noise = ops.cast(noise, value.dtype)
    return value * (1 + 0.1 * noise) + 0.01 * noise


def turned_channels(prediction: Tensor) -> Tensor:
    """Predictions with the channels in another order."""
    return ops.roll(prediction, 1, axis=-1)


# From arrays.


def changes_for(y: Arrays) -> list[Change]:
    """Functions that change predictions in many ways, to see whether a component reacts to one."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    finite = [leaf[np.isfinite(leaf)] for leaf in leaves if leaf.dtype.kind in "fiu"]
    sizes = [np.abs(leaf.astype("float64")).mean() for leaf in finite if leaf.size]
    step = 1.0 + max(map(float, sizes), default=0.0)
    rng = np.random.default_rng(0)

    def far(scale: float) -> Change:
        return lambda p: p + ops.cast(scale * step * rng.normal(size=p.shape), p.dtype)

    # The first three turn probabilities into probabilities.
    return [
        lambda p: ops.roll(p, 1, axis=0),
        lambda p: 0.5 * p,
        lambda p: 1.0 - p,
        far(1.0),
        far(1e4),
    ]


def other_weights(weights: Arrays) -> Arrays:
    """Weights from 0.5 to 1.5 times as large; None where fewer than two samples have a weight.

    An output of a single row, beside others, cannot have two; its part is not judged by it.
    """
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None and len(leaf) > 1]
    if not leaves or any(np.count_nonzero(leaf) < 2 for leaf in leaves):
        return None
    rng = np.random.default_rng(0)

    def other(weight: np.ndarray) -> np.ndarray:
        drawn = rng.uniform(0.5, 1.5, weight.shape)
        changed: np.ndarray = (weight * drawn).astype(keras.config.floatx())
        return changed

    return keras.tree.map_structure(lambda w: None if w is None else other(w), weights)


def repeated_targets(
    y: Arrays, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """The targets repeated to the shape of the predictions, and other targets of that shape.

    None where targets cannot be repeated to that shape.
    """
    if shape is None or not hasattr(y, "shape") or len(y.shape) != len(shape):
        return None
    if not all(n in (1, m) for n, m in zip(y.shape, shape, strict=True)):
        return None
    return np.broadcast_to(y, shape), np.broadcast_to(y + 1 + np.abs(y), shape)
