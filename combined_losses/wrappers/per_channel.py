"""The value of a loss on each channel, in one pass if the loss allows that."""

import types
from collections.abc import Callable
from operator import itemgetter

import keras
from keras import ops

from combined_losses._core.alignment import fit_from_left
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_reduction
from combined_losses._core.compound import traits_of
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.layouts import as_rows
from combined_losses._core.leaf import Leaf
from combined_losses._core.loss import FunctionLoss
from combined_losses._core.node import Node
from combined_losses._core.presence import any_present, presence
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS, reduce_values
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating


def evaluate_channels(
    child: KerasLoss,
    node: Node,
    batch: Batch,
    imposed: str | None,
    label: str,
    importance: Tensor = None,
) -> tuple[Tensor, Tensor]:
    """The value of a loss on each channel of the last axis, as if it saw that channel alone.

    Args:
        child: the loss.
        node: the node of this loss, which evaluates it on a batch.
        batch: a `Batch` with the channels last.
        imposed: the reduction that is imposed, or `PER_COMPONENT` for the loss's own.
        label: the name of the component, for messages.
        importance: None, or an array of the shape of one sample that multiplies the values.

    Returns:
        The values `(channels,)`, or `(channels, batch)` if they are not reduced; and the
        `presence`.
    """
    reduction = child.reduction if imposed == PER_COMPONENT else imposed
    traits = traits_of(child)
    single = traits.elementwise or traits.layout is not None
    imposes = imposed != PER_COMPONENT
    if single and not node.is_made_of_losses:
        found = all_at_once(child, node.leaves()[0], batch, imposes, label)
    else:
        found = _folded(child, node, batch, imposes, label)
    if importance is not None:
        found = _times(importance, found, child, label)
    if found is None:
        return _one_by_one(node, batch, imposed, label)
    check_reduction(label, reduction, REDUCTIONS)
    values, counted = found
    present = presence(batch, values, counted)
    values = _without_last_axis(values, counted, reduction)
    reduced = reduce_values(values, counted, reduction, axes=range(len(values.shape) - 1))
    if reduction not in ("none", None):
        return reduced, present
    inner = tuple(range(1, len(values.shape) - 1))
    return ops.transpose(ops.mean(reduced, axis=inner) if inner else reduced), present


def _times(
    importance: Tensor, found: tuple[Tensor, Batch] | None, child: KerasLoss, label: str
) -> tuple[Tensor, Batch]:
    """Values of single elements multiplied by an importance map; raises if there are none such."""
    if found is not None:
        values, counted = found
        # Inside `Masked`, single elements have an axis of length 1 before that of the channels.
        for fitted in (importance, importance[..., None, :]):
            if tuple(values.shape[1:]) == fitted.shape:
                return values * ops.cast(fitted, values.dtype), counted
    raise ValueError(
        f"Component '{label}' has an importance map for a loss that does not judge single "
        f"elements. Received: {child!r}"
    )


# Each of the following returns values `(batch, ..., channels)` and the batch whose weights and mask
# belong to them, or None if the loss does not give such values.


def all_at_once(
    child: KerasLoss, node: Leaf, batch: Batch, imposed: bool, label: str
) -> tuple[Tensor, Batch] | None:
    """A loss of single elements is called once, on all of them."""
    if node.traits.summed or node.traits.averaged:
        values = node.of_elements().values(batch, label)[0]
        return ops.cast(values, accumulating(values.dtype)), batch
    formula = _FORMULAS.get(_function(child))
    if formula is None:
        # The loss averages over the last axis. Here that has length 1, so nothing is averaged.
        if node.opaque:
            return None
        values, counted = node.unreduced(as_rows(batch).replaced(channels="last"), imposed, label)
        return values, batch.replaced(mask=counted.mask)
    node = Leaf(label, child, node.traits._replace(elementwise=False))
    node.loss = types.SimpleNamespace(call=formula)
    values = node.values(batch, label)[0]
    return ops.cast(values, accumulating(values.dtype)), batch


