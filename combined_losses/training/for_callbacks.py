"""What callbacks and measurements ask of a tracked model.

These are functions of a module, and no methods, so that a user's class gains no attributes.
"""

from typing import Any

import keras

from combined_losses._backend import keras_private
from combined_losses._numerics.arrays import ArrayLike
from combined_losses.training.model_state import state_of, tracking_of


def component_keys(model: keras.Model) -> dict[str, str]:
    """The log keys of the components of a tracked model, by name; empty before they are known."""
    tracking = tracking_of(model)
    routes = [] if tracking is None else tracking.routes
    return {name: key for route in routes for name, key in route.component_keys.items()}


def describe_weights(model: keras.Model, history: Any) -> None:
    """Tells a `History`, or what stands for one, the weights: see `Tracking.describe_weights`."""
    tracking = tracking_of(model)
    if tracking is not None:
        tracking.describe_weights(history)


def skipped_throughout(model: keras.Model, logs: dict[str, Any], prefix: str = "") -> bool:
    """Whether a composite has skipped all of its components in every step of an epoch."""
    tracking = tracking_of(model)
    return tracking is not None and tracking.skipped_throughout(logs, prefix)


def measurers(model: keras.Model) -> dict[tuple[object, ...], Any]:
    """The `diagnosis.measurer.Measurer`s that were made for a model, until it is compiled again."""
    state = state_of(model)
    return {} if state is None else state.measurers


def request_batches(model: keras.Model, owner: str) -> None:
    """Called at the beginning of training by a callback that is going to call `last_batch`.

    The first request compiles the training step again: from then on, until the model is compiled
    again, it returns its batch beside the logs.

    Args:
        model: a tracked model.
        owner: the name of the callback, for the message of an error.

    Raises:
        ValueError: if one call runs several steps, or several replicas share a step: each would
            have a batch of its own.
    """
    replicas = keras_private.replicas_of(keras_private.strategy_of(model))
    if model.steps_per_execution != 1 or replicas > 1:
        raise ValueError(
            f"{owner} sees one batch a step: compile with steps_per_execution=1, on one replica. "
            f"Received: steps_per_execution={model.steps_per_execution}, {replicas} replicas"
        )
    state = state_of(model)
    if state is not None and not state.returns_batches:
        state.returns_batches = True
        if keras_private.step_function(model, "train_step") is not None:
            keras_private.recompile_step(model, "train_step")


def last_batch(model: keras.Model) -> dict[str, ArrayLike]:
    """The arrays of the last batch of training by name, see `named_arrays`."""
    state = state_of(model)
    if state is None or state.last_batch is None:
        raise ValueError(
            "The batches of training are not available: a `train_step` of your own must return all "
            "that `super().train_step(...)` returns. Received: logs without a batch"
        )
    return state.last_batch
