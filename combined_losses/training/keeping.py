"""What a tracked model keeps for callbacks and measurements, beside what Keras keeps.

Functions, so that a model of the user's has no names more. For callbacks that look at batches there
is a second step function, which the batch leaves beside the logs.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from combined_losses._backend import keras_private
from combined_losses._numerics.arrays import ArrayLike

if TYPE_CHECKING:
    from combined_losses.training.model_state import ModelState
    from combined_losses.training.tracker import Tracking

STATE = "_combined_losses"


def state_of(model: Any) -> "ModelState | None":
    """The `ModelState` of a model that is compiled with a composite, or None."""
    state: ModelState | None = vars(model).get(STATE)
    return state


def tracking_of(model: Any, y_pred: Any = None) -> "Tracking | None":
    """The `Tracking` of a model; None for a plain one, and before the outputs are known."""
    state = state_of(model)
    return None if state is None else state.tracking or state.tracking_for(model, y_pred)


def component_keys(model: Any) -> dict[str, str]:
    """The log keys of the components of a tracked model, by name; empty before they are known."""
    tracking = tracking_of(model)
    routes = [] if tracking is None else tracking.routes
    return {name: key for route in routes for name, key in route.component_keys.items()}


def leave_weights(model: Any, history: Any, weights: Mapping[str, float] | None = None) -> None:
    """Leaves with a `History`, for figures, what multiplies its entries.

    What never changes is not in the logs. `component_weights`: by `<name>_weight`, the given ones
    or the current ones; `output_weights`: by log key, the compiled `loss_weights`.
    """
    tracking = tracking_of(model)
    if tracking is None:
        return
    history.component_weights = weights or tracking.weights(all_of_them=True)
    history.output_weights = {key: route.weight for route in tracking.routes for key in route.keys}


def skipped_throughout(model: Any, logs: Mapping[str, Any], prefix: str = "") -> bool:
    """Whether a composite has skipped all of its components in every step of an epoch."""
    tracking = tracking_of(model)
    routes = () if tracking is None else tracking.routes
    groups = [keys for route in routes for keys in route.skipped_keys]
    return any(all(float(logs.get(prefix + key, 0.0)) == 1 for key in keys) for keys in groups)


def measurers(model: Any) -> dict[Any, Any]:
    """What has been made to measure its components, until it is compiled again."""
    state = state_of(model)
    return {} if state is None else state.measurers


# Batches.


def keep_batches(model: Any, owner: str) -> None:
    """Called by a callback that wants `last_batch`, at the beginning of training.

    Of several steps in one call, or of several replicas, that would be one part of several.
    """
    replicas = keras_private.replicas_of(keras_private.strategy_of(model))
    if model.steps_per_execution != 1 or replicas > 1:
        raise ValueError(
            f"{owner} sees one batch a step: compile with steps_per_execution=1, on one replica. "
            f"Received: steps_per_execution={model.steps_per_execution}, {replicas} replicas"
        )
    state = _state_that_trains(model)
    state.keepers += 1
    if state.keepers == 1:
        state.resting = keras_private.step_function(model, "train_step")
        keras_private.set_step_function(model, "train_step", state.keeping)
        keras_private.make_step_function(model, "train_step")
        state.keeping = keras_private.step_function(model, "train_step")


def _state_that_trains(model: Any) -> "ModelState":
    """The state of a model of which a callback knows that it is compiled with a composite."""
    state = state_of(model)
    assert state is not None
    return state


def stop_keeping(model: Any) -> None:
    """Called at the end of training, also where it is interrupted."""
    state = state_of(model)
    if state is not None and state.keepers:
        state.keepers, state.batch = 0, None
        keras_private.set_step_function(model, "train_step", state.resting)
        state.resting = None


def last_batch(model: Any) -> dict[str, ArrayLike]:
    """The arrays of the last batch of training by name, see `named_arrays`."""
    batch = _state_that_trains(model).batch
    if batch is None:
        raise ValueError(
            "The batches of training are not to be had: a `train_step` of your own must return all "
            "that `super().train_step(...)` returns. Received: logs without a batch"
        )
    return batch