# Losses of Keras without their mean over the last axis. Over an axis of length 1 the mean is the
# identity, but with it XLA keeps the differences for the gradient in an array of their own, as
# large as y_pred (`benchmarks/channels.py`). In other losses that extra pass is a small part.
_FORMULAS = {
    keras.losses.mean_squared_error: lambda y_true, y_pred: ops.square(y_true - y_pred),
    keras.losses.mean_absolute_error: lambda y_true, y_pred: ops.abs(y_true - y_pred),
}
_FUNCTIONS = {
    keras.losses.MeanSquaredError: keras.losses.mean_squared_error,
    keras.losses.MeanAbsoluteError: keras.losses.mean_absolute_error,
}


def _function(child: KerasLoss) -> Callable[..., Tensor] | None:
    """The function of Keras that a loss calls, if it is exactly that; None for subclasses."""
    return child._function if type(child) is FunctionLoss else _FUNCTIONS.get(type(child))


def _folded(
    child: KerasLoss, node: Node, batch: Batch, imposed: bool, label: str
) -> tuple[Tensor, Batch] | None:
    """A loss of samples is called once, on each channel as a sample with one channel."""
    if traits_of(child).couples_batch or node.opaque:
        return None
    folded = _channels_as_samples(batch)
    found = node.unreduced(folded, imposed, label)
    if found is None or not len(found[0].shape):
        return None
    return _samples_as_channels(batch, folded, *found)


def _channels_as_samples(batch: Batch) -> Batch:
    """The batch with each channel as a sample with one channel, those of one sample in a row."""
    count, rank = batch.shape[-1], len(batch.shape)

    def fold(array: Tensor) -> Tensor:
        channels = ops.moveaxis(array, rank - 1, 1)
        return ops.reshape(channels, (-1, *ops.shape(channels)[2:]))

    def fold_weight(_: str, weight: Tensor) -> Tensor:
        if not len(weight.shape):
            return weight
        finer = len(weight.shape) == rank
        return fold(ops.expand_dims(weight, -1)) if finer else ops.repeat(weight, count, 0)

    return as_rows(batch).view(fold, fold_weight)


def _samples_as_channels(
    batch: Batch, folded: Batch, values: Tensor, counted: Batch
) -> tuple[Tensor, Batch]:
    """The way back: values of `folded` with the channels last, and the batch that counts for them.

    The weights and mask of `counted` are those of the values. What the loss has not changed becomes
    that of `batch` again.
    """
    count, rank = batch.shape[-1], len(batch.shape)

    def unfold(array: Tensor) -> Tensor:
        return ops.moveaxis(ops.reshape(array, (-1, count, *ops.shape(array)[1:])), 1, -1)

    def unfold_weight(what: str, weight: Tensor) -> Tensor:
        if not len(weight.shape):
            return weight
        fitted = fit_from_left(weight, values)
        if fitted is None:
            return None
        given = getattr(batch, what)
        unchanged = weight is getattr(folded, what)
        return given if unchanged and len(given.shape) < rank else unfold(fitted)

    counted = counted.view(weights=unfold_weight)
    return unfold(values), batch.replaced(
        sample_weight=counted.sample_weight, mask=counted.mask, elements=counted.elements
    )


def _one_by_one(node: Node, batch: Batch, imposed: str | None, label: str) -> tuple[Tensor, Tensor]:
    """A composite, or a loss of the batch as a whole, is called once for each channel."""
    found = []
    last = len(batch.shape) - 1
    for channel in range(batch.shape[-1]):
        alone = batch.view(itemgetter((*[slice(None)] * last, slice(channel, channel + 1))))
        if batch.own_axes:
            alone = alone.replaced(y_pred=ops.squeeze(alone.y_pred, last), own_axes=0)
        found.append(node.evaluate(alone, imposed, label))
    present = any_present(batch, [each.present for each in found])
    return ops.stack([each.total for each in found]), present


def _without_last_axis(values: Tensor, batch: Batch, reduction: str | None) -> Tensor:
    """Values `(batch, ..., channels)`, reduced over the axis before the channels if unweighted.

    Where neither weights nor mask vary along that axis, this changes nothing but the time: a single
    reduction over all axes becomes one of columns, which XLA neither vectorises nor parallelises.
    """
    rank = len(values.shape)
    if rank < 3 or any(len(weight.shape) > rank - 2 for _, weight in batch.weights()):
        return values
    return (ops.sum if reduction == "sum" else ops.mean)(values, axis=-2)
