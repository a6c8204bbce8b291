"""Masks on tensors: read the mask that a layer or a loss has put there, or put one there."""

import functools

import keras

from combined_losses._backend import keras_private
from combined_losses._numerics.arrays import Tensor


def read_mask(y_pred: Tensor) -> Tensor:
    """The mask on `y_pred`, or None. The mask of several arrays is the "and" of their masks."""
    if keras.tree.is_nested(y_pred):
        masks = [mask for mask in map(read_mask, keras.tree.flatten(y_pred)) if mask is not None]
        if not masks or any(tuple(m.shape) != tuple(masks[0].shape) for m in masks):
            return None
        return functools.reduce(keras.ops.logical_and, masks)
    return keras_private.mask_of(y_pred) if keras.ops.is_tensor(y_pred) else None


def with_mask(y_pred: Tensor, mask: Tensor) -> Tensor:
    """`y_pred`, which has no mask yet, with `mask` on it."""
    return y_pred if mask is None else keras_private.put_mask(y_pred, mask)
