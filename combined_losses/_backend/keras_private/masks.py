"""Masks: reading the one that a layer left on a tensor, and putting one there.

Keras 3.15.1: a tensor carries its mask in an attribute; on JAX, whose tensors take no attributes,
Keras has a table of masks. A layer is the one public way to both: its `call` is given the mask of
its input as `mask`, and `compute_mask(inputs, previous_mask)` returns the mask of its output.
"""

import threading

import keras

from combined_losses._backend.arrays import Tensor

_local = threading.local()
_HAS_TABLE = keras.backend.backend() == "jax"


class _MaskPort(keras.layers.Layer):
    """Leaves the mask of its input in `_local`, and gives its output another one from there."""

    def __init__(self) -> None:
        super().__init__(name="combined_losses_mask_port", autocast=False)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        _local.mask = mask
        return inputs

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> Tensor | None:
        return _local.new_mask if _local.new_mask is not None else previous_mask


def mask_of(tensor: Tensor) -> Tensor | None:
    """The mask of a tensor, or None.

    Keras 3.15.1: the attribute is `_keras_mask`, but on JAX, where tensors take none. Elsewhere it
    spares the 50 microseconds of a layer to look for the attribute.
    """
    if not hasattr(tensor, "_keras_mask") and not _HAS_TABLE:
        return None
    _pass(tensor, None)
    mask, _local.mask = _local.mask, None
    return mask


def put_mask(tensor: Tensor, mask: Tensor) -> Tensor:
    """A tensor with the numbers of one that has no mask, and with `mask`."""
    return _pass(tensor, mask)


def prepare_masks() -> None:
    """Makes the layer now: torch can compile a step that calls it, but not one that makes it."""
    if not hasattr(_local, "port"):
        _local.port = _MaskPort()


def _pass(tensor: Tensor, new_mask: Tensor | None) -> Tensor:
    """A tensor after the layer, which gives it `new_mask`, or its own mask where that is None."""
    prepare_masks()
    _local.new_mask = new_mask
    try:
        return _local.port(tensor)
    finally:
        _local.new_mask = None
