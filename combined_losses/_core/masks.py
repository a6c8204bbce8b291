"""Reading the mask that a layer left on predictions, or a loss on its values; putting one there."""

import functools

import keras

from combined_losses._backend import keras_private


def read_mask(y_pred):
    """The mask that was put on `y_pred`, or None; of several arrays, that of all together."""
    if keras.tree.is_nested(y_pred):
        masks = [mask for mask in map(read_mask, keras.tree.flatten(y_pred)) if mask is not None]
        if not masks or any(tuple(m.shape) != tuple(masks[0].shape) for m in masks):
            return None
        return functools.reduce(keras.ops.logical_and, masks)
    return keras_private.mask_of(y_pred) if keras.ops.is_tensor(y_pred) else None


def with_mask(y_pred, mask):
    """`y_pred`, a tensor without a mask, with `mask`."""
    return y_pred if mask is None else keras_private.put_mask(y_pred, mask)
