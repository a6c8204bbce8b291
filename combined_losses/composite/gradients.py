"""The gradients of the components of a composite, for the rules that read them.

At the output they are taken in the loss itself. At a layer, or at the parameters, the batch brings
the training step along, captured from its beginning: see `training/gradient_capture.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._backend.capture import columns, float32
from combined_losses._backend.probing import probed
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation
from combined_losses._numerics.arrays import Tensor
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.products import Products, powers_of_two

Rows: TypeAlias = Sequence[Sequence[Tensor]]
"""For each point the gradients of the k components, flat."""


class Taken(NamedTuple):
    """The gradients of k components where a rule reads them.

    Attributes:
        products: the `Products` of them, over the batch that all replicas see.
        rows: for each point the k gradients, flat, of this replica.
        points: what they were taken at.
    """

    products: Products
    rows: Any = None
    points: Any = None


def evaluate(
    rule: Weighting | None,
    batch: Batch,
    parts: Sequence[Callable[[Batch], Evaluation]],
    label: str,
    moving: Iterable[Any] = (),
) -> tuple[list[Evaluation], Taken | None]:
    """The evaluations of `parts`, and what is `Taken` of their gradients in a training step.

    Args:
        rule: None, or that of the composite.
        batch: a `Batch`.
        parts: functions of a batch, one for each component.
        label: the name of the composite.
        moving: variables that the parts move in a loop of one's own; of a model they are its own.
    """
    capture, probe = batch.captured, probed()
    if rule is None or not rule.reads_gradients or not batch.training:
        return [part(batch) for part in parts], None
    wanted: object = None if probe is None else probe[0]
    if probe is not None and wanted is rule:
        found = [part(batch) for part in parts]
        if not probe[1]:  # once, also where a rule around it reads the gradients of its value
            probe[1].extend(each.total for each in found)
        return found, None
    if rule.place == "output":
        variables = list(moving) if batch.model is None else batch.model.variables
        return _at_output(rule, batch, parts, variables)
    if batch.model is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes a training step of cl.Model, cl.Sequential or cl.track(model): in a loop of "
            "your own call `model.train_on_batch(...)` of such a model, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    # Taken already where the step, or this loss alone, is repeated for another rule's sake.
    if capture is not None and (probe is not None or capture.gradients_of(rule) is not None):
        return [part(batch) for part in parts], capture.gradients_of(rule)
    if capture is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes the whole training step, and this `train_step` is not the one of "
            "cl.ComponentMetricsMixin: call `super().train_step(...)` in it, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    found = [part(batch) for part in parts]
    return found, capture.measure_gradients(rule, [each.total for each in found])


def _at_output(
    rule: Weighting,
    batch: Batch,
    parts: Sequence[Callable[[Batch], Evaluation]],
    variables: list[Any],
) -> tuple[list[Evaluation], Taken]:
    # In float32 or more: the gradient of a mean over a batch vanishes in float16.
    points = [float32(leaf) for leaf in keras.tree.flatten(batch.y_pred)]

    def view(points: Iterable[Tensor]) -> Batch:
        remaining = iter(points)
        return batch.map_predictions(lambda leaf: next(remaining))

    found, rows = backend.evaluate_with_rows(points, view, parts, variables)
    rows = columns(rows)
    return found, Taken(products_for(rule, rows))


def products_of(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """`(gramian, scales, largest)` of k gradients, given for each point, of this replica.

    Each gradient is divided by its scale, a power of two near its largest entry in all replicas:
    the product of two that are very long, or very short, need not be a number of float32.
    """
    largest = backend.global_max(largest_of(rows))
    scales = powers_of_two(largest)
    gramian = sum(backend.gramian(column, scales) for column in rows)
    return ops.stop_gradient(gramian), scales, largest


def largest_of(rows: Rows) -> Tensor:
    """The largest magnitude in each of k gradients, `(k,)`, given for each point."""
    return ops.stop_gradient(ops.max(ops.stack([backend.largest(c) for c in rows]), axis=0))


def products_for(rule: Weighting, rows: Rows, shared: bool = False) -> Products:
    """The `Products` that a rule needs; `shared`: every replica has the rows of all of them."""
    gramian, scales, largest = products_of(rows)
    gramian = gramian if shared else backend.global_sum(gramian)
    if "rows" not in rule.needs:
        return Products(gramian, scales)
    return Products(gramian, scales, largest, _mean_sizes(rows))


def _mean_sizes(rows: Rows) -> Tensor:
    """The mean magnitude in each of the k gradients, over all replicas."""
    total = sum(ops.stack([ops.sum(ops.abs(row)) for row in column]) for column in rows)
    count = sum(ops.cast(ops.shape(column[0])[0], "float32") for column in rows)
    return ops.stop_gradient(backend.global_sum(total) / backend.global_sum(count))


def no_products(rule: Weighting, k: int) -> Products:
    """What is measured where there is no gradient."""
    none = Products(ops.zeros((k, k)), ops.ones((k,)))
    if "rows" not in rule.needs:
        return none
    return none._replace(largest=ops.zeros((k,)), mean=ops.zeros((k,)))


def with_gradient(total: Tensor, taken: Taken, weights: Tensor) -> Tensor:
    """`total` with the gradient `sum_i weights_i * g_i` at the points of `taken`."""
    gradients = [
        ops.reshape(backend.combine(weights, column), ops.shape(point))
        for column, point in zip(taken.rows, taken.points, strict=True)
    ]
    return backend.attach(total, taken.points, gradients)
