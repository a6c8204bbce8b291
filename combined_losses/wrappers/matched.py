"""Sets: rows without an order, such as points, boxes or peaks, paired one to one at least cost."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.alignment import at_every_place, is_per_sample, product
from combined_losses._core.arguments import as_child
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_number, shown
from combined_losses._core.compound import as_node
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.node import Inside, Node, node_of
from combined_losses._numerics.arrays import Tensor
from combined_losses.wrappers.masks import differs, is_filling
from combined_losses.wrappers.values import OfValuesAndTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Matched"]


@keras.saving.register_keras_serializable("combined_losses")
class Matched(OfValuesAndTargets):
    """A loss between two sets of rows, each row of the one paired with one of the other.

    Use it where the network gives a set: points, boxes, peaks, in any order. The pairs are those of
    least total cost (the assignment problem), chosen anew in every step on the host, without a
    gradient. With n true rows and M predicted ones there are `min(n, M)` pairs, and the value of a
    sample is `(sum of the loss over the pairs + unmatched (max(n, M) - min(n, M))) / max(n, M)`.

    Args:
        loss: a single loss that gives one value for each row, as in `cl.wrappers.Wrapper`.
        cost: the loss by which the pairs are chosen. None (default): `loss`.
        unmatched: the price of a row without a partner, at least 0. It is a number in the value
            and has no gradient. Default 1.0.
        mask_value: None, or the number that fills rows of the truth that are none: rows all of
            whose entries are that number, or `nan`. They let samples have sets of different sizes.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Shapes: `y_true` `(batch, N, D)`, `y_pred` `(batch, M, D)`, N and M equal or not; values
    `(batch,)`. Sample weights and masks `(batch,)` are those of samples. Those of shape `(batch,
    N)` are those of the true rows: they multiply the loss of the pair, and rows of weight 0 are no
    rows. A sample without true rows has the value `unmatched`; with neither, 0. Where a cost is not
    a number, neither is the value.

    It needs scipy (the extra `sets`). A compiled step waits for the host. On TensorFlow, XLA cannot
    do that: on a GPU compile the model with `jit_compile=False`.

    Raises:
        ImportError: if scipy is missing.
        ValueError: if an argument is outside its range, for a composite; when called, if the arrays
            are no sets or a loss does not give one value for each row; in `fit`, if XLA compiles
            the steps of TensorFlow.

    Example: the same points in another order, and one too many.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    >>> loss = cl.wrappers.Matched("mse", unmatched=0.3)
    >>> float(loss(y_true, np.array([[[1.0, 1.0], [0.0, 0.0]]])))
    0.0
    >>> round(float(loss(y_true, np.array([[[1.0, 1.0], [9.0, 9.0], [0.0, 0.0]]]))), 4)  # 0.3 / 3
    0.1

    The pairs are those of `scipy.optimize.linear_sum_assignment`. Kuhn 1955; as a loss Carion et
    al. 2020 (DETR), arXiv 2005.12872.
    """

    calls_host = True

    def __init__(
        self,
        loss: LossLike,
        *,
        cost: LossLike | None = None,
        unmatched: float = 1.0,
        mask_value: float | None = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        check_number("Matched", "unmatched", unmatched, minimum=0)
        if mask_value is not None and not is_filling(mask_value):
            raise ValueError(
                "The argument `mask_value` of Matched must be nan, another number, which a float32 "
                "can hold, or None. "
                f"Received: {shown(mask_value)}"
            )
        self.cost = None if cost is None else as_child(cost, f"Matched ('{self.name}')", "cost")
        self.unmatched = unmatched
        self.mask_value = mask_value
        self._check_single()
        self._cost_node = self._node if self.cost is None else as_node("cost", self.cost)
        if node_of(self._cost_node.innermost_loss()) is not None:
            raise ValueError(
                f"The argument `cost` of Matched ('{self.name}') must be a single loss. "
                f"Received: {self.cost!r}"
            )
        _assignment()  # raises here, not in the middle of `fit`, where scipy is missing

    def nodes_inside(self) -> Inside:
        found: Inside = [(self._node, "")]
        return found if self.cost is None else [*found, (self._cost_node, None)]

    @property
    def couples_batch(self) -> bool:
        return False

    def _of_child(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch]:
        batch = self.one_array(batch, label)
        self._check_sets(batch, label)
        rows, weight = _of_true_rows(batch, label)
        there = self._there(batch.y_true, [weight, *_of_samples(rows)])
        alone = batch.unweighted().replaced(elements=1, mask_kind="void")
        partner, spoilt = self._partners(alone, there, imposed, label)
        values = self._of_pairs(alone, partner, imposed, label)
        return self._value(values, weight, there, partner, spoilt, batch), rows

    def _check_sets(self, batch: Batch, label: str) -> None:
        true, pred = tuple(batch.y_true.shape), tuple(batch.y_pred.shape)
        if (
            len(true) != 3
            or len(pred) != 3
            or (true[2] != pred[2] and None not in (true[2], pred[2]))
        ):
            raise ValueError(
                f"Component '{label}' pairs the rows of two sets: targets (batch, N, D) and "
                "predictions (batch, M, D); for numbers give an axis of length 1. "
                f"Received: y_true of shape {true} and y_pred of shape {pred}"
            )

    def _there(self, y_true: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
        """Which rows of the truth are rows, `(batch, N)`, booleans; none in samples of weight 0."""
        there = ops.ones_like(y_true[..., 0], dtype="bool")
        if self.mask_value is not None:
            if math.isnan(self.mask_value):
                counts = ops.logical_not(ops.isnan(ops.cast(y_true, "float32")))
            else:
                counts = differs(y_true, self.mask_value)
            there = ops.any(counts, axis=-1)
        for weight in weights:
            there = there if weight is None else ops.logical_and(there, weight > 0)
        return there

    def _partners(
        self, batch: Batch, there: Tensor, imposed: bool, label: str
    ) -> tuple[Tensor, Tensor]:
        """For each true row its place among the predictions, or -1; where a cost is no number.

        Of shapes `(batch, N)` and `(batch,)`.
        """
        true, pred = ops.shape(batch.y_true), ops.shape(batch.y_pred)
        pairs = (*true[:2], pred[1])
        fixed = batch.replaced(
            y_true=ops.broadcast_to(batch.y_true[:, :, None], (*pairs, true[2])),
            y_pred=ops.broadcast_to(ops.stop_gradient(batch.y_pred)[:, None], (*pairs, pred[2])),
            mask=ops.broadcast_to(there[..., None], pairs),
        )
        costs = ops.stop_gradient(self._values(self._cost_node, fixed, imposed, label))
        counts = ops.broadcast_to(there[..., None], pairs)
        spoilt = ops.any(ops.logical_and(counts, ops.isnan(costs)), axis=(1, 2))
        found = backend.whole_numbers_from_host(
            assigned, [costs, there], tuple(batch.y_true.shape[:2])
        )
        return found, spoilt

    def _of_pairs(self, batch: Batch, partner: Tensor, imposed: bool, label: str) -> Tensor:
        """The loss of each true row and its partner, `(batch, N)`; of one without, any number."""
        place = ops.expand_dims(ops.maximum(partner, 0), -1)
        place = ops.broadcast_to(place, (*ops.shape(partner), ops.shape(batch.y_pred)[2]))
        if 0 in batch.y_pred.shape[1:2]:  # nothing to take from
            chosen = ops.zeros_like(batch.y_true)
        else:
            chosen = ops.take_along_axis(batch.y_pred, place, axis=1)
        pairs = batch.replaced(y_pred=chosen, mask=partner >= 0)
        return self._values(self._node, pairs, imposed, label)

    def _values(self, node: Node, batch: Batch, imposed: bool, label: str) -> Tensor:
        """The values of a loss; raises unless there is one for each row of the predictions."""
        found = node.unreduced(batch, imposed, label)
        rows, values = tuple(batch.y_pred.shape[:-1]), None if found is None else found[0]
        if values is None or len(values.shape) != len(rows):
            shape = None if values is None else tuple(values.shape)
            raise ValueError(
                f"Component '{label}' must give one value for each row of a set, of shape {rows} "
                f"for predictions {tuple(batch.y_pred.shape)}. Received: values of shape {shape} "
                f"from {node.loss_itself()!r}"
            )
        return values

    def _value(
        self,
        values: Tensor,
        weight: Tensor | None,
        there: Tensor,
        partner: Tensor,
        spoilt: Tensor,
        batch: Batch,
    ) -> Tensor:
        """The value of each sample, `(batch,)`."""
        dtype = values.dtype
        if weight is not None:
            values = values * ops.cast(weight, dtype)
        paired = ops.sum(ops.where(partner >= 0, values, 0.0), axis=1)
        true = ops.sum(ops.cast(there, dtype), axis=1)
        pred = ops.cast(ops.shape(batch.y_pred)[1], dtype)
        most = ops.maximum(true, pred)
        alone = self.unmatched * (most - ops.minimum(true, pred))
        value = (paired + alone) / ops.maximum(most, 1.0)
        return ops.where(spoilt, float("nan"), value)


def _of_true_rows(batch: Batch, label: str) -> tuple[Batch, Tensor | None]:
    """The batch with the weights of samples alone, and those of the true rows, `(batch, N)`."""
    inner: list[Tensor] = []
    changes: dict[str, Any] = {"elements": 1}
    for what, weight in batch.weights():
        if is_per_sample(weight):
            continue
        fitted = at_every_place(ops.cast(weight, "float32"), batch.y_true[..., 0])
        if fitted is None:
            raise ValueError(
                f"The {what} of component '{label}' must be one for each sample or for each true "
                f"row, {tuple(batch.y_true.shape[:2])}; rows that only fill the truth up have the "
                "`mask_value` of Matched. "
                f"Received: {what} of shape {tuple(weight.shape)}"
            )
        inner.append(fitted)
        changes[what] = None
    return batch.replaced(**changes), product(inner)


def _of_samples(batch: Batch) -> list[Tensor]:
    """Sample weights and mask of whole samples, `(batch, 1)`."""
    return [ops.reshape(ops.cast(weight, "float32"), (-1, 1)) for _, weight in batch.weights()]


def assigned(costs: "NDArray[Any]", there: "NDArray[Any]") -> "NDArray[np.int32]":
    """For each row of `costs` `(batch, N, M)` its column in the assignment of least cost, or -1.

    `there` `(batch, N)` says which rows take part.
    """
    assign = _assignment()
    costs, there = np.asarray(costs, "float64"), np.asarray(there, bool)
    found = np.full(there.shape, -1, "int32")
    for own, rows, result in zip(costs, there, found, strict=True):
        places = np.flatnonzero(rows)
        taken, columns = assign(_finite(own[places]))
        result[places[taken]] = columns
    return found


def _finite(costs: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The costs, of which those that are not finite are more than all others together."""
    finite = np.isfinite(costs)
    if finite.all():
        return costs
    highest = 1 + np.abs(costs[finite]).max(initial=0.0) * (1 + 2 * max(costs.shape))
    return np.where(costs == -np.inf, -highest, np.where(finite, costs, highest))


def _assignment() -> Any:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            'Matched needs scipy, which is not installed. Run: pip install "combined_losses[sets]"'
        ) from error
    return linear_sum_assignment
