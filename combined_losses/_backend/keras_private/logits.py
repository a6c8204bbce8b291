"""The logits that Keras finds behind probabilities, on TensorFlow."""

_ACTIVATIONS = ("Softmax", "Sigmoid")


def logits_before(tensor):
    """The logits of probabilities that Keras's own softmax or sigmoid has made, or None.

    Keras 3.15.1: these leave them at the tensor as `_keras_logits`, on TensorFlow, and
    cross-entropies are computed of them. The gradient then goes around the probabilities.
    """
    return getattr(tensor, "_keras_logits", None)


def keep_logits(tensor, logits):
    """Gives a tensor of probabilities the logits that cross-entropies will take."""
    tensor._keras_logits = logits


def activation_before(tensor):
    """`"Softmax"` or `"Sigmoid"` where that has made a symbolic tensor of TensorFlow, else None.

    Keras 3.15.1: in a graph a cross-entropy of such a tensor takes the input of that operation.
    """
    return tensor.op.type if tensor.op.type in _ACTIVATIONS else None
