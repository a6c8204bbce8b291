"""The reduction of all losses here: from the values of a loss to its number in the total."""

from collections.abc import Iterable
from typing import Final

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.alignment import fit_from_left, product
from combined_losses._core.batch import Batch
from combined_losses._numerics.arrays import Tensor

REDUCTIONS: Final = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)
PER_COMPONENT: Final = "per_component"
REDUCTIONS_OF_COMPOUNDS = (PER_COMPONENT, *REDUCTIONS)


def reduce_values(
    values: Tensor, batch: Batch, reduction: str | None, axes: Iterable[int] | None = None
) -> Tensor:
    """Reduces `values` of shape `(batch, ...)` by `reduction`, after sample weights and mask.

    It reduces over all axes by default. Given `axes` must include the batch axis; each entry along
    the other axes is a part, and is reduced as it would be alone.

    With several replicas the denominator of a mean is that of the whole batch, and each replica
    returns its contribution to the mean. The optimizer sums the gradients of the replicas, so it
    gets the gradient of one device, even if the replicas have unequal parts of the batch. Results
    of losses are scaled for distribution only here, and in `Leaf` for scalars.
    """
    axes = None if axes is None else tuple(axes)
    weights = weights_of(values, batch) if batch.weighted else {}
    combined = product(weights.values()) if weights else None
    if combined is not None:
        # A product alone would not do: 0 * inf is NaN.
        values = ops.where(ops.equal(combined, 0.0), ops.zeros_like(values), values * combined)
    if reduction in ("none", None):
        return values
    if reduction == "sum":
        total = ops.sum(values, axis=axes)
        return total / ops.cast(batch.elements, total.dtype)
    counted = combined if reduction == "mean_with_sample_weight" else weights.get("mask")
    if counted is not None:
        return _divide(ops.sum(values, axis=axes), _count(counted, values, axes), batch)
    mean = _mean(values, axes)
    return mean if batch.replicas == 1 else mean * ops.cast(batch.share, mean.dtype)


def _mean(values: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    """The mean; 0 for an empty batch or a replica without samples, where `ops.mean` is NaN."""
    if None not in values.shape and 0 not in values.shape:
        return backend.mean(values, axes)
    total, count = ops.sum(values, axis=axes), ops.size(values)
    if axes is not None:
        count = count // ops.maximum(ops.size(total), 1)
    return total / ops.cast(ops.maximum(count, 1), total.dtype)


def _count(weight: Tensor, values: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    return ops.sum(ops.broadcast_to(weight, ops.shape(values)), axis=axes)


def per_sample(values: Tensor) -> Tensor:
    """The mean of `values` over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def weights_of(values: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Sample weights and mask in the dtype of the values, without those that do not fit them.

    Each has the rank of the values.
    """
    fitted = {what: fit_from_left(weight, values) for what, weight in batch.weights()}
    return {
        what: ops.cast(weight, values.dtype)
        for what, weight in fitted.items()
        if weight is not None
    }


def _divide(total: Tensor, count: Tensor, batch: Batch) -> Tensor:
    if batch.replicas > 1:
        count = backend.global_sum(count)
    # A batch in which nothing counts has the loss 0, with the gradient 0.
    empty = ops.equal(count, 0.0)
    return ops.where(empty, ops.zeros_like(total), total / ops.where(empty, 1.0, count))
