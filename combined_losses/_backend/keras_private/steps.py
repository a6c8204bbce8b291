"""Steps: what they are given and return, and the functions that Keras compiles of them.

Keras 3.15.1: on JAX a step is `step(state, data)` and returns `(logs, state)`; elsewhere it is
`step(data)` and returns the logs. The function that is compiled of it is given `(state, iterator)`,
or the iterator. Logs are handed on as they are, whatever arrays they hold, up to the callbacks.
"""

import contextlib
from typing import Any, NamedTuple

_FUNCTIONS = {"train_step": "train_function", "test_step": "test_function"}


def step_function(model, step):
    """The function that Keras has compiled of a step, or None before it has.

    Keras 3.15.1: it is the attribute `train_function` or `test_function`, and `fit` and the like
    call whatever is there.
    """
    return getattr(model, _FUNCTIONS[step], None)


def set_step_function(model, step, function):
    """Puts a function in the place of the one that Keras has compiled; None lets it compile one."""
    setattr(model, _FUNCTIONS[step], function)


def make_step_function(model, step):
    """Lets Keras compile the function of a step where there is none."""
    getattr(model, f"make_{_FUNCTIONS[step]}")()


def compile_step_anew(model, step):
    """Lets Keras compile the function of a step again.

    Keras 3.15.1: `make_train_function(force=True)` does so even where there is one.
    """
    getattr(model, f"make_{_FUNCTIONS[step]}")(force=True)


@contextlib.contextmanager
def replacing_step(model, step, function):
    """In the block Keras compiles `function` as the step of a model.

    Keras 3.15.1: it reads `self.train_step`, at the object, when it makes the function. JAX takes a
    method that equals an earlier one for compiled already; a function of its own is compiled anew.
    On torch the step is read when the function runs, so that this changes nothing there.
    """
    model.__dict__[step] = function
    try:
        yield
    finally:
        model.__dict__.pop(step, None)  # another thread may have been here


def split_result(result):
    """The logs that a step returns, and a list of the state that it returns on JAX."""
    logs, *state = result if isinstance(result, tuple) else (result,)
    return logs, state


def join_result(logs, state):
    """What `split_result` has split."""
    return (logs, *state) if state else logs


def batch_of(arguments):
    """The data among the arguments of a step."""
    return arguments[-1]


def state_given(arguments):
    """The state among the arguments of a step, or of its function, on JAX."""
    return arguments[0]


class _State(NamedTuple):
    """Values of variables, in the order of the properties of the model and of the optimizer."""

    trainable: Any
    non_trainable: Any
    optimizer: Any  # None outside of training
    metrics: Any


def read_state(state):
    """The parts of the state of a step on JAX.

    Keras 3.15.1: in training it is (trainable, non-trainable, optimizer, metrics), in a test
    (trainable, non-trainable, metrics).
    """
    trainable, non_trainable, *optimizer, metrics = state
    return _State(trainable, non_trainable, optimizer[0] if optimizer else None, metrics)


def with_metrics(state, metrics):
    """A state of a step on JAX with other values of the variables of metrics, which come last."""
    return (*state[:-1], metrics)


def bring_back_state(model):
    """Brings the state of a running `fit` on JAX back into the variables of a model.

    Keras 3.15.1: between two steps the state is outside of the variables, whose values are gone.
    After `jax_state_sync` the next step begins with what the variables hold then.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
