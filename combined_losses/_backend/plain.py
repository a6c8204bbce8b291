"""The functions of a framework that needs nothing special for them: see `protocol.py`."""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

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


def entropy_of_ids(logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
    log_p = ops.log_softmax(logits, axis=-1)
    own = ops.take_along_axis(log_p, ids, axis=-1)
    if not smoothing:
        return -own
    # Not a mean: torch would write its slope, one number, at each place.
    total = ops.sum(log_p, axis=-1, keepdims=True)
    return -(1 - smoothing) * own - smoothing / logits.shape[-1] * total


# No max pools: at a tie, TensorFlow's in 3-D gives the whole slope to each number of the window, 27
# times too much if all are equal.


def lesser(a: Tensor, b: Tensor) -> Tensor:
    return ops.minimum(a, b)


def least_of_three(x: Tensor, axis: int) -> Tensor:
    return _of_three(x, axis, ops.minimum)


def greatest_of_three(x: Tensor, axis: int) -> Tensor:
    return _of_three(x, axis, ops.maximum)


def _of_three(x: Tensor, axis: int, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    pairs = choose(_part(x, axis, 0, -1), _part(x, axis, 1, None))
    # At an end there is one pair. The number there is added as a second one, which changes nothing,
    # because that pair contains it.
    pairs = ops.concatenate([_part(x, axis, 0, 1), pairs, _part(x, axis, -1, None)], axis=axis)
    return choose(_part(pairs, axis, 0, -1), _part(pairs, axis, 1, None))


def _part(x: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    index = [slice(None)] * len(x.shape)
    index[axis] = slice(start, stop)
    return x[tuple(index)]


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
    batch, *rows, width, channels = ops.shape(x)
    # No -1: it has no value for an empty batch.
    wide = ops.sum(ops.reshape(x, (batch, math.prod(rows), width * channels)), axis=1)
    return ops.sum(ops.reshape(wide, (batch, width, channels)), axis=1)


def spatial_product(a: Tensor, b: Tensor) -> Tensor:
    return spatial_sum(a * b)


def blurred(images: Tensor, window: NDArray[np.float64], upright: bool = False) -> Tensor:
    for shape in ((1, -1, 1, 1), (-1, 1, 1, 1))[upright:]:
        kernel = ops.convert_to_tensor(window.reshape(shape), images.dtype)
        kernel = ops.tile(kernel, (1, 1, ops.shape(images)[-1], 1))
        images = ops.depthwise_conv(images, kernel, data_format="channels_last")
    return images


def halved(images: Tensor, channels_first: bool) -> Tensor:
    layout = "channels_first" if channels_first else "channels_last"
    return ops.average_pool(images, 2, strides=2, padding="same", data_format=layout)


def order_down(rows: Tensor) -> Tensor:
    return ops.argsort(-rows, axis=-1)


def nth_largest(rows: Tensor, most: Any, places: Tensor | None) -> Tensor:
    largest = ops.top_k(rows, most)[0]
    return largest[:, -1:] if places is None else ops.take_along_axis(largest, places - 1, axis=1)


def requiring(tensor: Tensor, condition: Tensor, message: str) -> Tensor:
    return tensor  # all sizes are known, and were checked, before it is computed


def lies_within(x: Tensor, low: float, high: float) -> bool:
    return False


def is_hard(labels: Tensor) -> bool:
    return False


def forgetting() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


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


def strategy() -> Strategy:
    return None


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


def choose_ranks(group: Any) -> Any:
    if group is not None:
        raise ValueError(
            "`cl.distributed` chooses processes of torch.distributed. TensorFlow and JAX have "
            "their own ways, `tf.distribute` and `keras.distribution`, which need no choice here. "
            f"Received: group={group!r} on {keras.backend.backend()}"
        )
    return None


def whole(loss: Tensor) -> Tensor:
    return loss


def recorded(record: Tensor, counts: Tensor, all_counts: Tensor) -> tuple[Tensor, Tensor]:
    return record, counts


def check_same(loss: Any, learned: Callable[[], Sequence[keras.Variable]]) -> None:
    pass


def around_step(model: keras.Model, is_test: bool) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def begin_together(model: keras.Model, describe: Callable[[], str]) -> None:
    pass


def restore_state(model: keras.Model, state: State) -> None:
    pass  # the variables have kept their values


def complete_state(given: State, state: State, tracker: keras.Metric) -> State:
    return state


def result_in(states: Sequence[State], tracker: keras.Metric) -> Tensor:
    return tracker.result()
