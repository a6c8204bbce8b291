"""How arrays of different ranks are aligned: targets with predictions, weights with values.

Sample weights and masks match the data from the left: `(N,)` is one weight for each sample,
`(N, T)` one for each step. `Batch.view` decides what becomes of them in a view of the data.
"""

import functools
import operator
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from combined_losses._numerics.arrays import Tensor


def align(y_true: Tensor, y_pred: Tensor, has_channels: bool = False) -> tuple[Tensor, Tensor]:
    """Targets and predictions of one rank, if they differ by a last axis of length 1.

    As in Keras's own losses, the axis is removed from the array that has it; only if the other
    array is a vector is the axis added there. With `has_channels` it is always added.
    """
    if y_true is None or keras.tree.is_nested(y_true) or keras.tree.is_nested(y_pred):
        return y_true, y_pred
    true_rank, pred_rank = len(y_true.shape), len(y_pred.shape)
    if true_rank == pred_rank + 1 and y_true.shape[-1] == 1:
        if pred_rank == 1 or has_channels:
            return y_true, ops.expand_dims(y_pred, -1)
        return ops.squeeze(y_true, -1), y_pred
    if pred_rank == true_rank + 1 and y_pred.shape[-1] == 1:
        if true_rank == 1 or has_channels:
            return ops.expand_dims(y_true, -1), y_pred
        return y_true, ops.squeeze(y_pred, -1)
    return y_true, y_pred


def of_rank(weight: Tensor, values: Tensor) -> Tensor:
    """`weight` without its last axes of length 1, as far as it has more axes than `values`."""
    if weight is None or keras.tree.is_nested(weight):
        return weight
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    return weight


def padded(weight: Tensor, rank: int) -> Tensor:
    """`weight` with last axes of length 1 until it has `rank` axes."""
    missing = rank - len(weight.shape)
    return ops.reshape(weight, (*ops.shape(weight), *[1] * missing)) if missing > 0 else weight


def fit_from_left(weight: Tensor, values: Tensor) -> Tensor:
    """`weight` with the rank of `values`, matched from the left; None if it does not fit.

    Weights `(N,)` belong to the samples of values `(N, T)`, never to its columns. Weights finer
    than the values, such as `(N, T)` against `(N,)`, do not fit.
    """
    weight = of_rank(weight, values)
    if len(weight.shape) > len(values.shape) or _differing(weight, values):
        return None
    return padded(weight, len(values.shape))


def at_every_place(weight: Tensor, values: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """`weight` broadcast to the shape of `values`, or to `sizes`; None if it does not fit."""
    fitted = fit_from_left(weight, values)
    if fitted is None:
        return None
    return ops.broadcast_to(fitted, ops.shape(values) if sizes is None else sizes)


def fits(name: str, what: str, weight: Tensor, values: Tensor) -> bool:
    """Whether `values` have the axes that `weight` varies over; raises if their sizes differ.

    For the message `name` is the name of the component, and `what` is "sample_weight" or "mask".
    """
    if len(values.shape) and fit_from_left(weight, values) is not None:
        return True
    if _differing(weight, values):
        raise ValueError(
            f"The {what} of component '{name}' must have the shape of its values from the "
            f"left: {tuple(values.shape)[:1]} or {tuple(values.shape)}. "
            f"Received: {what} of shape {tuple(weight.shape)}"
        )
    return False


def _differing(weight: Tensor, values: Tensor) -> bool:
    """Whether an axis of `weight` that is not of length 1 has another length than in `values`."""
    return any(
        ours not in (1, None) and theirs is not None and ours != theirs
        for ours, theirs in zip(weight.shape, values.shape, strict=False)
    )


def beside_classes(weight: Tensor, rank: int, axis: int) -> Tensor:
    """A weight of a row, with an axis of length 1 at the place of the classes in the data.

    Weights match the values of the loss, which have no axis of classes; the data have one. `rank`
    is the rank of the data, and `axis` is their axis of classes.
    """
    axis %= rank
    while len(weight.shape) >= rank and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    return ops.expand_dims(weight, axis) if axis < len(weight.shape) < rank else weight


def is_per_sample(weight: Tensor) -> bool:
    """Whether there is one weight for each sample, or one for all; other axes have length 1."""
    return all(size == 1 for size in weight.shape[1:])


def is_used(weight: Tensor) -> Tensor:
    """The places where a weight or mask is not 0."""
    return ops.not_equal(weight, ops.cast(0, weight.dtype))


def product(weights: Iterable[Tensor]) -> Tensor:
    """The product of weights and masks of one dtype and rank; None if there are none."""
    weights = list(weights)
    return functools.reduce(operator.mul, weights) if weights else None
