"""A sum over all values of a loss, divided once by one number."""

import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.alignment import fit_from_left, is_used, of_rank
from combined_losses._core.batch import Batch
from combined_losses._core.checks import LARGEST, check_target
from combined_losses._core.config import check_no_lambda, serialize_function, signature_config
from combined_losses._core.data_format import as_given, moved
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import LossLike
from combined_losses._core.names import check_log_keys
from combined_losses._core.node import Node, node_of
from combined_losses._core.presence import any_present, presence
from combined_losses._core.reduction import PER_COMPONENT, reduce_values
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import over_axes
from combined_losses.wrappers import levels
from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.outputs import OnOutput
from combined_losses.wrappers.positives import positives

__all__ = ["Normalized"]

_KINDS = ("positives", "weights")
_SIGNATURE = "y_true"


@keras.saving.register_keras_serializable("combined_losses")
class Normalized(Wrapper):
    """The sum of a loss over all its values, divided by one number: positives, weights, tokens.

    `total = sum(values) / count`. Over several outputs, such as the levels of a detector, both sums
    run over all of them. So a level with one object weighs less than one with fifty; in a mean of
    means they would weigh the same. With several replicas the count is that of all of them.

    Args:
        loss: as in `cl.wrappers.Wrapper`; its own reduction does not act.
        by: what the sum is divided by.
            `"positives"` (default): the number of rows that hold an object, at least 1, as
            detectors do. A row is what the loss gives one value for: an anchor, a pixel, a box. It
            holds an object if its target, or one of its targets, is above 0. Class 0 is the
            background: id 0, or the first class in one-hot rows of classes that exclude each other.
            Rows that are missing (`Masked`), void, masked or of weight 0 do not count; a row of any
            other weight counts 1.
            `"weights"`: the sum of the sample weights, or the number of values without them. This
            is the weighted mean over all outputs. Class weights inside (`ClassWeighted`) are part
            of it. If all weights are 0, so is the loss.
            A number above 0: the same for every batch, such as a budget of tokens.
            A function `f(y_true)` that returns one number; or a count for each target, matched from
            the left, which is added up like positives. A function `f(y_true, sample_weight)` is
            given the weights and the mask of the targets as one array, or None, and has to apply
            them itself. A count of 0 gives the value 0. Register the function to save the model.
        over: None, or the names of several outputs that share one count. Each takes the target and
            the sample weights of its name, as in `cl.wrappers.OnOutput`, and its share of the total
            is reported under its name, so that the parts add up.
        reduction: `"per_component"` (default) or `"sum"`: both mean the sum, divided.
        name, dtype: as in `cl.wrappers.Wrapper`.

    Values are what the loss gives without a reduction; if the loss averages over the last axis
    (MSE, `BinaryFocal`), they are these means. For the sum over K classes, which detectors take,
    put `PerChannel` inside: `Normalized(PerChannel(BinaryFocal()))`. A composite may be inside too,
    but not with `by="weights"`, because each of its components has weights of its own.

    The count is that of one batch: logs of an epoch are means over batches, whatever each batch
    counted, as with `Masked`. Single samples have no value, so a composite around it must keep the
    reduction "per_component".

    Raises:
        ValueError: on another `by` or `over`, a loss that gives one number for the batch, weights
            that move inside; when called, on a reduction that is imposed from outside, or an
            output that the model has not.

    Example: one object on the fine level and three on the coarse one.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Normalized("mse", over=["fine", "coarse"])
    >>> y = {"fine": np.array([[[1.0], [0.0]]]), "coarse": np.array([[[1.0], [1.0], [1.0]]])}
    >>> p = {"fine": np.array([[[0.0], [0.0]]]), "coarse": np.array([[[0.5], [0.5], [0.5]]])}
    >>> float(loss(y, p))  # (1 + 3 * 0.25) / 4, not (1 / 1 + 0.75 / 3) / 2
    0.4375
    """

    def __init__(
        self,
        loss: LossLike,
        by: Literal["positives", "weights"] | float | Callable[..., Tensor] = "positives",
        over: Sequence[str] | None = None,
        reduction: Literal["per_component", "sum"] = PER_COMPONENT,
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(loss, name=name, dtype=dtype)
        if reduction not in (PER_COMPONENT, "sum"):
            raise ValueError(
                f"The argument `reduction` of Normalized ('{self.name}') must be one of "
                "'per_component', 'sum': it divides the sum by a number of its own. "
                f"Received: {reduction!r}"
            )
        self.reduction = reduction
        self.by = by
        self.over = over
        self._check_by()
        self._levels = self._as_levels()
        self._refuse_moving()
        check_log_keys(self.component_names, self.name)

    def _check_by(self) -> None:
        by, owner = self.by, f"Normalized ('{self.name}')"
        known = isinstance(by, str) and by in _KINDS
        if not (known or callable(by) or _is_divisor(by)):
            raise ValueError(
                f"The argument `by` of {owner} must be 'positives', 'weights', a finite number "
                f"above 0 or a function of y_true. Received: {by!r}"
            )
        if callable(by) and _arguments(by) not in (1, 2):
            raise ValueError(
                f"The function `by` of {owner} must be f(y_true) or f(y_true, sample_weight). "
                f"Received: {by!r}"
            )
        innermost = self._node.innermost_loss()
        if by == "weights" and node_of(innermost) is not None:
            raise ValueError(
                f"{owner} holds several losses, of which each has weights of its own to divide "
                "by: put it around each of them, for example CompositeLoss({'a': Normalized('mse', "
                f"'weights'), ...}}). Received: {self.loss!r}"
            )

    def _as_levels(self) -> dict[str | None, Any]:
        """The wrapper that chooses each output of `over`; without `over` the child, under None."""
        if self.over is None:
            return {None: self._node}
        names = list(self.over) if isinstance(self.over, (list, tuple)) else []
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise ValueError(
                f"The argument `over` of Normalized ('{self.name}') must be a list of different "
                f"names of outputs, or None. Received: {self.over!r}"
            )
        if super().chooses_outputs:
            raise ValueError(
                f"The loss of Normalized ('{self.name}') chooses its output by itself, and `over` "
                f"names several: choose in one place. Received: {self.loss!r}"
            )
        return {name: OnOutput(self.loss, name) for name in names}

    # What it reads and reports.

    @property
    def chooses_outputs(self) -> bool:
        return self.over is not None or super().chooses_outputs

    @property
    def needs_target(self) -> bool:
        return self._counts_targets or super().needs_target

    @property
    def reads_target(self) -> bool:
        return self._counts_targets or super().reads_target

    @property
    def _counts_targets(self) -> bool:
        return self.by == "positives" or callable(self.by)

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(self._node, "" if self.over is None else None)]

    @property
    def component_names(self) -> tuple[str, ...]:
        if self.over is None:
            return super().component_names
        return levels.part_names(self.over, self._node)

    @property
    def part_parents(self) -> dict[str, str | None]:
        if self.over is None:
            return super().part_parents
        return levels.part_parents(self.over, self._node)

    @property
    def part_weights(self) -> dict[str, float | None]:
        if self.over is None:  # all parts are divided by the same number
            return self._node.part_weights
        return levels.part_weights(dict.fromkeys(self.over, 1.0), self._node)

    # The sum and the count.

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label = label or self.name
        if reduction != PER_COMPONENT:
            raise ValueError(
                f"Component '{label}' divides by one number for the whole batch, and has no other "
                "reduction: leave that of what is around it at 'per_component'. "
                f"Received: reduction={reduction!r}"
            )
        sums, counts = [], []
        for level in self._levels.values():
            chooses = self if self.over is None else level
            chosen = chooses.choose_output(batch, label)
            found, count = self._level(chosen, label)
            sums.append(found)
            counts.append(count)
        divisor = self._divisor(counts, batch)
        shares = [[_over(value, divisor) for value in (s.total, *s.values)] for s in sums]
        total = sum(values[0] for values in shares)
        present = any_present(batch, [each.present for each in sums])
        values = tuple(value for values in shares for value in values)
        result = Evaluation(total, values, present=present)
        if self.over is None:
            result = Evaluation(total, tuple(shares[0][1:]), sums[0].extras, present)
        return self._over_rows_of(chosen, batch, result)

    def _level(self, batch: Batch, label: str) -> tuple[Evaluation, Tensor]:
        """The sum of all values of one output as an `Evaluation`, and the count of that output."""
        batch = self._with_channels_last(batch.of_floats(self.dtype))
        found = self._node.unreduced(batch, True, label)
        if found is None:
            if self._counts_targets:
                check_target(label, batch.y_true)
            count = self._count(None, batch, label)
            return self._node.evaluate(batch, "sum", label), count
        values, counted = found
        if not len(values.shape):
            raise ValueError(
                f"Component '{label}' gives one number for the whole batch, so that there is no "
                "sum to divide: return one value for each sample, or take Normalized out. "
                f"Received: {self.loss!r}"
            )
        count = self._count(values, counted, label)
        if self._node.component_names:
            return self._node.evaluate(batch, "sum", label), count  # with its parts
        total = reduce_values(values, counted, "sum")
        return Evaluation(total, present=presence(batch, values, counted)), count

    def _count(self, values: Tensor, batch: Batch, label: str) -> Tensor:
        """The count of this output on this replica, `()`; None if `by` is a number."""
        if self.by == "weights":
            ones = reduce_values(ops.ones_like(values), batch, "sum")
            return ops.cast(ones, "float32")
        if self.by == "positives":
            found = positives(self._node, values, batch, above=0.0)
            return _added_up(found, batch, self._rows(values, batch))
        if not callable(self.by):
            return None
        given = as_given(batch)  # a function of the user's is given the data as they are
        if _arguments(self.by) == 2:
            return ops.sum(ops.cast(self.by(given.y_true, _combined(given)), "float32"))
        counts = ops.cast(ops.convert_to_tensor(self.by(given.y_true)), "float32")
        if batch.channels == "moved":
            counts = moved(counts, batch.channel_rank)
        return _added_up(counts, batch, len(counts.shape))

    def _rows(self, values: Tensor, batch: Batch) -> int:
        """The number of first axes of the targets that tell rows apart."""
        rank = len(batch.y_pred.shape) - batch.own_axes
        # Single elements that are told apart have a last axis of length 1 each.
        apart = not isinstance(batch.elements, int) or batch.elements != 1
        rows = max(rank - 1 - apart, 1)
        return rows if values is None else min(rows, len(values.shape))

    def _divisor(self, counts: list[Tensor], batch: Batch) -> Tensor:
        """The number that divides all sums: the count of all outputs and replicas, or `by`."""
        if not isinstance(self.by, str) and not callable(self.by):
            return ops.cast(float(self.by), "float32")
        count = sum(counts[1:], counts[0])
        if batch.replicas > 1:
            count = backend.global_sum(count)
        return ops.maximum(count, 1.0) if self.by == "positives" else count

    # Saving.

    def check_lambdas(self, label: str) -> None:
        if callable(self.by):
            check_no_lambda(self.by, label, _SIGNATURE)
        super().check_lambdas(label)

    def get_config(self) -> dict[str, Any]:
        if not callable(self.by):
            return super().get_config()
        function = serialize_function(self.by, self.name, _SIGNATURE)
        return {**signature_config(self, without=["by"]), "by": function}


