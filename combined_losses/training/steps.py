"""The functions of the steps of a tracked model: they return the vector of parts, then named logs.

A step, compiled, returns the vector that `Tracking` records, beside the logs of Keras. Around it,
on the host, a function gives the entries of the vector their names.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._core.outputs import BATCH
from combined_losses._core.step import inside
from combined_losses.training.logs import LazyVector, UnreadLogs
from combined_losses.training.model_state import ModelState, state_of

_Step: TypeAlias = Literal["train_step", "test_step"]
_Function: TypeAlias = Callable[..., Any]


def make_function(
    model: keras.Model, step: _Step, make: _Function, force: bool, mixin: type[Any]
) -> Any:
    """Lets Keras make the function of a step, unless there is one already.

    Args:
        model: a model with the mixin.
        step: "train_step" or "test_step".
        make: Keras's method that makes the function.
        force: whether it is made again if there is one.
        mixin: the class whose step and loss are ours: what overrides them is the user's.
    """
    if not force and keras_private.step_function(model, step) is not None:
        return make(force)
    state = state_of(model)  # until the next `compile`, which discards the function
    if state is None:
        return make(force)
    if step == "train_step":  # again: the user may have replaced what is excluded
        keras_private.keep_from_weight_decay(model.optimizer, state.learned)
    # JAX does not compile a method again that equals one which it has compiled: give it a function.
    with keras_private.replacing_step(model, step, _step_with_parts(model, state, step)):
        result = make(force)
    function = keras_private.step_function(model, step)
    methods = (step, "compute_loss")
    is_ours = all(getattr(type(model), m) is getattr(mixin, m) for m in methods)
    named = _with_names(model, state, function, step, is_ours)
    keras_private.set_step_function(model, step, named)
    return result


def _step_with_parts(model: keras.Model, state: ModelState, step: _Step) -> _Function:
    """The step, which also returns the vector of parts if it has called `compute_loss`."""
    method = getattr(model, step)

    def own_step(*args: Any) -> Any:
        return _with_parts(model, state, args, method(*args))

    return own_step


def _with_parts(model: keras.Model, state: ModelState, args: tuple[Any, ...], result: Any) -> Any:
    """What a step returns, with the vector of parts, and on JAX with the variables behind it."""
    tracking = state.tracking or state.tracking_for(model)
    logs, after = keras_private.split_result(result)
    if tracking is None or not isinstance(logs, dict) or tracking.tracker.name in logs:
        return result
    before = keras_private.state_given(args)
    after = [backend.complete_state(before, each, tracking.tracker) for each in after]
    if tracking.step_has_recorded:
        logs = {**logs, tracking.tracker.name: backend.result_in(after, tracking.tracker)}
    return keras_private.join_result(logs, after)


def _with_names(
    model: keras.Model, state: ModelState, function: Any, step: _Step, is_ours: bool
) -> _Function:
    """The function of a step, with named logs in place of the vector."""
    # The user may have compiled a step of the user's, and `rebuild` would not compile that again.
    what: Literal["function", "step"] = "function" if is_ours else "step"
    is_test = step == "test_step"
    own_logs = is_test or not is_ours or _overrides_metrics(model)

    def named(*args: Any) -> Any:
        if state.tracking is not None:
            state.tracking.step_has_recorded = False
        try:
            with inside(what, is_test), backend.around_step(model, is_test):
                result = function(*args)
        except Exception:
            backend.restore_state(model, keras_private.state_given(args))
            raise
        return _unpacked(model, state, result, own_logs)

    return named


def _overrides_metrics(model: keras.Model) -> bool:
    overridden: bool = type(model).compute_metrics is not keras.Model.compute_metrics
    return overridden


def _unpacked(model: keras.Model, state: ModelState, result: Any, own_logs: bool) -> Any:
    """What the function of a step returns, with its batch kept and its vector split into logs.

    `own_logs`: the logs may hold other numbers than the metrics of the model at the end.
    """
    logs, after = keras_private.split_result(result)
    if BATCH in logs:
        logs = dict(logs)
        state.last_batch = logs.pop(BATCH)
    tracking = state.tracking or state.tracking_for(model)
    if tracking is None:
        return keras_private.join_result(logs, after)
    tracker = tracking.tracker
    if tracker.name in logs:
        logs = dict(logs)
        vector = logs.pop(tracker.name)
    elif tracking.step_has_recorded and not after:  # an eager step of the user's
        vector = tracker.result()
    else:
        return keras_private.join_result(logs, after)
    name = functools.partial(tracking.unpack, logs, LazyVector(vector))
    is_read = state.reads_steps or own_logs or tracking.replicas > 1
    return keras_private.join_result(name() if is_read else UnreadLogs(name), after)
