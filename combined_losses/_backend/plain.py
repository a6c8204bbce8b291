"""The functions of a framework that needs nothing special for them: see `protocol.py`."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import keras
from keras import ops

from combined_losses._backend.arrays import Once, State, Strategy, Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])


def entries(x: Tensor, number: int) -> list[Tensor]:
    unstacked: list[Tensor] = ops.unstack(x, number, axis=-1)
    return unstacked


def in_float64() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def on_host(function: Callable[..., Any], arrays: Sequence[Tensor]) -> Tensor | None:
    return None


def binary_entropy(logit: Tensor, minus_label: Tensor) -> Tensor:
    # The slope of softplus is sigmoid(z), 1/2 at z = 0 on every backend; the slopes of max(z, 0)
    # and |z| there differ.
    return ops.softplus(logit) + minus_label * logit


def mean(x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    return ops.mean(x, axis=axes)


def ordered_as(other: Tensor, x: Tensor, once: Once | None) -> Tensor:
    return x


def spatial_sum(x: Tensor) -> Tensor:
    rank, channels = len(x.shape), x.shape[-1]
    if channels == 1 or rank == 3:
        return ops.sum(x, axis=tuple(range(1, rank - 1)))
    # First over all but the last of these axes, so that what is added up are long rows. A short
    # last axis would make sums several times as slow.
    batch, *_, width, channels = ops.shape(x)
    wide = ops.sum(ops.reshape(x, (batch, -1, width * channels)), axis=1)
    return ops.sum(ops.reshape(wide, (batch, width, channels)), axis=1)


def spatial_product(a: Tensor, b: Tensor) -> Tensor:
    return spatial_sum(a * b)


def order_down(rows: Tensor) -> Tensor:
    return ops.argsort(-rows, axis=-1)


def requiring(tensor: Tensor, condition: Tensor, message: str) -> Tensor:
    return tensor  # all sizes are known, and were checked, before it is computed


def lies_within(x: Tensor, low: float, high: float) -> bool:
    return False


def as_written(function: _Function) -> _Function:
    return function


def is_compiling() -> bool:
    return False


def is_threaded(variable: keras.Variable) -> bool:
    return True


def is_traced(values: object) -> bool:
    return False


def is_eager(variables: Iterable[keras.Variable]) -> bool:
    return True


def read_variable(value: Tensor) -> Tensor:
    return value


def replica_count() -> int:
    return 1


def as_one_replica() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def is_in_scope(strategy: Strategy, variable: keras.Variable) -> bool:
    return True


def global_sum(value: Tensor) -> Tensor:
    return value


def global_max(value: Tensor) -> Tensor:
    return value


def global_concat(value: Tensor) -> Tensor:
    return value


def global_offset(size: Tensor) -> Tensor:
    return 0


def restore_state(model: keras.Model, state: State) -> None:
    pass  # the variables have kept their values


def complete_state(given: State, state: State, tracker: keras.Metric) -> State:
    return state


def result_in(states: Sequence[State], tracker: keras.Metric) -> Tensor:
    return tracker.result()
