"""One loss at several resolutions."""

from collections.abc import Callable, Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.alignment import fit_from_left, is_per_sample, is_used
from combined_losses._core.batch import Batch
from combined_losses._core.checks import are_numbers, at_least, is_integer
from combined_losses._core.data_format import Formatted, telling
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import (
    CompositeArguments,
    DataFormat,
    LossLike,
)
from combined_losses._core.node import Node
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import accumulating
from combined_losses.wrappers.base import Wrapper

__all__ = ["MultiScale"]


class Levels(Wrapper):
    """What `MultiScale` and `DeepSupervision` share: one loss at several resolutions (abstract)."""

    def __init__(self, loss: LossLike, **kwargs: Unpack[CompositeArguments]) -> None:
        super().__init__(loss, **kwargs)
        self._refuse_moving()

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(self._node, None)]

    def _of_levels(self, reduction: str | None) -> str | None:
        """The reduction of each level; "none" gives one value a sample, which levels can add."""
        imposed = self._imposed(reduction)
        unreduced = imposed == PER_COMPONENT and self.loss.reduction in ("none", None)
        return "none" if unreduced else imposed


@keras.saving.register_keras_serializable("combined_losses")
class MultiScale(Formatted, Levels):
    """A loss on fields and on their averages over blocks: what matters at several sizes.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        scales: the sides of the blocks, integers of at least 1. Default (1, 2, 4). The parts are
            reported as `scale_1`, `scale_2`, …
        weights: None: 1.0 for each scale; or one number for each.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Shapes: `(batch, spatial..., channels)` with one to three spatial axes. If a block at the end is
    incomplete, it is left out. Sample weights and masks of the spatial axes are averaged over the
    same blocks, and places that they exclude do not enter the average of their block. For labels
    that are missing write `Masked(MultiScale(loss))`. Where each target has several predictions,
    each of them is averaged, log-variances too.

    Raises:
        ValueError: on scales or weights that are not allowed, or an axis shorter than a block.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.MultiScale("mse", scales=(1, 2))
    >>> y_pred = np.array([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1)
    >>> float(loss(np.zeros((1, 4, 1)), y_pred))  # the averages over two are right
    1.0
    """

    sees_channels_last = True

    def __init__(
        self,
        loss: LossLike,
        scales: Sequence[int] = (1, 2, 4),
        weights: Sequence[float] | None = None,
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._set_format(data_format)
        listed = list(scales) if isinstance(scales, (tuple, list)) else []
        allowed = all(is_integer(scale) and scale >= 1 for scale in listed)
        if not listed or not allowed or len(set(listed)) < len(listed):
            raise ValueError(
                f"The argument `scales` of MultiScale ('{self.name}') must be different integers "
                f"of at least 1. Received: {scales!r}"
            )
        if weights is not None and not (are_numbers(weights) and len(weights) == len(scales)):
            raise ValueError(
                f"The argument `weights` of MultiScale ('{self.name}') must be one finite number "
                f"for each of its {len(scales)} scales. Received: {weights!r}"
            )
        self.scales = scales
        self.weights = weights

    @property
    def component_names(self) -> tuple[str, ...]:
        return tuple(f"scale_{scale}" for scale in self.scales)

    @property
    def part_weights(self) -> dict[str, float | None]:
        return dict(zip(self.component_names, self._factors, strict=True))

    @property
    def _factors(self) -> list[float]:
        return [1.0] * len(self.scales) if self.weights is None else list(map(float, self.weights))

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label, reduction = label or self.name, self._of_levels(reduction)
        chosen = self.choose_output(batch, label)
        found = self._evaluate_chosen(chosen, reduction, label)
        return self._over_rows_of(chosen, batch, found)

    def _evaluate_chosen(self, batch: Batch, reduction: str | None, label: str) -> Evaluation:
        batch = self.one_array(batch, label).with_target()
        dtype = accumulating(self.dtype)
        found = []
        for scale in self.scales:
            with telling(batch):
                pooled = self._pooled(batch, scale, dtype, label)
            found.append(self._node.evaluate(pooled, reduction, label))
        values = [each.total for each in found]
        total = sum(w * v for w, v in zip(self._factors, values, strict=True))
        zeros = [None if weight else 0.0 for weight in self._factors]
        present = any_present(batch, [each.present for each in found], zeros)
        return Evaluation(total, tuple(values), present=present)

    def _pooled(self, batch: Batch, scale: int, dtype: Dtype, label: str) -> Batch:
        """The batch of averages over blocks, of each of several predictions by itself."""
        view = self._predictions_apart(batch, label) if scale > 1 else None
        if view is None:
            return _pooled(batch, scale, dtype, label)
        apart, count = view.batch.y_pred, view.batch.y_pred.shape[-1]
        flat = ops.reshape(apart, (*ops.shape(apart)[:-2], apart.shape[-2] * count))
        pooled = _pooled(batch.replaced(y_pred=flat), scale, dtype, label)
        back = ops.reshape(pooled.y_pred, (*ops.shape(pooled.y_pred)[:-1], -1, count))
        return view.together(pooled.replaced(y_pred=back, own_axes=1))


def _pooled(batch: Batch, scale: int, dtype: Dtype, label: str) -> Batch:
    """The batch of averages over blocks, taken over the places that count."""
    if scale == 1:
        return batch
    batch = _with_blocks(batch, scale, label)

    def pool(array: Tensor) -> Tensor:
        array = ops.cast(array, dtype)
        return ops.average_pool(array, scale, scale, "valid", data_format="channels_last")

    spatial = _spatial_weights(batch, dtype)
    weight, mask = spatial.get("sample_weight"), spatial.get("mask")
    # Fraction of each place that counts. Under nested MultiScale a mask is already a fraction.
    share = mask
    if weight is not None:
        used = ops.cast(is_used(weight), dtype)
        share = used if mask is None else used * mask

    def pool_weight(what: str, given: Tensor) -> Tensor:
        if what not in spatial:
            return given
        if what == "mask":
            return _rows(pool(mask))
        rows = mask
        if mask is not None and mask.shape[-1] != 1 and spatial[what].shape[-1] == 1:
            rows = ops.max(mask, axis=-1, keepdims=True)
        return _rows(_average(pool, spatial[what], rows))

    return batch.view(lambda array: _average(pool, array, share), pool_weight)


def _with_blocks(batch: Batch, scale: int, label: str) -> Batch:
    """The batch; raises if an array is no field, or an axis of it is shorter than a block."""
    shape, rank = tuple(batch.y_pred.shape), len(batch.y_pred.shape)
    message = (
        f"Component '{label}' averages over blocks of {scale} along the spatial axes of "
        f"(batch, spatial..., channels). Received: y_pred of shape {shape} and y_true of shape "
        f"{tuple(batch.y_true.shape)}"
    )
    if not 3 <= rank <= 5 or len(batch.y_true.shape) != rank:
        raise ValueError(message)
    axes = range(1, rank - 1)
    return batch.replaced(
        y_true=at_least(batch.y_true, axes, scale, message),
        y_pred=at_least(batch.y_pred, axes, scale, message),
    )


def _spatial_weights(batch: Batch, dtype: Dtype) -> dict[str, Tensor]:
    """Sample weights and mask at every place, `(batch, spatial..., channels or 1)`.

    A weight of whole samples is left out, and one that does not fit the targets.
    """
    spatial = {}
    for what, weight in batch.weights():
        fitted = None if is_per_sample(weight) else fit_from_left(weight, batch.y_true)
        if fitted is not None:
            places = (*ops.shape(batch.y_pred)[:-1], fitted.shape[-1])
            spatial[what] = ops.cast(ops.broadcast_to(fitted, places), dtype)
    return spatial


def _average(pool: Callable[[Tensor], Tensor], array: Tensor, share: Tensor) -> Tensor:
    """The average of each block over the `share` that counts; 0 where nothing does."""
    if share is None:
        return pool(array)
    if share.shape[-1] not in (1, array.shape[-1]):  # several predictions of each target
        share = ops.repeat(share, array.shape[-1] // share.shape[-1], axis=-1)
    # Places that do not count may hold NaN, so they become 0 before the average.
    sums = pool(ops.where(ops.equal(share, 0.0), 0.0, ops.cast(array, share.dtype) * share))
    shares = pool(share)
    return sums / ops.where(ops.equal(shares, 0.0), 1.0, shares)


def _rows(weight: Tensor) -> Tensor:
    """A weight that is the same for all channels, without their axis."""
    return ops.squeeze(weight, -1) if weight.shape[-1] == 1 else weight
