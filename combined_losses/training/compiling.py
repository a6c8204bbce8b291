"""`compile` of a tracked model, and what its config keeps."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from combined_losses._backend import keras_private
from combined_losses._core.config import serialize_losses
from combined_losses._core.keras_types import KerasLoss
from combined_losses.training import routing
from combined_losses.training.compile_checks import warn_of_accumulation
from combined_losses.training.h5 import CompileConfig
from combined_losses.training.model_state import STATE, ModelState, state_of
from combined_losses.training.routing import CompiledLoss, LossWeights

Optimizer: TypeAlias = keras.optimizers.Optimizer | str | None


def compile_model(
    model: keras.Model,
    compile_: Callable[..., None],
    arguments: tuple[Optimizer, CompiledLoss, LossWeights, dict[str, Any]],
    is_whole: bool,
) -> None:
    """Compiles a model; if a composite is among its losses, gives it a `ModelState`.

    Keras is given no loss to compute: there is one way from the outputs to the total, ours, and
    nothing is computed or logged twice.

    Args:
        model: a model with the mixin.
        compile_: Keras's method of the model.
        arguments: `(optimizer, loss, loss_weights, others)`.
        is_whole: whether `compute_loss` is the mixin's.
    """
    optimizer, loss, loss_weights, others = arguments
    keras_private.drop_hidden(model, STATE)
    earlier_loss = getattr(model, "loss", None)
    routing.check_compiled(loss, loss_weights)
    if not routing.compounds(loss):
        if loss is None and routing.compounds(earlier_loss):
            keras_private.forget_loss(model)
        compile_(optimizer, loss, loss_weights, **others)
        return
    computed_before = earlier_loss is not None and not routing.compounds(earlier_loss)
    keras_private.compile_without_loss(compile_, model, optimizer, loss, computed_before, others)
    metrics = [others["metrics"], others["weighted_metrics"]]
    state = ModelState(model, loss, loss_weights, metrics, is_whole)
    state.compiled_with = {"optimizer": model.optimizer, "loss_weights": loss_weights, **others}
    keras_private.keep_from_weight_decay(model.optimizer, state.learned)
    keras_private.hide(model, STATE, state)
    keras_private.replace_compile_config(model, lambda plain: CompileConfig(plain, state))
    state.find_owned(model)
    state.tracking_for(model)  # checks names and outputs now, where the outputs are known
    for compound in state.compounds:
        compound.warn_of_model(model)
    warn_of_accumulation(model.optimizer, state.compounds)


def compiled_again(model: keras.Model, replaced: Mapping[int, KerasLoss]) -> None:
    """Compiles a model that has not been trained as it was, with other losses for some of them.

    Args:
        model: a model that was compiled with a composite.
        replaced: from the `id` of a loss to what takes its place.
    """
    state = state_of(model)
    assert state is not None
    loss = keras.tree.map_structure(lambda each: replaced.get(id(each), each), state.loss)
    model.compile(loss=loss, **state.compiled_with)


def with_losses(config: dict[str, Any], state: ModelState) -> dict[str, Any]:
    """The config of `compile`, with losses that keep all of their arguments, and their weights."""
    return {
        **config,
        "loss": serialize_losses(state.loss),
        "loss_weights": keras.saving.serialize_keras_object(state.loss_weights),
    }
