"""Whether anything of a batch counts in a component. If nothing does, it is absent for a rule."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._core.alignment import fit_from_left, is_used
from combined_losses._core.batch import Batch
from combined_losses._numerics.arrays import Tensor


def presence(
    batch: Batch, values: Tensor | None = None, counted: Batch | None = None
) -> Tensor | None:
    """Whether anything in a batch of this replica counts, `()`; None: surely, or nobody asks.

    Args:
        batch: the `Batch` of the data. Of its weights and mask a loss may have applied some by
            itself.
        values: None, or what the loss gave for it.
        counted: the `Batch` whose weights and mask are those of `values`.
    """
    if not batch.asks_presence:
        return None
    found = [] if batch.size else [ops.not_equal(ops.convert_to_tensor(batch.count), 0)]
    given = [weight for _, weight in batch.weights()]
    left = [] if counted is None else [weight for _, weight in counted.weights()]
    found += _any(left, values)
    if not {id(weight) for weight in given} <= {id(weight) for weight in left}:
        single = not keras.tree.is_nested(batch.y_pred)
        found += _any(given, batch.y_pred if single else None)
    return functools.reduce(ops.logical_and, found) if found else None


def any_present(
    batch: Batch, found: Sequence[Tensor | None], weights: Sequence[Tensor | None] | None = None
) -> Tensor | None:
    """Whether a loss made of others is present: one of them is, whose weight is not 0.

    Args:
        batch: the `Batch` of the data.
        found: a list of whether each of them is present.
        weights: a list of their weights in this step, None for one that is never 0; default: none
            is ever 0.
    """
    if not batch.asks_presence:
        return None
    weights = [None] * len(found) if weights is None else weights
    found = [_counting(present, weight) for present, weight in zip(found, weights, strict=True)]
    if any(present is None for present in found):
        return None
    return functools.reduce(ops.logical_or, found)


def _counting(present: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """Whether what has this weight is present and counts."""
    if weight is None:
        return present
    counts = ops.not_equal(weight, 0.0)
    return counts if present is None else ops.logical_and(present, counts)


def _any(weights: Any, like: Tensor | None) -> list[Tensor]:
    """Whether weights that fit `like` are other than 0 at one place, and each of the rest is."""
    joint, found = None, []
    for weight in keras.tree.flatten(weights):
        used = is_used(weight)
        fitted = None if like is None else fit_from_left(used, like)
        if fitted is None:
            found.append(ops.any(used))
        else:
            joint = fitted if joint is None else ops.logical_and(joint, fitted)
    return found if joint is None else [*found, ops.any(joint)]
