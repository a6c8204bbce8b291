"""Predictions before the loss: without a target, through an activation, without a gradient."""

from collections.abc import Callable
from typing import Any, Unpack

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.config import check_no_lambda, serialize_function, signature_config
from combined_losses._core.data_format import Formatted, moved
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import (
    CompositeArguments,
    DataFormat,
    LossLike,
)
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import Tensor
from combined_losses.wrappers.base import Wrapper

__all__ = ["Activated", "PredictionOnly", "StopGradient"]


@keras.saving.register_keras_serializable("combined_losses")
class PredictionOnly(Wrapper):
    """A term without a target: a regulariser of the predictions, a divergence, sparsity.

    `fit(x)` needs no `y` where no component needs one.

    Args:
        loss: a loss or a string, which is called with zeros as `y_true`; or a function of the
            predictions alone, `f(y_pred)`.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.PredictionOnly("mae")
    >>> float(loss(None, np.array([[2.0], [4.0]])))
    3.0
    """

    needs_target = reads_target = False

    def arranged(self, batch: Batch) -> Batch:
        return batch

    def see(self, batch: Batch, label: str) -> Batch:
        return batch.replaced(y_true=None).with_target()


@keras.saving.register_keras_serializable("combined_losses")
class StopGradient(Wrapper):
    """Logs a loss without training on it: it has a value, and no gradient.

    Args:
        loss, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss({"mse": "mse", "mae": cl.wrappers.StopGradient("mae")})
    """

    is_view = True

    # Not the predictions but the values lose their gradient: OnInputs reads more than predictions.

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        found = self._node.evaluate(batch, self._imposed(reduction), label or self.name)
        return found._replace(
            total=_stopped(found.total),
            values=tuple(map(_stopped, found.values)),
            extras=tuple(map(_stopped, found.extras)),
        )

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        found = self._node.unreduced(batch, imposed, label)
        return None if found is None else (ops.stop_gradient(found[0]), found[1])

    def choose_output(self, batch: Batch, label: str) -> Batch:
        return self._node.choose_output(batch, label) if self.chooses_outputs else batch


@keras.saving.register_keras_serializable("combined_losses")
class Activated(Formatted, Wrapper):
    """Applies an activation to the predictions before the loss, for outputs that are logits.

    Where the loss has `from_logits`, prefer that: it is numerically safer.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        activation: a name that `keras.activations.get` knows, such as `"softmax"` (over the
            channels) or `"sigmoid"`; or a registered function of a tensor, which is given the
            predictions as they are, with the channels where the data have them.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: if the activation is unknown.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Activated("mae", "sigmoid")
    >>> float(loss(np.array([[1.0]]), np.array([[0.0]])))
    0.5
    """

    sees_channels_last = True

    def __init__(
        self,
        loss: LossLike,
        activation: str | Callable[[Tensor], Tensor],
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._set_format(data_format)
        self.activation = activation
        try:
            self._function = keras.activations.get(activation)
        except ValueError as error:
            raise ValueError(
                f"The argument `activation` of Activated ('{self.name}') must be one that "
                f"`keras.activations.get` knows, for example 'softmax'. Received: {activation!r}"
            ) from error

    def check_lambdas(self, label: str) -> None:
        check_no_lambda(self.activation, label, "x")
        super().check_lambdas(label)

    def get_config(self) -> dict[str, Any]:
        if isinstance(self.activation, str):
            return super().get_config()
        function = serialize_function(self.activation, self.name, "x")
        config = signature_config(self, without=["activation"])
        return self._with_format({**config, "activation": function})

    def see(self, batch: Batch, label: str) -> Batch:
        # The gradient of an activation at NaN is NaN, even in a row of weight 0: replace it before.
        batch = self._of_single_targets(batch, label)
        return batch.map_predictions(
            lambda p: self._activated(batch.neutralised(ops.cast(p, self.dtype)), batch)
        )

    def _activated(self, y_pred: Tensor, batch: Batch) -> Tensor:
        if batch.channels != "moved" or self._is_of_keras:
            return self._function(y_pred)
        rank = batch.channel_rank  # a function of the user's is given the data as they are
        return moved(self._function(moved(y_pred, rank, -1, 1)), rank)

    @property
    def _is_of_keras(self) -> bool:
        name = getattr(self._function, "__name__", "")
        return getattr(keras.activations, name, None) is self._function

    def _of_single_targets(self, batch: Batch, label: str) -> Batch:
        """The batch with neutral predictions for single targets of weight 0."""
        if self._layout is None or not batch.weighted or keras.tree.is_nested(batch.y_true):
            return batch
        batch = self.one_array(batch, label)
        view = self._predictions_apart(batch, label)
        if view is None:
            return batch
        neutral = view.batch.map_predictions(view.batch.neutralised)
        return view.together(neutral)


def _stopped(tensor: Tensor) -> Tensor:
    return None if tensor is None else ops.stop_gradient(tensor)
