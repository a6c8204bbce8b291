"""What the mixin adds to Keras's steps on JAX and on torch alone."""

from typing import TYPE_CHECKING, Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import documented_by
from combined_losses._core.step import current_step, step_with
from combined_losses._numerics.arrays import Tensor
from combined_losses.training.captured import note
from combined_losses.training.keeping import state_of
from combined_losses.training.penalties import owners_of

_Base: Any = keras.Model if TYPE_CHECKING else object


class OnTorch(_Base):
    """A step clears the gradients of what is trained in the losses, too."""

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Also of what is trained in the losses, which is no parameter of the module."""
        super().zero_grad(*args, **kwargs)
        state = state_of(self)
        for variable in () if state is None else state.variables:
            keras_private.clear_gradient(variable)


class OnJax(_Base):
    """A step notes what its repetition needs, for rules that read gradients in the network."""

    @documented_by(keras.Model.stateless_call)
    def stateless_call(
        self, trainable_variables: Any, non_trainable_variables: Any, *args: Any, **kwargs: Any
    ) -> Any:
        note(self, call=(non_trainable_variables, args, kwargs))
        with step_with(calls_model=True):
            return super().stateless_call(
                trainable_variables, non_trainable_variables, *args, **kwargs
            )

    @property
    def losses(self) -> list[Tensor]:
        """As Keras has them; notes which layer has added which, while that can be seen."""
        found: list[Tensor] = super().losses
        state = state_of(self)
        if state is not None and current_step().calls_model:
            state.loss_owners = owners_of(self, found)
        return found

    def stateless_compute_loss(
        self,
        trainable_variables: Any,
        non_trainable_variables: Any,
        metrics_variables: Any,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        given = {
            "x": x,
            "y": y,
            "y_pred": y_pred,
            "sample_weight": sample_weight,
            "training": training,
        }
        note(self, loss=(metrics_variables, given))
        with step_with(keeps_results=True):
            return super().stateless_compute_loss(
                trainable_variables, non_trainable_variables, metrics_variables, **given
            )


class _Plain(_Base):
    """On TensorFlow Keras's steps need nothing more."""


OF_BACKEND: Any = {"jax": OnJax, "torch": OnTorch}.get(keras.backend.backend(), _Plain)
