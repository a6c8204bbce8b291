"""Predictions changed on their way to the loss: an activation, or no way back for the gradient."""

import keras
from keras import ops

from combined_losses._internal.component import Evaluation
from combined_losses._internal.config import (
    check_no_lambda,
    serialize_function,
    signature_config,
)
from combined_losses._internal.reduction import PER_COMPONENT
from combined_losses.wrappers.base import Wrapper

__all__ = ["Activated", "StopGradient"]


@keras.saving.register_keras_serializable("combined_losses")
class StopGradient(Wrapper):
    """Watches a quantity without training on it: value and metric, no gradient.

    Args:
        loss, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss({"mse": "mse", "mae": cl.wrappers.StopGradient("mae")})
    """

    is_view = True

    # The values are cut off, not the predictions, for losses that read more than those (OnInputs).

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        found = self._node.evaluate(batch, self._imposed(reduction), label or self.name)
        return Evaluation(*keras.tree.map_structure(ops.stop_gradient, tuple(found)))

    def unreduced(self, batch, imposed, label):
        found = self._node.unreduced(batch, imposed, label)
        return None if found is None else (ops.stop_gradient(found[0]), found[1])

    def choose_output(self, batch, label):
        return self._node.choose_output(batch, label) if self.routes else batch


@keras.saving.register_keras_serializable("combined_losses")
class Activated(Wrapper):
    """Applies an activation to the predictions before the loss, for outputs that are logits.

    Where the loss has `from_logits`, prefer that: it is numerically safer.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        activation: a name that `keras.activations.get` knows, such as `"softmax"` (over the last
            axis) or `"sigmoid"`, or a registered function of a tensor.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: if the activation is unknown.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Activated("mae", "sigmoid")
    >>> float(loss(np.array([[1.0]]), np.array([[0.0]])))
    0.5
    """

    def __init__(self, loss, activation, **kwargs):
        super().__init__(loss, **kwargs)
        self.activation = activation
        try:
            self._function = keras.activations.get(activation)
        except ValueError as error:
            raise ValueError(
                f"The argument `activation` of Activated ('{self.name}') must be one that "
                f"`keras.activations.get` knows, for example 'softmax'. Received: {activation!r}"
            ) from error

    def check_lambdas(self, label):
        check_no_lambda(self.activation, label, "x")
        super().check_lambdas(label)

    def get_config(self):
        if isinstance(self.activation, str):
            return super().get_config()
        function = serialize_function(self.activation, self.name, "x")
        return {**signature_config(self, without=["activation"]), "activation": function}

    def see(self, batch, label):
        # An activation of a NaN has a gradient of NaN, also in a row that does not count.
        return batch.map_predictions(
            lambda p: self._function(batch.neutralised(ops.cast(p, self.dtype)))
        )
