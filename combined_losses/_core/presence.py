"""Whether anything of a batch counts in a component; if not, rules treat it as absent."""

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
    """Whether anything in this replica's batch counts, `()`. None: certainly, or nobody asks.

    Args:
        batch: the `Batch` of the data, with all weights and mask.
        values: the values of the loss, or None.
        counted: the `Batch` with those weights and mask that still have to be applied to `values`;
            the loss has applied the others.
    """
    if not batch.asks_presence:
        return None
    rows = batch if counted is None else counted
    found = [] if rows.size else [ops.not_equal(ops.convert_to_tensor(rows.count), 0)]
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
    """Whether a loss made of others is present: any part of weight other than 0 is present.

    Args:
        batch: the `Batch` of the data.
        found: for each part, whether it is present.
        weights: for each part, its weight in this step, or None if that is never 0. Default: no
            weight is ever 0.
    """
    if not batch.asks_presence:
        return None
    weights = [None] * len(found) if weights is None else weights
    found = [_counting(present, weight) for present, weight in zip(found, weights, strict=True)]
    if any(present is None for present in found):
        return None
    return functools.reduce(ops.logical_or, found)


def _counting(present: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """Whether a part is present and its weight is not 0; None means "certainly"."""
    if weight is None:
        return present
    counts = ops.not_equal(weight, 0.0)
    return counts if present is None else ops.logical_and(present, counts)


def _any(weights: Any, like: Tensor | None) -> list[Tensor]:
    """Flags that must all be true for anything to count.

    One flag is for all weights that fit `like`: at some place none of them is 0. Each other weight
    has a flag of its own: it is not 0 everywhere.
    """
    joint, found = None, []
    for weight in keras.tree.flatten(weights):
        used = is_used(weight)
        fitted = None if like is None else fit_from_left(used, like)
        if fitted is None:
            found.append(ops.any(used))
        else:
            joint = fitted if joint is None else ops.logical_and(joint, fitted)
    return found if joint is None else [*found, ops.any(joint)]
