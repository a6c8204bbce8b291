"""Which targets are objects, and a loss divided by their number."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.alignment import align
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_target
from combined_losses._core.compound import traits_of
from combined_losses._core.domains import domain_of, is_void
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.node import Node
from combined_losses._core.over import Over, check_over
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import over_axes
from combined_losses.wrappers.resizing import void_numbers
from combined_losses.wrappers.values import OfValuesAndTargets, as_columns, of_mean

__all__ = ["NormalizedByPositives"]


@keras.saving.register_keras_serializable("combined_losses")
class NormalizedByPositives(OfValuesAndTargets):
    """The sum of a loss over all its values, divided by the number of positives, as in RetinaNet.

    `batch * sum of the sample / max(P, 1)`, with the positives P of the whole batch, so that the
    mean is `sum of the batch / max(P, 1)`. Use it for anchors and pixels of which few hold an
    object: a mean over all of them would shrink with their number. Unlike `Normalized`, which has
    one number for the batch, it gives one value for each sample, so that every reduction works.

    Args:
        loss: a single loss, as in `cl.wrappers.Wrapper`, not a composite.
        over: `"batch"` (default): the positives of all samples, also those of other replicas;
            `"sample"`: those of each sample, `sum of the sample / max(P of the sample, 1)`.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    A position is what the loss gives one value for. It is positive if its target, or one of its
    targets along the last axis, is above 0.5. Class 0 is the background: id 0, or the first class
    in one-hot rows of classes that exclude each other. P is the sum of the sample weights of the
    positives, 1 each without weights. Rows that are missing (`Masked`), void or masked do not
    count. Without positives the value is the plain sum.

    If the loss averages over the last axis (`BinaryFocal`), so do its values. For the sum over K
    classes, which detectors take, use `CategoricalFocal(multilabel=True)`.

    Raises:
        ValueError: for another `over` or a composite; when called, for a loss that gives one number
            for the batch.

    Example: two anchors, one of which holds an object.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.NormalizedByPositives("mse")
    >>> float(loss(np.array([[[1.0], [0.0]]]), np.array([[[0.5], [0.5]]])))  # (0.25 + 0.25) / 1
    0.5

    Lin et al. 2017 (RetinaNet), arXiv 1708.02002: of `BinaryFocal` on `(batch, anchors, 1)`.
    """

    def __init__(
        self, loss: LossLike, *, over: Over = "batch", **kwargs: Unpack[CompositeArguments]
    ) -> None:
        super().__init__(loss, **kwargs)
        check_over("NormalizedByPositives", over)
        self.over = over
        self._check_single()

    @property
    def couples_batch(self) -> bool:
        return self.over == "batch"

    def of_values(self, values: Tensor, weight: Tensor | None, batch: Batch, label: str) -> Tensor:
        check_target(label, batch.y_true)
        found = ops.cast(positives(self._node, values, batch, above=0.5), values.dtype)
        if len(found.shape) > len(values.shape):
            axes = tuple(range(len(values.shape), len(found.shape)))
            found = over_axes(ops.max, found, axes)
        if weight is not None:
            found = ops.where(weight > 0, found * weight, 0.0)
        total, number = (ops.sum(as_columns(each), axis=1) for each in (values, found))
        if self.over == "sample":
            return total / ops.maximum(number, 1.0)
        number = backend.global_sum(ops.sum(number))
        size = backend.global_sum(ops.cast(batch.count, "float32"))
        return of_mean(total, ops.maximum(number, 1.0), size)


def positives(node: Node, values: Tensor | None, batch: Batch, above: float) -> Tensor:
    """1 for each target that is `above` a number, else 0, in the shape of the targets.

    Void targets are none. Of one-hot classes that exclude each other, with one value for each row,
    the first one is left out.
    """
    loss = node.loss_itself()
    traits, exclusive = traits_of(loss), domain_of(node.innermost_loss()).targets == "classes"
    y_true, y_pred = align(batch.y_true, batch.y_pred, traits.has_channels)
    y_true = ops.cast(y_true, "float32")
    found = ops.cast(y_true > above, "float32")
    void = is_void(y_true, void_numbers(loss))
    if void is not None:
        found = ops.where(void, ops.zeros_like(found), found)
    of_rows = values is not None and len(values.shape) == len(y_pred.shape) - 1
    same = len(y_true.shape) == len(y_pred.shape) and y_pred.shape[traits.axis] != 1
    if exclusive and of_rows and same:
        found = ops.moveaxis(found, traits.axis, -1)[..., 1:]
    return found
