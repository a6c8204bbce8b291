"""Masks and weights that come from the targets: labels that are missing, void or rare."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.alignment import fit_from_left, fits
from combined_losses._core.batch import Batch
from combined_losses._core.checks import (
    LARGEST,
    are_finite,
    as_array,
    is_float,
    is_integer,
    is_nan,
    shown,
)
from combined_losses._core.compound import has_whole_rows
from combined_losses._core.data_format import Formatted
from combined_losses._core.domains import Domain, examined, leave, own_voids
from combined_losses._core.keras_types import CompositeArguments, DataFormat, LossLike
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.wrappers.base import Wrapper

__all__ = ["ClassWeighted", "Masked", "OneHot"]


@keras.saving.register_keras_serializable("combined_losses")
class Masked(Wrapper):
    """A loss on the labels that are there.

    Missing targets are replaced before the loss sees them, so that value and gradient stay finite,
    and the loss is that of the valid ones alone. What is valid or missing depends on the loss:

    - Single elements, for a loss of single elements (MSE, MAE, Huber, …) and for one with several
      predictions of each target (`GaussianNLL`, `Pinball` of several quantiles). A row that is
      scored as one (`MixtureNLL`, `EnergyScore`) is scored by the targets that are there.
    - Rows, for a loss of classes: a row is missing if any of its targets is.
    - Rows, for a loss of boxes: with NaN a row is missing if any of its numbers is; with a number
      such as -1, if all of them are.
    - Pixels, for a region or contour loss (`Dice`, `Jaccard`, `SignedDistanceBoundary`, …), which
      leaves them out of its sums over an image: a pixel is missing if any of its labels is, or with
      `multilabel=True` each entry by itself. An image without any label (with `multilabel=True`, a
      channel of an image) has the value 0 and counts in the mean over images or channels.

    A batch without a valid target gives 0 with gradient 0. The mean is that of one batch: the logs
    of an epoch weigh batches by their size, however many labels they hold.

    A sample weight of 0 means something else: Keras divides by the number of all values, `Masked`
    by that of the valid ones. `Masked(cl.losses.dice_ce())` on images of which half is void has
    twice the cross-entropy that sample weights of 0 and 1 give there; the Dice term is the same
    both ways. `reduction="mean_with_sample_weight"` divides by the sum of the weights.

    A function or loss of your own can say, by an attribute `elementwise`, whether its values are
    means of single elements, and by `prediction_layout`, how several predictions belong to each
    target (see `cl.losses.Loss`). If it says neither, rows count, and a warning says so.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        mask_value: the target that means "missing": `nan` (default), a number such as -1, or None
            for no such value.
        mask: None, or an array of the shape of one sample, true where targets count.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: when called, for a loss that has reduced over what is missing and takes no
            weights inside, such as Keras's `Dice`, `SSIM` or a function that returns a number; if
            neither `mask_value` nor `mask` is given; if the mask has another shape than a sample.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Masked("mse")
    >>> float(loss(np.array([[1.0, np.nan], [3.0, 5.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])))
    6.666666507720947

    Two of four pixels are void: the mean is over two, that of sample weights over four.

    >>> y_true, y_pred = np.array([[1.0, 0.0, -1.0, -1.0]])[..., None], np.full((1, 4, 1), 0.5)
    >>> masked = cl.CompositeLoss({"masked": cl.wrappers.Masked(cl.losses.dice_bce(), -1)})
    >>> found = masked.components(y_true, y_pred)
    >>> [round(float(found[f"masked/{part}"]), 3) for part in ("dice", "bce")]
    [0.333, 0.693]
    >>> weight = np.array([[1.0, 1.0, 0.0, 0.0]])
    >>> found = cl.losses.dice_bce().components(np.abs(y_true), y_pred, weight)
    >>> [round(float(found[part]), 3) for part in ("dice", "bce")]
    [0.333, 0.347]
    """

    def __init__(
        self,
        loss: LossLike,
        mask_value: float | None = math.nan,
        mask: ArrayLike = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._check_value(mask_value, mask)
        if self._node.opaque:
            raise ValueError(
                f"Masked ('{self.name}') needs a loss that gives its values in `call`; this one "
                f"has a `__call__` of its own, which no mask reaches. Received: {self.loss!r}"
            )
        self.mask_value = mask_value
        self.mask = mask
        self._mask = None if mask is None else np.asarray(mask, bool)
        self._whole_rows = has_whole_rows(self.loss)

    def _check_value(self, mask_value: float | None, mask: ArrayLike) -> None:
        if mask_value is not None and not is_filling(mask_value):
            raise ValueError(
                f"The argument `mask_value` of Masked ('{self.name}') must be nan, another number, "
                f"which a float32 can hold, or None. Received: {shown(mask_value)}"
            )
        if mask_value is None and mask is None:
            raise ValueError(
                f"Masked ('{self.name}') needs `mask_value` or `mask`. Received: None for both"
            )

    reads_target = sees_channels_last = True

    def see(self, batch: Batch, label: str) -> Batch:
        batch = self.one_array(batch, label).with_target()
        valid = self._valid(batch, label)
        # 0 is a number that every loss can take; later each loss puts a neutral target there.
        y_true = ops.where(valid, batch.y_true, ops.zeros_like(batch.y_true))
        return batch.replaced(
            y_true=y_true, mask=_both(batch.mask, valid, label), mask_kind="labels"
        )

    def _valid(self, batch: Batch, label: str) -> Tensor:
        y_true, valid = batch.y_true, None
        if self.mask_value is not None and not math.isnan(self.mask_value):
            valid = differs(y_true, self.mask_value)
            if self._whole_rows and len(y_true.shape) > 1:
                there = ops.any(valid, axis=-1, keepdims=True)
                valid = ops.broadcast_to(there, ops.shape(y_true))
        elif self.mask_value is not None:
            valid = ops.logical_not(ops.isnan(ops.cast(y_true, self.dtype)))
        mask = self._mask
        if mask is not None:
            if batch.channels == "moved" and mask.ndim + 1 == batch.channel_rank:
                mask = np.moveaxis(mask, 0, -1)
            if mask.shape != tuple(y_true.shape)[1:]:
                raise ValueError(
                    f"The mask of component '{label}' must have the shape of one sample, "
                    f"{tuple(y_true.shape)[1:]}. Received: mask of shape {mask.shape}"
                )
            fixed = ops.broadcast_to(ops.convert_to_tensor(mask), ops.shape(y_true))
            valid = fixed if valid is None else ops.logical_and(valid, fixed)
        return valid


def is_filling(number: Any) -> bool:
    """Whether an argument may stand for targets that are none: nan, or what a float32 can hold."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        return False
    return not LARGEST < abs(float(number)) < math.inf


def differs(y_true: Tensor, number: float) -> Tensor:
    """Where targets differ from a number that their dtype may not hold, such as -1 in bytes."""
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    if keras.backend.is_float_dtype(dtype):
        return ops.not_equal(y_true, ops.cast(number, dtype))
    if not math.isfinite(number) or number != int(number):
        return ops.ones_like(y_true, dtype="bool")
    wide = "int64" if dtype in ("int64", "uint32", "uint64") else "int32"
    if abs(number) > np.iinfo(wide).max:
        return ops.ones_like(y_true, dtype="bool")
    return ops.not_equal(ops.cast(y_true, wide), int(number))


def _both(mask: Tensor, valid: Tensor, label: str) -> Tensor:
    """The mask of the batch and the valid targets as one mask."""
    if mask is None:
        return valid
    if not fits(label, "mask", mask, valid):  # raises where the sizes differ
        raise ValueError(
            f"Component '{label}' cannot honour the mask, which is finer than its targets of shape "
            f"{tuple(valid.shape)}. Received: mask of shape {tuple(mask.shape)}"
        )
    # Under MultiScale a mask is the fraction of each block that counts.
    fitted = ops.broadcast_to(fit_from_left(mask, valid), ops.shape(valid))
    return ops.where(valid, fitted, ops.zeros_like(fitted))


@keras.saving.register_keras_serializable("combined_losses")
class ClassWeighted(Formatted, Wrapper):
    """Weighs each row by the weight of its class; rows may be the pixels of an image.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        weights: one number of at least 0 for each class, as a list; or as a dict from class id,
            like Keras's `class_weight`, in which a class that is left out has the weight 1.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Targets are one-hot (or soft) rows `(batch, ..., classes)`, or labels `(batch, ...)` or
    `(batch, ..., 1)`; a soft binary label lies between the two weights. The weights act as
    sample weights and multiply those that are given.

    Raises:
        ValueError: if a weight is negative or not finite, or the number of classes differs.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.ClassWeighted("sparse_categorical_crossentropy", [1.0, 3.0])
    >>> y_pred = np.full((2, 2), 0.5)
    >>> round(float(loss(np.array([0, 1]), y_pred)), 4)  # (1 + 3) / 2 * log 2
    1.3863
    """

    sees_channels_last = True

    def __init__(
        self,
        loss: LossLike,
        weights: Sequence[float] | Mapping[int, float],
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._set_format(data_format)
        if isinstance(weights, dict) and weights and all(map(is_integer, weights)):
            # As in Keras's `class_weight`, a class that is left out has the weight 1.
            weights = [weights.get(label, 1.0) for label in range(max(weights) + 1)]
        values = as_array([] if isinstance(weights, dict) else weights)
        if values.ndim != 1 or not values.size or not are_finite(values) or np.any(values < 0):
            raise ValueError(
                f"The argument `weights` of ClassWeighted ('{self.name}') must be one finite "
                f"number of at least 0 for each class. Received: {weights!r}"
            )
        self.weights = weights
        self._weights = values

    needs_target = reads_target = True

    def see(self, batch: Batch, label: str) -> Batch:
        rows = self._rows(self.one_array(batch, label), label)
        if batch.sample_weight is not None:
            given = fit_from_left(batch.sample_weight, rows)
            if given is None:
                raise ValueError(
                    f"Component '{label}' has weights for rows of shape {tuple(rows.shape)}, which "
                    "those of single elements do not multiply. "
                    f"Received: sample_weight of shape {tuple(batch.sample_weight.shape)}"
                )
            rows = rows * ops.cast(given, rows.dtype)
        return batch.replaced(sample_weight=rows)

    def _rows(self, batch: Batch, label: str) -> Tensor:
        """The weight of each row: that of its class; a soft row has shares of several weights."""
        y_true, y_pred, count = batch.y_true, batch.y_pred, len(self._weights)
        if is_float(y_true):
            # A missing target has no class. Its row must not get NaN as a weight.
            y_true = ops.where(ops.isfinite(y_true), y_true, ops.zeros_like(y_true))
        weights = ops.convert_to_tensor(self._weights, dtype=self.dtype)
        same_rank = len(y_true.shape) == len(y_pred.shape)
        binary = y_pred.shape[-1] == 1 or len(y_pred.shape) == 1
        if same_rank and y_true.shape[-1] == count and not (binary and count == 1):
            return ops.sum(ops.cast(y_true, self.dtype) * weights, axis=-1)
        labels = ops.squeeze(y_true, -1) if same_rank and y_true.shape[-1] == 1 else y_true
        if self._layout is not None:  # the last axis of the predictions is none of classes
            return ops.take(weights, ops.clip(ops.cast(labels, "int32"), 0, count - 1))
        classes = 2 if binary else y_pred.shape[-1]
        if len(labels.shape) == len(y_pred.shape) > 1 or classes != count:
            raise ValueError(
                f"Component '{label}' has weights for {count} classes. Received: y_true of shape "
                f"{tuple(y_true.shape)} and y_pred of shape {tuple(y_pred.shape)}"
            )
        if binary and is_float(labels):  # a soft label is the share of the second class
            share = ops.cast(ops.clip(labels, 0, 1), self.dtype)
            return weights[0] + (weights[1] - weights[0]) * share
        return ops.take(weights, ops.clip(ops.cast(labels, "int32"), 0, count - 1))


@keras.saving.register_keras_serializable("combined_losses")
class OneHot(Formatted, Wrapper):
    """Maps of class ids for a loss that wants one-hot targets; void pixels do not count.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        num_classes: the number of classes, at least 2.
        ignore_value: None, or the id of void pixels, such as 255; `nan`: those that are NaN.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Targets are ids `(batch, ...)` or `(batch, ..., 1)`, predictions `(batch, ..., num_classes)`.
    Void pixels are masked, and their targets and predictions are 0, for losses that give one value
    for each sample. Any other id outside `0 … num_classes - 1` becomes a row of zeros.

    Raises:
        ValueError: if `num_classes` is no integer of at least 2, or the predictions have another
            number of classes.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.OneHot("categorical_crossentropy", 2, ignore_value=255)
    >>> round(float(loss(np.array([[0, 255]]), np.array([[[0.5, 0.5], [0.9, 0.1]]]))), 4)
    0.6931
    """

    sees_channels_last = True

    def __init__(
        self,
        loss: LossLike,
        num_classes: int,
        ignore_value: float | None = None,
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._set_format(data_format)
        if not is_integer(num_classes) or num_classes < 2:
            raise ValueError(
                f"The argument `num_classes` of OneHot ('{self.name}') must be an integer of at "
                f"least 2. Received: {num_classes!r}"
            )
        if ignore_value is not None and not is_integer(ignore_value) and not is_nan(ignore_value):
            raise ValueError(
                f"The argument `ignore_value` of OneHot ('{self.name}') must be None, an integer "
                f"or nan. Received: {ignore_value!r}"
            )
        self.num_classes = num_classes
        self.ignore_value = ignore_value

    needs_target = reads_target = takes_ids = True

    def see(self, batch: Batch, label: str) -> Batch:
        batch = self.one_array(batch, label)
        y_true, y_pred = self._one_id_a_place(batch, label), batch.y_pred
        void = None
        if is_nan(self.ignore_value):
            void = ops.isnan(ops.cast(y_true, self.dtype))
            y_true = ops.where(void, ops.zeros_like(y_true), y_true)  # NaN is no id
        if examined() is not None:
            own = Domain("ids", classes=self.num_classes, voids=own_voids(self))
            leave(label, own, self.num_classes, batch, y_true, None)
        ids = ops.cast(y_true, "int32")
        inside = ops.logical_and(ids >= 0, ids < self.num_classes)
        known = ops.where(inside, ids, -1)  # `one_hot` makes a row of zeros of -1
        one_hot = ops.one_hot(known, self.num_classes, dtype=self.dtype)
        if self.ignore_value is None:
            return batch.replaced(y_true=one_hot)
        if void is None:
            void = ops.equal(ids, ops.cast(self.ignore_value, "int32"))
        valid = ops.logical_not(void)

        def zero_where_void(array: Tensor) -> Tensor:
            return ops.where(ops.expand_dims(valid, -1), array, ops.zeros_like(array))

        return batch.replaced(
            y_true=zero_where_void(one_hot),
            y_pred=zero_where_void(y_pred),
            mask=_both(batch.mask, valid, label),
            mask_kind="void" if batch.mask is None else batch.mask_kind,
        )

    def _one_id_a_place(self, batch: Batch, label: str) -> Tensor:
        """The class ids `(batch, ...)`; raises if targets or predictions have another shape."""
        y_true, y_pred = batch.y_true, batch.y_pred
        if y_pred.shape[-1] != self.num_classes:
            raise ValueError(
                f"Component '{label}' has {self.num_classes} classes. "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        if len(y_true.shape) != len(y_pred.shape):
            return y_true
        if y_true.shape[-1] != 1:
            raise ValueError(
                f"Component '{label}' takes class ids, (batch, ...) or (batch, ..., 1), and "
                "makes them one-hot; give them, or leave OneHot out. Received: y_true of shape "
                f"{tuple(y_true.shape)} and y_pred of shape {tuple(y_pred.shape)}"
            )
        return ops.squeeze(y_true, -1)
