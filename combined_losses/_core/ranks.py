"""Losses that several processes or replicas call together: each has a part of the batch."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._backend.arrays import Strategy
from combined_losses._core.keras_types import KerasLoss
from combined_losses._numerics.arrays import Tensor


class distributed:
    """Chooses which processes of `torch.distributed` compute a batch together.

    Without it: those of the default process group, once `torch.distributed.init_process_group` has
    made one of more than one rank. While gradients are enabled, a loss called by all ranks then
    gives each of them the loss of the whole batch, and `fit`, `train_on_batch` and `evaluate` of a
    tracked model train and log as one device would on the whole batch.

    A call on one rank alone waits for the others until the timeout of the group: call the loss, and
    `evaluate`, on all ranks, or in `with cl.distributed(False):`. So do with ranks that have no
    parts of a batch, such as those of tensor or pipeline parallelism: give the group of the ranks
    that have.

    Args:
        group: None (default): the default process group; a process group; False: none, so that each
            process computes by itself. It holds from the call on, or in a `with` block.

    Raises:
        ValueError: on another backend than torch, for a group or False.

    Example:

    >>> import combined_losses as cl
    >>> with cl.distributed():
    ...     pass  # as without it
    """

    def __init__(self, group: Any | Literal[False] | None = None) -> None:
        self._before = backend.choose_ranks(group)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        backend.choose_ranks(self._before)


def check_ranks(loss: KerasLoss, learned: Callable[[], Sequence[Any]] = tuple) -> None:
    """Raises in all processes unless they call the same loss; `learned` gives what it learns."""
    if backend.replica_count() > 1:
        backend.check_same(loss, learned)


def check_scope(strategy: Strategy, name: str, moving: Sequence[keras.Variable]) -> None:
    """Raises if what moves with the weights of a loss was made outside the scope of a strategy.

    Each of them would be one variable, which each replica moves once in a step.
    """
    if keras_private.replicas_of(strategy) == 1:
        return
    outside = [v for v in moving if not backend.is_in_scope(strategy, v)]
    if outside:
        raise ValueError(
            f"'{name}' has weights that move: make it inside `strategy.scope()`, like the model, "
            "else each replica would move them. "
            f"Received: {len(outside)} variables made outside"
        )


def whole(total: Tensor) -> Tensor:
    """What a user's loop is given; totals of single samples are those of the process itself."""
    return backend.whole(total) if not len(total.shape) else total
