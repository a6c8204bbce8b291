"""The steps of a tracked model: compiled anew when asked for, with parts in their logs by name."""

import contextlib

from combined_losses import _backend as backend
from combined_losses._backend import keras_private
from combined_losses._core.outputs import BATCH
from combined_losses._core.step import inside, step_with
from combined_losses.training.keeping import state_of, tracking_of
from combined_losses.training.tracker import LazyVector


@contextlib.contextmanager
def anew(model, step):
    """Gives Keras a function of its own to compile: JAX takes equal methods for compiled.

    A step of the user's that has called `compute_loss` gets the parts into its logs.
    """
    method = getattr(model, step)

    def own_step(*args):
        state = state_of(model)
        if state is not None:
            state.recorded = False
        result = method(*args)
        return result if state is None else _with_parts(model, state, args, result)

    with keras_private.replacing_step(model, step, own_step):
        yield


def _with_parts(model, state, args, result):
    """What a step returns, with the vector of the parts, and the variables that count them."""
    tracking = tracking_of(model)
    logs, rest = keras_private.split_result(result)
    if tracking is None or not isinstance(logs, dict) or tracking.tracker.name in logs:
        return result
    given = keras_private.state_given(args)
    rest = [backend.complete_state(given, part, tracking.tracker) for part in rest]
    if state.recorded:
        logs = {**logs, tracking.tracker.name: backend.result_in(rest, tracking.tracker)}
    return keras_private.join_result(logs, rest)


def unpacking(model, function, step, ours):
    """A step function whose logs have names again; `ours`: nothing in it is the user's."""

    def unpacked(*args):
        kept = state_of(model)
        if kept is not None:
            kept.recorded = False
        still = step_with(is_test=True) if step == "test_step" else contextlib.nullcontext()
        try:
            # A step of the user's may be compiled by the user, and would not be compiled anew.
            with inside("function" if ours else "step"), still:
                result = function(*args)
        except Exception:
            backend.restore_state(model, keras_private.state_given(args))
            raise
        logs, state = keras_private.split_result(result)
        if BATCH in logs:
            logs = dict(logs)
            state_of(model).batch = logs.pop(BATCH)
        tracking = tracking_of(model)
        if tracking is not None and kept.recorded and not state:  # an eager step of the user's
            logs = {tracking.tracker.name: tracking.tracker.result(), **logs}
        if tracking is not None and tracking.tracker.name in logs:
            logs = dict(logs)
            vector = LazyVector(logs.pop(tracking.tracker.name))
            logs = tracking.unpack(logs, vector.read)
        return keras_private.join_result(logs, state)

    return unpacked
