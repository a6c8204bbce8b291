"""The logits that Keras finds behind probabilities, on TensorFlow."""

from combined_losses._backend.arrays import Tensor

_ACTIVATIONS = ("Softmax", "Sigmoid")


def logits_before(tensor: Tensor) -> Tensor | None:
    """The logits of probabilities that Keras's own softmax or sigmoid has made, or None.

    Keras 3.15.1: on TensorFlow these activations set the attribute `_keras_logits` of their
    result, and cross-entropies compute with it. The gradient then goes to the logits directly, and
    none reaches the probabilities.
    """
    return getattr(tensor, "_keras_logits", None)


def keep_logits(tensor: Tensor, logits: Tensor) -> None:
    """Gives a tensor of probabilities the logits that cross-entropies will compute with."""
    tensor._keras_logits = logits


def activation_before(tensor: Tensor) -> str | None:
    """The operation that made a symbolic tensor of TensorFlow: "Softmax", "Sigmoid", or None.

    Keras 3.15.1: in a graph a cross-entropy of such a tensor computes with the input of that
    operation.
    """
    made_by: str = tensor.op.type
    return made_by if made_by in _ACTIVATIONS else None
