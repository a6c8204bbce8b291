"""The replicas of `tf.distribute`, of one process or of several workers, which each see a part.

Every function here that adds up must be called by all replicas, in the same order.
"""

import contextlib
import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from combined_losses._backend.arrays import Strategy, Tensor


def replica_count() -> int:
    context = tf.distribute.get_replica_context()
    count: int = 1 if context is None else context.num_replicas_in_sync
    return count


def strategy() -> Strategy:
    context = tf.distribute.get_replica_context()
    return None if context is None else context.strategy


def _placed(values: Any) -> Any:
    """A tensor, or a list of them, as results: workers refuse arguments, which have no device."""
    return tf.nest.map_structure(tf.identity, values)


def global_sum(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, _placed(value))


def global_max(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return tf.reduce_max(context.all_gather(value[None], axis=0), axis=0)


def as_one_replica() -> contextlib.AbstractContextManager[Any]:
    # Keras divides means by the number of replicas. Where a loss of the user's is called whole,
    # nobody can tell which of the means in it Keras has divided.
    if replica_count() == 1:
        return contextlib.nullcontext()
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    alone: contextlib.AbstractContextManager[Any] = tf.distribute.ReplicaContext(
        _strategy_of_one(), number
    )
    return alone


@functools.lru_cache(maxsize=1)
def _strategy_of_one() -> Strategy:
    """TensorFlow's default strategy, which every new thread has."""
    strategies: list[Strategy] = []
    thread = threading.Thread(target=lambda: strategies.append(tf.distribute.get_strategy()))
    thread.start()
    thread.join()
    return strategies[0]


# The dtypes that replicas can gather.
_GATHERED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)


def global_concat(value: Tensor) -> Tensor:
    if replica_count() == 1:
        return value
    gather = tf.distribute.get_replica_context().all_gather
    if value.dtype in _GATHERED:
        return gather(_placed(value), axis=0)
    # Large numbers of uint64 become negative in int64, and themselves again on the way back.
    wide = tf.float32 if value.dtype.is_floating else tf.int64
    return tf.cast(gather(tf.cast(value, wide), axis=0), value.dtype)


def global_offset(size: Tensor) -> Tensor:
    if replica_count() == 1:
        return 0
    context = tf.distribute.get_replica_context()
    sizes = context.all_gather(tf.reshape(tf.cast(size, "int32"), (1,)), axis=0)
    return tf.reduce_sum(sizes[: context.replica_id_in_sync_group])


def is_in_scope(strategy: Strategy, variable: keras.Variable) -> bool:
    if strategy is None:
        return True
    in_scope: bool = strategy.extended.variable_created_in_scope(variable.value)
    return in_scope


def check_same(loss: Any, learned: Callable[[], Sequence[keras.Variable]]) -> None:
    # Workers cannot speak to each other while they compile. So the comparison is part of every
    # compiled step: were it missing in some, a worker that compiles anew would wait for ever.
    context = tf.distribute.get_replica_context()
    if context is None or context.strategy.cluster_resolver is None:
        return  # the replicas of one process call the same loss
    number = tf.constant([zlib.crc32(repr(loss).encode()) >> 1], "int32")
    tf.debugging.Assert(
        tf.reduce_all(tf.equal(context.all_gather(number, axis=0), number)),
        [
            f"The loss '{loss.name}' must be the same in all processes. Received: in this one "
            f"{loss!r}"
        ],
    )
