"""The steps of a tracked model: compiled anew when asked for, with parts in their logs by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from combined_losses._backend import backend, keras_private
from combined_losses._core.outputs import BATCH
from combined_losses._core.step import inside
from combined_losses.training.keeping import state_of
from combined_losses.training.logs import LazyVector

if TYPE_CHECKING:
    from combined_losses.training.model_state import ModelState

StepName: TypeAlias = Literal["train_step", "test_step"]


def make_function(
    model: Any, step: StepName, make: Callable[[bool], Any], force: bool, mixin: type
) -> Any:
    """Lets Keras make the function of a step, unless there is one already.

    Args:
        model: a model with the mixin.
        step: "train_step" or "test_step".
        make: Keras's method that makes the function.
        force: whether it is made anew.
        mixin: the class whose step and loss are ours: what overrides them is the user's.
    """
    if not force and keras_private.step_function(model, step) is not None:
        return make(force)
    if step == "train_step":  # again: the user may have replaced what is excluded
        state = state_of(model)
        learned = [] if state is None else state.learned
        keras_private.keep_from_weight_decay(model.optimizer, learned)
    # JAX takes a method that equals an earlier one for compiled: it is given a new function.
    with keras_private.replacing_step(model, step, _step_with_parts(model, step)):
        result = make(force)
    function = keras_private.step_function(model, step)
    assert function is not None  # it has just been made
    methods = (step, "compute_loss")
    is_ours = all(getattr(type(model), m) is getattr(mixin, m) for m in methods)
    keras_private.set_step_function(model, step, _with_names(model, function, step, is_ours))
    return result


def _step_with_parts(model: Any, step: StepName) -> Callable[..., Any]:
    """The step; one of the user's that has called `compute_loss` gets the parts into its logs."""
    method = getattr(model, step)

    def own_step(*args: Any) -> Any:
        state = state_of(model)
        if state is not None:
            state.recorded = False
        result = method(*args)
        return result if state is None else _with_parts(model, state, args, result)

    return own_step


def _with_parts(model: Any, state: "ModelState", args: tuple[Any, ...], result: Any) -> Any:
    """What a step returns, with the vector of the parts, and the variables that count them."""
    tracking = state.tracking or state.tracking_for(model)
    logs, rest = keras_private.split_result(result)
    if tracking is None or not isinstance(logs, dict) or tracking.tracker.name in logs:
        return result
    given = keras_private.state_given(args)
    rest = [backend.complete_state(given, part, tracking.tracker) for part in rest]
    if state.recorded:
        logs = {**logs, tracking.tracker.name: backend.result_in(rest, tracking.tracker)}
    return keras_private.join_result(logs, rest)


def _with_names(
    model: Any, function: Callable[..., Any], step: StepName, is_ours: bool
) -> Callable[..., Any]:
    """The function of a step, whose logs have names again."""
    # A step of the user's may be compiled by the user, and would not be compiled anew.
    what = "function" if is_ours else "step"

    def named(*args: Any) -> Any:
        state = state_of(model)
        if state is not None:
            state.recorded = False
        try:
            with inside(what, is_test=step == "test_step"):
                result = function(*args)
        except Exception:
            backend.restore_state(model, keras_private.state_given(args))
            raise
        return result if state is None else _unpacked(model, state, result)

    return named


def _unpacked(model: Any, state: "ModelState", result: Any) -> Any:
    logs, rest = keras_private.split_result(result)
    if BATCH in logs:
        logs = dict(logs)
        state.batch = logs.pop(BATCH)
    tracking = state.tracking or state.tracking_for(model)
    if tracking is None:
        return keras_private.join_result(logs, rest)
    tracker = tracking.tracker
    if tracker.name in logs:
        logs = dict(logs)
        packed = logs.pop(tracker.name)
    elif state.recorded and not rest:  # an eager step of the user's
        packed = tracker.result()
    else:
        return keras_private.join_result(logs, rest)
    return keras_private.join_result(tracking.unpack(logs, LazyVector(packed)), rest)
