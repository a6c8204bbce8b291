"""The base of the losses of sets: which members there are, and how much each counts."""

import math
from typing import Unpack

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.over import Over, check_over
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div


class OfMembers(Loss):
    """A loss of two sets of members, vectors of D numbers (abstract).

    A subclass implements `measure(x, z, weight)`: x and z are the sets, `(sets, n, D)` and
    `(sets, m, D)`, with the weights of their members, `(sets, n)`, or None. It returns `(sets,)`.
    With `over="batch"` there is one pair of sets, of all replicas.

    Args:
        over: `"batch"` (default) or `"sample"`, see the subclasses.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.
    """

    same_shape = False
    has_channels = True
    whole_rows = True
    neutral_target: float | None = 1.0

    def __init__(self, over: Over = "batch", **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_over(type(self).__name__, over)
        self.over = over

    @property
    def traits(self) -> Traits:
        whole = self.over == "batch"
        return super().traits._replace(couples_batch=whole, weighs_batch=whole, weighs_rows=True)

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        self._check_shapes(y_true, y_pred, sample_weight is not None)
        x, z = self._sets(y_true), self._sets(y_pred)
        weight = sample_weight
        if weight is not None:
            weight = self._sets(ops.expand_dims(weight, -1))[..., 0]
        if 0 in (*x.shape, *z.shape):  # nothing to compare, also not by a maximum
            values = ops.sum(z[:, :0], axis=(1, 2))
        else:
            values = self.measure(x, z, weight)
        if self.over == "batch":
            return ops.broadcast_to(values, (ops.shape(y_pred)[0],))
        return values

    def measure(self, x: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")

    def _sets(self, array: Tensor) -> Tensor:
        """`(sets, members, D)`."""
        size = array.shape[-1]
        if self.over == "batch":
            rows = ops.reshape(array, (-1, size)) if len(array.shape) > 2 else array
            # TensorFlow's replicas forget the sizes of what they gather.
            return ops.reshape(backend.global_concat(rows), (1, -1, size))
        if len(array.shape) == 3:
            return array
        batch, *middle, _ = ops.shape(array)  # no -1: it has no value for an empty batch
        return ops.reshape(array, (batch, math.prod(middle), size))

    def _check_shapes(self, y_true: Tensor, y_pred: Tensor, weighted: bool) -> None:
        true, pred = tuple(y_true.shape), tuple(y_pred.shape)
        owner = f"{type(self).__name__}(over={self.over!r})"
        received = f"Received: y_true of shape {true} and y_pred of shape {pred}"
        least = 2 if self.over == "batch" else 3
        form = "(batch, ..., D), of which every row is a member"
        form = form if least == 2 else "(batch, ..., D), of which the middle axes are the members"
        if len(pred) < least or len(true) != len(pred):
            raise ValueError(f"{owner} compares two sets {form} of D numbers. {received}")
        if None in (true[-1], pred[-1]) or true[-1] != pred[-1]:
            raise ValueError(f"{owner} needs members of one known size D in both sets. {received}")
        sizes = zip(true[:-1], pred[:-1], strict=True)
        differ = any(a != b and None not in (a, b) for a, b in sizes)
        if differ and (weighted or self._needs_as_many):
            why = "for weights of members" if weighted else "to compare them in order"
            raise ValueError(f"{owner} needs as many members in both sets {why}. {received}")

    _needs_as_many = False


def shares(members: Tensor, weight: Tensor | None) -> Tensor:
    """How much each member counts, `(sets, members)`: 1 in sum, or all 0 if no weight is not."""
    if weight is None:
        ones = ops.ones_like(members[..., 0])
        return ones / ops.maximum(ops.sum(ones, axis=1, keepdims=True), 1.0)
    return div(weight, ops.sum(weight, axis=1, keepdims=True))


def squared_distances(x: Tensor, z: Tensor) -> Tensor:
    """Between all members of two sets, `(sets, n, m)`, from their differences: none cancels."""
    if x.shape[0] == 1 and z.shape[0] == 1:
        return ops.expand_dims(backend.squared_distances(x[0], z[0]), 0)
    return ops.sum(ops.square(ops.expand_dims(x, 2) - ops.expand_dims(z, 1)), axis=-1)
