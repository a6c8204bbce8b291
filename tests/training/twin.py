"""A composite in NumPy, in float64: children written as formulas, reductions as sums and counts.

Nothing here calls the package; the tests compare what a model logs with what these functions give.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

PER_COMPONENT = "per_component"


@dataclasses.dataclass
class Child:
    """One component: how to make it, and its values for a batch in NumPy.

    `values` has the shape `(N, T, D)`, `(N, T)`, `(N,)` or `()`. Weights and masks that are finer
    than that cannot be honoured.
    """

    loss: Any
    values: Callable
    reduction: str = "sum_over_batch_size"

    def entries(self, name, batch, imposed):
        """`{name: value}` of this component."""
        reduction = self.reduction if imposed == PER_COMPONENT else imposed
        values = np.asarray(self.values(batch.y_true, batch.y_pred), "float64")
        return {name: reduce(values, batch.weight, batch.mask, reduction)}


@dataclasses.dataclass
class Composite:
    """A composite of children and composites; `loss` is the one under test."""

    loss: Any
    children: dict
    weights: dict
    reduction: str = PER_COMPONENT

    def total(self, entries, prefix=""):
        return sum(weight * entries[prefix + name] for name, weight in self.weights.items())

    def entries(self, name, batch, imposed=PER_COMPONENT):
        """`{name: total}` followed by every part as `name/part`, or the parts alone (no name)."""
        reduction = self.reduction if imposed == PER_COMPONENT else imposed
        prefix = f"{name}/" if name else ""
        parts = {}
        for key, child in self.children.items():
            parts |= child.entries(prefix + key, batch, reduction)
        return {name: self.total(parts, prefix), **parts} if name else parts


@dataclasses.dataclass
class Batch:
    y_true: np.ndarray
    y_pred: np.ndarray
    weight: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __len__(self):
        return len(self.y_pred)

    def __getitem__(self, rows):
        parts = (self.y_true, self.y_pred, self.weight, self.mask)
        return Batch(*(None if part is None else part[rows] for part in parts))


def reduce(values, weight, mask, reduction):
    """A sum of weighted values, over what the reduction counts."""
    if not values.shape:
        return float(values)
    weight, mask = spread(weight, values.shape), spread(mask, values.shape)
    total = np.sum(values * weight * mask)
    if reduction == "sum":
        return total
    count = np.sum(weight * mask if reduction == "mean_with_sample_weight" else mask)
    return total / count if count else 0.0


def spread(weight, shape):
    """Weights broadcast to `shape` from the left; ones if they have more axes than the values."""
    if weight is None:
        return np.ones(shape)
    weight = np.asarray(weight, "float64")
    while weight.ndim > len(shape) and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.ndim > len(shape):
        return np.ones(shape)
    return np.broadcast_to(weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)), shape)


def epoch_mean(function, batch, batch_size):
    """The mean of the dict `function(part)` over the batches, each weighed by its size."""
    sums = {}
    for start in range(0, len(batch), batch_size):
        part = batch[start : start + batch_size]
        for key, value in function(part).items():
            sums[key] = sums.get(key, 0.0) + len(part) * value
    return {key: value / len(batch) for key, value in sums.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
