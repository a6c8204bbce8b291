"""The gradients of the components of a composite, for the rules that read them.

At the output they are taken in the loss itself. At a layer, or at the parameters, they are taken in
the captured training step that comes with the batch: see `training/gradient_capture.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._backend.capture import columns, float32
from combined_losses._backend.factors import Columns, Factors
from combined_losses._backend.probing import probed
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation
from combined_losses._numerics.arrays import Tensor
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.products import Products, powers_of_two


class MeasuredGradients(NamedTuple):
    """The gradients of k components where a rule reads them.

    Attributes:
        products: their `Products`, over the batch that all replicas see.
        rows: for each point the k gradients of this replica; None at the output.
        points: the tensors or variables that they are gradients by; None at the output.
    """

    products: Products
    rows: Columns | None = None
    points: Sequence[Any] | None = None


Parts: TypeAlias = Sequence[Callable[[Batch], Evaluation]]
"""Functions that evaluate one component each."""


def evaluate(
    rule: Weighting | None,
    batch: Batch,
    parts: Parts,
    label: str,
    variables_of_parts: Sequence[Any] = (),
) -> tuple[list[Evaluation], MeasuredGradients | None]:
    """The evaluations of `parts`, and in a training step the gradients that the rule reads.

    Args:
        rule: None, or the rule of the composite.
        batch: a `Batch`.
        parts: functions of a batch, one for each component.
        label: the name of the composite.
        variables_of_parts: variables that the parts assign in a loop of one's own. In the step of a
            model all of the model's variables are taken for such.
    """
    if rule is None or not rule.reads_gradients or not batch.training:
        return [part(batch) for part in parts], None
    probe = probed()
    wanted: object = None if probe is None else probe[0]
    if probe is not None and wanted is rule:
        found = [part(batch) for part in parts]
        # Once: a rule around this composite may evaluate it again, for the gradients of its total.
        if not probe[1]:
            probe[1].extend(each.total for each in found)
        return found, None
    if rule.place == "output":
        variables = variables_of_parts if batch.model is None else batch.model.variables
        return _at_output(rule, batch, parts, variables)
    return _in_captured_step(rule, batch, parts, label)


def _at_output(
    rule: Weighting, batch: Batch, parts: Parts, variables: Sequence[Any]
) -> tuple[list[Evaluation], MeasuredGradients]:
    """The evaluations of `parts`, and their gradients by the predictions."""
    # In float32 or more: the gradient of a mean over a batch vanishes in float16.
    points = [float32(leaf) for leaf in keras.tree.flatten(batch.y_pred)]

    def view(points: Iterable[Tensor]) -> Batch:
        remaining = iter(points)
        return batch.map_predictions(lambda leaf: next(remaining))

    found, rows = backend.evaluate_with_rows(points, view, parts, variables)
    return found, MeasuredGradients(products_for(rule, columns(rows)))


def _in_captured_step(
    rule: Weighting, batch: Batch, parts: Parts, label: str
) -> tuple[list[Evaluation], MeasuredGradients | None]:
    """The evaluations of `parts`, and their gradients at a layer or at the parameters."""
    if batch.model is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes a training step of cl.Model, cl.Sequential or cl.track(model): in a loop of "
            "your own call `model.train_on_batch(...)` of such a model, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    step = batch.captured
    # Measured already where the step, or this loss alone, is repeated for another rule.
    if step is not None and (probed() is not None or step.gradients_of(rule) is not None):
        return [part(batch) for part in parts], step.gradients_of(rule)
    if step is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes the whole training step, and this `train_step` is not the one of "
            "cl.ComponentMetricsMixin: call `super().train_step(...)` in it, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    found = [part(batch) for part in parts]
    return found, step.measure_gradients(rule, [each.total for each in found])


def products_of(rows: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """`(gramian, scales, largest)` of k gradients of this replica, given for each point.

    Each gradient is divided by its scale, a power of two near its largest entry in all replicas,
    because the product of two very long or very short gradients may overflow or vanish in float32.
    """
    largest = backend.global_max(largest_of(rows))
    scales = powers_of_two(largest)
    gramian = sum(_gramian(column, scales) for column in rows)
    return ops.stop_gradient(gramian), scales, largest


def _gramian(column: Sequence[Tensor] | Factors, scales: Tensor) -> Tensor:
    if not isinstance(column, Factors):
        return backend.gramian(column, scales)
    with backend.in_float64():
        return column.gramian(scales)


def largest_of(rows: Columns) -> Tensor:
    """The largest magnitude in each of k gradients, `(k,)`; they are given for each point."""
    largest = ops.stack(
        [
            column.largest() if isinstance(column, Factors) else backend.largest(column)
            for column in rows
        ]
    )
    return ops.stop_gradient(ops.max(largest, axis=0))


def products_for(rule: Weighting, rows: Columns, shared: bool = False) -> Products:
    """The `Products` that a rule needs.

    Args:
        rule: the rule.
        rows: for each point the k gradients.
        shared: whether `rows` are added up over the replicas already.
    """
    gramian, scales, largest = products_of(rows)
    gramian = gramian if shared else backend.global_sum(gramian)
    if "rows" not in rule.needs:
        return Products(gramian, scales)
    return Products(gramian, scales, largest, _mean_sizes(rows))


def _mean_sizes(rows: Columns) -> Tensor:
    """The mean magnitude in each of the k gradients, over all replicas."""
    total = sum(ops.stack([ops.sum(ops.abs(row)) for row in column]) for column in rows)
    count = sum(ops.cast(ops.shape(column[0])[0], "float32") for column in rows)
    return ops.stop_gradient(backend.global_sum(total) / backend.global_sum(count))


def no_products(rule: Weighting, k: int) -> Products:
    """The `Products` of k gradients of zeros."""
    zeros = Products(ops.zeros((k, k)), ops.ones((k,)))
    if "rows" not in rule.needs:
        return zeros
    return zeros._replace(largest=ops.zeros((k,)), mean=ops.zeros((k,)))


def with_gradient(total: Tensor, measured: MeasuredGradients, weights: Tensor) -> Tensor:
    """`total` with the gradient `sum_i weights_i * g_i` at the points where g was measured."""
    rows, points = measured.rows, measured.points
    assert rows is not None and points is not None  # measured at the parameters, in every step
    shapes = [ops.shape(point) for point in points]
    weights = ops.cast(weights, "float32")  # those of a composite in float64 are of that dtype
    # Those of flat gradients at once, because torch needs the memory for the next step. Those of
    # factors on the way back, so that they are not there together with other arrays of their size.
    combined = [
        None if isinstance(column, Factors) else backend.combine(weights, column) for column in rows
    ]

    def gradients(factor: Tensor) -> list[Tensor]:
        factor = ops.cast(factor, "float32")
        found = [
            column.combine(factor * weights) if isinstance(column, Factors) else factor * sum_
            for column, sum_ in zip(rows, combined, strict=True)
        ]
        return [ops.reshape(each, shape) for each, shape in zip(found, shapes, strict=True)]

    return backend.attach(total, points, gradients)
