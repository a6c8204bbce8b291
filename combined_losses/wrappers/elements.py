"""One component for each element of a sample, computed in one vectorised pass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import keras
from keras import ops

from combined_losses._core.alignment import at_every_place
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_reduction
from combined_losses._core.compound import traits_of
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.leaf import Leaf
from combined_losses._core.presence import presence
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS, reduce_values
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.wrappers.parts import Aggregation, PerPart, Weights
from combined_losses.wrappers.per_channel import all_at_once, evaluate_channels

__all__ = ["PerElement"]


@keras.saving.register_keras_serializable("combined_losses")
class PerElement(PerPart):
    """One component for each element of a sample, in one vectorised pass.

    Args:
        loss: a loss of single elements: MSE, MAE, Huber, binary cross-entropy, …; or one with
            several predictions for each target, such as `GaussianNLL`, whose targets are elements.
        names: one name for each element, in row-major order. Without names (and `size`) the
            elements are not reported.
        weights: None (default): 1 for each element; an array of the shape of one sample; or, with
            names, a dict from the name of an element to its weight.
        size: instead of names, the number of elements or the shape of one sample, such as
            `(10, 10)`. The elements are then called `element_0_0`, `element_0_1`, …
        aggregation: `"sum"` (default), `"mean"` or `"weighted_mean"` of the elements.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: if the loss does not judge single elements, the number of elements differs from
            `names`, or the weights do not fit.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss({"price": cl.wrappers.PerElement("mae", names=["bid", "ask"])})
    >>> y_true, y_pred = np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])
    >>> {name: float(value) for name, value in loss.components(y_true, y_pred).items()}
    {'price': 2.0, 'price/bid': 0.0, 'price/ask': 2.0}
    """

    _part = "element"
    _size_may_be_tuple = True

    def __init__(
        self,
        loss: LossLike,
        names: Sequence[str] | None = None,
        weights: ArrayLike | Mapping[str, float] | None = None,
        size: int | Sequence[int] | None = None,
        aggregation: Aggregation = "sum",
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, names, size, weights, aggregation, **kwargs)
        self._refuse_moving()
        traits = traits_of(self.loss)
        if not traits.elementwise and traits.layout is None:
            raise ValueError(
                f"PerElement ('{self.name}') needs a loss of single elements, such as 'mse'; a "
                "loss of your own says so with `elementwise = True`. "
                f"Received: {self.loss!r}"
            )

    def _evaluate_parts(
        self, batch: Batch, reduction: str | None, label: str
    ) -> tuple[Tensor, Weights, Tensor]:
        shape = batch.shape
        self._check_shape(shape, label)
        count = math.prod(shape[1:])
        weights = None if self._weights is None else self._weights.reshape(-1)
        imposed = self._imposed(reduction)
        found = None
        if isinstance(self._node, Leaf):
            found = all_at_once(self.loss, self._node, batch, imposed != PER_COMPONENT, label)
        if found is None:
            flat = _flattened(batch, count)
            parts, present = evaluate_channels(self.loss, self._node, flat, imposed, label)
            return parts, weights, present
        values, counted = found
        reduction = self.loss.reduction if imposed == PER_COMPONENT else imposed
        check_reduction(label, reduction, REDUCTIONS)
        parts = reduce_values(values, counted, reduction, axes=(0,))
        present = presence(batch, values, counted)
        if reduction in ("none", None):
            return ops.transpose(ops.reshape(parts, (-1, count))), weights, present
        return ops.reshape(parts, (-1,)), weights, present

    def _check_shape(self, shape: tuple[Any, ...], label: str) -> None:
        if None in shape[1:]:
            raise ValueError(
                f"Component '{label}' needs a static shape but for the batch axis. "
                f"Received: y_pred of shape {shape}"
            )
        count = math.prod(shape[1:])
        self._check_count(count, label, shape)
        self._check_weights(shape, label, (count,), shape[1:])
        if isinstance(self.size, (tuple, list)) and tuple(self.size) != shape[1:]:
            raise ValueError(
                f"Component '{label}' has `size={tuple(self.size)}` for samples of shape "
                f"{shape[1:]}. Received: y_pred of shape {shape}"
            )


def _flattened(batch: Batch, count: int) -> Batch:
    """The batch with samples as vectors of `count` elements; weights and masks follow."""

    def flatten(array: Tensor) -> Tensor:
        own = ops.shape(array)[len(batch.shape) :]
        return ops.reshape(array, (-1, count, *own))

    def flatten_weight(_: str, weight: Tensor) -> Tensor:
        if len(weight.shape) < 2:
            return weight  # of samples
        single = at_every_place(weight, batch.y_true, batch.sizes)
        return weight if single is None else flatten(single)

    return batch.view(flatten, flatten_weight, channels="last")
