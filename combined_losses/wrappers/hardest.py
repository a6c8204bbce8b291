"""The mean of the largest values of a loss alone."""

import math
from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_number, is_integer, shown
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.over import Over, check_over
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.wrappers.values import OfValues, as_columns, of_mean

__all__ = ["Hardest"]


@keras.saving.register_keras_serializable("combined_losses")
class Hardest(OfValues):
    """The mean of the largest values of a loss: the hardest pixels, anchors or samples alone.

    Use it where most elements are easy and so many that they drown the rest. The other elements
    have no gradient in this step. In the beginning, and with wrong labels, the hardest elements may
    be noise: take a large `fraction`, or add the plain loss.

    Args:
        loss: a single loss, as in `cl.wrappers.Wrapper`, not a composite.
        fraction: the share of the elements that are chosen, above 0 and at most 1: `k = max(1,
            floor(fraction m + 0.001))` of m. (The 0.001 makes 29 of 0.29 times 100, which floats
            put just below.)
        count: the number of elements that are chosen, an integer of at least 1: all if there are
            fewer. Give either `fraction` or `count`.
        over: `"sample"` (default): k of each sample; the loss must give several values for each.
            `"batch"`: k of all elements of all samples, also those of other replicas.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Values `(batch,)`: the sum of the k largest values of the sample, divided by k; with
    `over="batch"` the sum of the chosen ones in the sample, times `batch / k`, so that the mean is
    the mean of the k chosen. Elements are what the loss gives one value for; they are ranked after
    their sample weights, masks and missing labels have acted, and count once. What has the weight 0
    is no candidate, and lowers m. Without candidates the value is 0. Of equal values at the limit
    each has the same share.

    Raises:
        ValueError: if not exactly one of `fraction` and `count` is given or it is outside its
            range, for a composite; when called, for a loss with one value for each sample unless
            `over="batch"`.

    Example: the two worst of four pixels.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Hardest("mse", fraction=0.5)
    >>> y_true, y_pred = np.zeros((1, 4, 1)), np.array([[[1.0], [3.0], [2.0], [0.0]]])
    >>> float(loss(y_true, y_pred))  # (9 + 4) / 2
    6.5

    Limits: `fraction=1.0` is the mean over all that counts, `count=1` the largest. nnU-Net's top-k
    cross-entropy is `Hardest(BinaryFocal(0.0), fraction=0.1, over="batch")`, or with a
    cross-entropy of classes. Shrivastava, Gupta & Girshick 2016, arXiv 1604.03540.
    """

    def __init__(
        self,
        loss: LossLike,
        *,
        fraction: float | None = None,
        count: int | None = None,
        over: Over = "sample",
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        if (fraction is None) == (count is None):
            raise ValueError(
                "Hardest needs either `fraction` or `count`, not both. "
                f"Received: fraction={fraction!r} and count={count!r}"
            )
        if fraction is not None:
            check_number("Hardest", "fraction", fraction, minimum=0, exclusive=True, maximum=1)
        if count is not None and (not is_integer(count) or count < 1):
            raise ValueError(
                "The argument `count` of Hardest must be an integer of at least 1. "
                f"Received: {shown(count)}"
            )
        check_over("Hardest", over)
        self.fraction = fraction
        self.count = count
        self.over = over
        self._check_single()

    @property
    def couples_batch(self) -> bool:
        return self.over == "batch"

    def of_values(self, values: Tensor, weight: Tensor | None, batch: Batch, label: str) -> Tensor:
        if self.over == "sample" and len(values.shape) == 1:
            raise ValueError(
                f"Component '{label}' has one value for each sample, so Hardest cannot choose in a "
                "sample: give over='batch' for the hardest samples. "
                f"Received: {self.loss!r}"
            )
        values = as_columns(values)
        scores = ops.stop_gradient(values)
        if weight is not None:
            scores = ops.where(as_columns(weight) > 0, scores, -math.inf)
        share, number = self._chosen(scores, weight is not None)
        chosen = ops.where(share > 0, values, 0.0) * share
        # A comparison with NaN is False: NaN would be left out in silence.
        total = ops.sum(ops.where(ops.isnan(values), values, chosen), axis=1)
        if self.over == "sample":
            return div(total, number[:, 0])
        size = backend.global_sum(ops.cast(batch.count, "float32"))
        return of_mean(total, ops.maximum(number[0, 0], 1.0), size)

    def _chosen(self, scores: Tensor, has_weights: bool) -> tuple[Tensor, Tensor]:
        """The share in which each score is among the largest, and their number, `(rows, 1)`.

        There is a row for each sample, or with `over="batch"` one. No candidates are `-inf`.
        """
        every = scores
        if self.over == "batch":
            flat = backend.global_concat(ops.reshape(scores, (-1,)))
            every = ops.expand_dims(flat, 0)
        candidates = _number(every > -math.inf)
        most = self._number_of(ops.shape(every)[1])
        if isinstance(most, int) and not most:  # an empty batch
            return ops.zeros_like(scores), ops.cast(candidates, scores.dtype)
        number = ops.zeros_like(candidates) + ops.cast(most, candidates.dtype)
        places = None
        if has_weights:
            number = ops.minimum(self._number_of(candidates), candidates)
            places = ops.cast(ops.maximum(number, 1), "int32")
        least = backend.nth_largest(every, most, places)
        left = number - _number(every > least)
        share = div(left, _number(ops.equal(every, least)))
        at_least = ops.where(ops.equal(scores, least), share, 0.0)
        shares = ops.where(scores > least, 1.0, at_least)
        return ops.cast(shares, scores.dtype), ops.cast(number, scores.dtype)

    def _number_of(self, size: Tensor) -> Tensor:
        """How many of a number of elements are chosen: an integer of an integer."""
        if self.count is not None:
            return min(self.count, size) if isinstance(size, int) else ops.minimum(self.count, size)
        assert self.fraction is not None
        if isinstance(size, int):
            return min(max(1, math.floor(self.fraction * size + 0.001)), size)
        found = ops.floor(self.fraction * ops.cast(size, "float32") + 0.001)
        return ops.cast(ops.maximum(found, 1.0), size.dtype)


def _number(flags: Tensor) -> Tensor:
    return ops.sum(ops.cast(flags, "float32"), axis=1, keepdims=True)
