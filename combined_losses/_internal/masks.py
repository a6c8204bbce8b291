"""Reading the mask that a layer left on predictions, or a loss on its values; putting one there."""

import functools
import threading

import keras

_local = threading.local()


class _MaskPort(keras.layers.Layer):
    """Takes the mask of its input and may give its output another one.

    A layer is the one public way to a mask that works on JAX's tracers too.
    """

    def __init__(self):
        super().__init__(name="combined_losses_mask_port", autocast=False)

    def call(self, inputs, mask=None):
        _local.mask = mask
        return inputs

    def compute_mask(self, inputs, previous_mask):
        return _local.new_mask if _local.new_mask is not None else previous_mask


def read_mask(y_pred):
    """The mask that was put on `y_pred`, or None; of several arrays, that of all together."""
    if keras.tree.is_nested(y_pred):
        masks = [mask for mask in map(read_mask, keras.tree.flatten(y_pred)) if mask is not None]
        if not masks or any(tuple(m.shape) != tuple(masks[0].shape) for m in masks):
            return None
        return functools.reduce(keras.ops.logical_and, masks)
    if not keras.ops.is_tensor(y_pred) or not _may_have_mask(y_pred):
        return None
    _pass(y_pred, None)
    mask, _local.mask = _local.mask, None
    return mask


def _may_have_mask(tensor):
    """Whether it is worth the 50 microseconds of a layer to ask a tensor for its mask.

    Keras (3.15.1) leaves it as this attribute, but where tensors take none: on JAX.
    """
    return hasattr(tensor, "_keras_mask") or keras.backend.backend() == "jax"


def with_mask(y_pred, mask):
    """`y_pred`, a tensor without a mask, with `mask`."""
    return y_pred if mask is None else _pass(y_pred, mask)


def prepare():
    """Makes the layer now: torch can compile a step that calls it, but not one that makes it."""
    if not hasattr(_local, "port"):
        _local.port = _MaskPort()


def _pass(y_pred, new_mask):
    prepare()
    _local.new_mask = new_mask
    try:
        return _local.port(y_pred)
    finally:
        _local.new_mask = None
