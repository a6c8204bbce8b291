"""The base of wrappers that choose among the values of a loss, or divide them by another number."""

import math

from keras import ops

from combined_losses._core.alignment import product
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_reduction
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.node import node_of
from combined_losses._core.presence import presence
from combined_losses._core.reduction import (
    PER_COMPONENT,
    REDUCTIONS,
    reduce_values,
    weights_of,
)
from combined_losses._numerics.arrays import Tensor
from combined_losses.wrappers.base import Wrapper


class OfValues(Wrapper):
    """A wrapper that makes one value for each sample of all values of its child (abstract).

    A subclass implements `of_values(values, weight, batch, label)`, which returns `(batch,)`. It is
    given the child's values times their weights, these weights (or None), and the batch that the
    child saw. It is a view for `see`, but its values are its own.
    """

    def _check_single(self) -> None:
        """Raises unless the loss inside has values of its own."""
        if node_of(self._node.innermost_loss()) is not None:
            raise ValueError(
                f"{type(self).__name__} ('{self.name}') needs a single loss, whose values it can "
                "see: put it around each loss of a composite. "
                f"Received: {self.loss!r}"
            )

    def see(self, batch: Batch, label: str) -> Batch:
        return batch

    def of_values(self, values: Tensor, weight: Tensor | None, batch: Batch, label: str) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `of_values`.")

    @property
    def couples_batch(self) -> bool:
        """Whether the value of a sample depends on others."""
        raise NotImplementedError

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label, imposed = label or self.name, reduction != PER_COMPONENT
        chosen = self.choose_output(batch, label)
        values, counted = self._of_child(chosen, imposed, label)
        used = reduction if imposed else self.reduction
        check_reduction(label, used, REDUCTIONS)
        total = reduce_values(values, counted, used)
        rows = () if counted.values_of_own_rows is None else (counted.count,)
        found = Evaluation(total, present=presence(chosen, values, counted), rows=rows)
        return self._over_rows_of(chosen, batch, found)

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        return None if self.couples_batch else self._of_child(batch, imposed, label)

    def _of_child(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch]:
        """One value for each sample, in which all weights have acted, and the batch without."""
        found = self._node.unreduced(self._batch_inside(batch, label), imposed, label)
        if found is None or not len(found[0].shape):
            raise ValueError(
                f"Component '{label}' gives one number for the whole batch: return one value for "
                f"each sample or element, or take {type(self).__name__} out. "
                f"Received: {self.loss!r}"
            )
        values, counted = found
        weight = product(weights_of(values, counted).values())
        if weight is not None:
            values = weighted(values, weight)
            weight = ops.broadcast_to(weight, ops.shape(values))
        own = self.of_values(values, weight, counted, label)
        return own, counted.unweighted().replaced(elements=1)


class OfValuesAndTargets(OfValues):
    """One that reads the targets itself, not only through its child (abstract)."""

    @property
    def needs_target(self) -> bool:
        return True

    @property
    def reads_target(self) -> bool:
        return True


def weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Values times weights, of weight 0 none: a product alone would make NaN of 0 * inf."""
    return ops.where(ops.equal(weight, 0.0), 0.0, values * weight)


def as_columns(array: Tensor) -> Tensor:
    """`(batch, ...)` as `(batch, elements)`."""
    known = None not in array.shape[1:]
    return ops.reshape(array, (ops.shape(array)[0], math.prod(array.shape[1:]) if known else -1))


def of_mean(sums: Tensor, divisor: Tensor, batch_size: Tensor) -> Tensor:
    """Sums of samples as values whose mean over the batch is their total over the divisor."""
    return sums * (ops.cast(batch_size, sums.dtype) / divisor)
