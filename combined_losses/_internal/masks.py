"""Reading the mask that a layer left on the predictions."""

import threading

import keras

_local = threading.local()


class _MaskReader(keras.layers.Layer):
    """Receives the mask of its input: the one public way to it that works on JAX's tracers too."""

    def __init__(self):
        super().__init__(name="combined_losses_mask_reader", autocast=False)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        _local.mask = mask
        return inputs


def read_mask(y_pred):
    """The mask that Keras propagated to `y_pred`, or None."""
    if keras.tree.is_nested(y_pred) or not keras.ops.is_tensor(y_pred):
        return None
    if not hasattr(_local, "reader"):
        _local.reader = _MaskReader()
    _local.mask = None
    _local.reader(y_pred)
    mask, _local.mask = _local.mask, None
    return mask
