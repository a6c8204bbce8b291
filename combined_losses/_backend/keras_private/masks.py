"""Masks: reading the one that a layer left on a tensor, and putting one there.

Keras 3.15.1: a tensor carries its mask in an attribute, where it can have one, and on JAX in a
table of Keras's. A layer is the one public way to both: it is called with the mask of its input as
`mask`, and its output has the mask that `compute_mask(inputs, previous_mask)` gives.
"""

import threading

import keras

_local = threading.local()


class _MaskPort(keras.layers.Layer):
    """Takes the mask of its input and may give its output another one."""

    def __init__(self):
        super().__init__(name="combined_losses_mask_port", autocast=False)

    def call(self, inputs, mask=None):
        _local.mask = mask
        return inputs

    def compute_mask(self, inputs, previous_mask):
        return _local.new_mask if _local.new_mask is not None else previous_mask


def mask_of(tensor):
    """The mask of a tensor, or None."""
    if not _may_have_mask(tensor):
        return None
    _pass(tensor, None)
    mask, _local.mask = _local.mask, None
    return mask


def _may_have_mask(tensor):
    """Whether it is worth the 50 microseconds of a layer to ask a tensor for its mask.

    Keras 3.15.1: the attribute is `_keras_mask`, but on JAX, where tensors take none.
    """
    return hasattr(tensor, "_keras_mask") or keras.backend.backend() == "jax"


def put_mask(tensor, mask):
    """A tensor without a mask, with `mask`."""
    return _pass(tensor, mask)


def prepare_masks():
    """Makes the layer now: torch can compile a step that calls it, but not one that makes it."""
    if not hasattr(_local, "port"):
        _local.port = _MaskPort()


def _pass(tensor, new_mask):
    prepare_masks()
    _local.new_mask = new_mask
    try:
        return _local.port(tensor)
    finally:
        _local.new_mask = None
