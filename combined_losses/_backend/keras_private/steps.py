"""Steps: what they are given and return, and the functions that Keras compiles of them.

Keras 3.15.1: on JAX a step is `step(state, data)` and returns `(logs, state)`; elsewhere it is
`step(data)` and returns the logs. Keras compiles it to a function that is given
`(state, iterator)`, or the iterator. Logs reach the callbacks unchanged, whatever arrays they hold.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import keras

from combined_losses._backend.arrays import State, Tensor

_Step: TypeAlias = Literal["train_step", "test_step"]
_FUNCTIONS = {"train_step": "train_function", "test_step": "test_function"}


def step_function(model: keras.Model, step: _Step) -> Callable[..., Any] | None:
    """The function that Keras has compiled of a step, or None before it has.

    Keras 3.15.1: it is the attribute `train_function` or `test_function`, which `fit` and the like
    read when they call it.
    """
    function: Callable[..., Any] | None = getattr(model, _FUNCTIONS[step], None)
    return function


def set_step_function(model: keras.Model, step: _Step, function: Callable[..., Any] | None) -> None:
    """Replaces the function that Keras has compiled of a step; None lets it compile one."""
    setattr(model, _FUNCTIONS[step], function)


def recompile_step(model: keras.Model, step: _Step) -> None:
    """Lets Keras compile the function of a step again.

    Keras 3.15.1: `make_train_function(force=True)` does so even where there is one.
    """
    getattr(model, f"make_{_FUNCTIONS[step]}")(force=True)


@contextlib.contextmanager
def replacing_step(model: keras.Model, step: _Step, function: Callable[..., Any]) -> Iterator[None]:
    """In the block Keras compiles `function` as the step of a model.

    Keras 3.15.1: Keras reads `self.train_step` from the object when it makes the function. JAX does
    not compile a method again that equals one which it has compiled; it compiles a new function. On
    torch the step is read when the function runs, so that nothing changes there.
    """
    model.__dict__[step] = function
    try:
        yield
    finally:
        model.__dict__.pop(step, None)  # another thread may have been here


def split_result(result: Any) -> tuple[Any, list[State]]:
    """The logs that a step returns, and a list of states: one on JAX, elsewhere none."""
    logs, *states = result if isinstance(result, tuple) else (result,)
    return logs, states


def join_result(logs: Any, states: Sequence[State]) -> Any:
    """What a step returns, from what `split_result` gives of it."""
    return (logs, *states) if states else logs


def batch_of(arguments: tuple[Any, ...]) -> Any:
    """The data among the arguments of a step."""
    return arguments[-1]


def state_given(arguments: tuple[Any, ...]) -> State:
    """The state among the arguments of a step, or of its function, on JAX."""
    state: State = arguments[0]
    return state


class _State(NamedTuple):
    """Values of variables, in the order of the properties of the model and of the optimizer."""

    trainable: list[Tensor]
    non_trainable: list[Tensor]
    optimizer: list[Tensor] | None  # None outside of training
    metrics: list[Tensor]


def read_state(state: State) -> _State:
    """The parts of the state of a step on JAX.

    Keras 3.15.1: in training it is (trainable, non-trainable, optimizer, metrics), in a test
    (trainable, non-trainable, metrics).
    """
    trainable, non_trainable, *optimizer, metrics = state
    return _State(trainable, non_trainable, optimizer[0] if optimizer else None, metrics)


def with_metrics(state: State, metrics: Sequence[Tensor]) -> State:
    """A state of a step on JAX with other values of the variables of metrics, which come last."""
    return (*state[:-1], metrics)


def bring_back_state(model: keras.Model) -> None:
    """Brings the state of a running `fit` on JAX back into the variables of a model.

    Keras 3.15.1: between two steps the variables have no values: these are in the state. After
    `jax_state_sync` the next step begins with the values that the variables have by then.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
