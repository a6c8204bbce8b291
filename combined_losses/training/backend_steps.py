"""What the mixin adds to Keras's steps on JAX and on torch alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import documented_by
from combined_losses._core.step import current_step, step_with
from combined_losses._numerics.arrays import Tensor
from combined_losses.training.gradient_capture import keep_for_repetition
from combined_losses.training.model_state import state_of
from combined_losses.training.penalties import owners_of

_Base: Any = keras.Model if TYPE_CHECKING else object


class OnTorch(_Base):
    """On torch a step also clears the gradients of what the losses learn."""

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Clears the gradients of the losses' variables too, which are no parameters of the module.

        Takes the arguments of `torch.nn.Module.zero_grad`.
        """
        super().zero_grad(*args, **kwargs)
        state = state_of(self)
        for variable in () if state is None else state.variables:
            keras_private.clear_gradient(variable)


class OnJax(_Base):
    """On JAX a step keeps what its repetition needs, for rules that read gradients inside."""

    @documented_by(keras.Model.stateless_call)
    def stateless_call(
        self,
        trainable_variables: Sequence[Tensor],
        non_trainable_variables: Sequence[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        keep_for_repetition(self, call=(non_trainable_variables, args, kwargs))
        with step_with(calls_model=True):
            return super().stateless_call(
                trainable_variables, non_trainable_variables, *args, **kwargs
            )

    @property
    def losses(self) -> list[Tensor]:
        """Keras's; inside a step it also finds out which layer has added which of them.

        Outside of the call of the model the layers have no losses: they are in its state alone.
        """
        losses: list[Tensor] = super().losses
        state = state_of(self)
        if state is not None and current_step().calls_model:
            state.loss_owners = owners_of(self, losses)
        return losses

    def stateless_compute_loss(
        self,
        trainable_variables: Sequence[Tensor],
        non_trainable_variables: Sequence[Tensor],
        metrics_variables: Sequence[Tensor],
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        arguments: dict[str, Any] = {
            "x": x,
            "y": y,
            "y_pred": y_pred,
            "sample_weight": sample_weight,
            "training": training,
        }
        keep_for_repetition(self, loss=(metrics_variables, arguments))
        with step_with(keeps_results=True):
            return super().stateless_compute_loss(
                trainable_variables, non_trainable_variables, metrics_variables, **arguments
            )


class _Plain(_Base):
    """On TensorFlow Keras's steps need nothing more."""


OF_BACKEND: Any = {"jax": OnJax, "torch": OnTorch}.get(keras.backend.backend(), _Plain)