def _is_divisor(by: object) -> bool:
    """Whether it is a number above 0 that is finite and above 0 as a float32 too."""
    if not isinstance(by, numbers.Real) or isinstance(by, bool):
        return False
    if by <= 0 or not by < LARGEST:  # NaN is not below it either
        return False
    return float(np.float32(float(by))) > 0


def _over(value: Tensor, divisor: Tensor) -> Tensor:
    """A sum divided by its count; 0 with a gradient of 0 if the count is 0."""
    divisor = ops.cast(divisor, value.dtype)
    empty = ops.equal(divisor, 0.0)
    return ops.where(empty, ops.zeros_like(value), value / ops.where(empty, 1.0, divisor))


def _added_up(counts: Tensor, batch: Batch, rows: int) -> Tensor:
    """The sum over rows: each has the largest count of its targets, or 0 if its weight is 0."""
    if not len(counts.shape):
        return counts
    for _, weight in batch.weights():
        weight = of_rank(weight, counts)
        used = is_used(weight)
        while len(used.shape) > len(counts.shape):
            used = ops.any(used, axis=-1)
        fitted = fit_from_left(used, counts)
        if fitted is not None:
            counts = ops.where(fitted, counts, ops.zeros_like(counts))
    if len(counts.shape) > rows:
        axes = tuple(range(rows, len(counts.shape)))
        counts = over_axes(ops.max, counts, axes)
    return ops.sum(counts)


def _combined(batch: Batch) -> Tensor:
    """The product of sample weights and mask as one array; None without them."""
    product = None
    for _, weight in batch.weights():
        weight = ops.cast(weight, "float32")
        if product is not None:
            longer, shorter = sorted((product, weight), key=lambda w: -len(w.shape))
            weight = longer * fit_from_left(shorter, longer)
        product = weight
    return product


def _arguments(function: Callable[..., Any]) -> int:
    """The number of positional arguments without default; 1 for functions without signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([p for p in parameters if p.kind in kinds and p.default is p.empty])
