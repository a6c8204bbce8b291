"""`over`: whether a loss is computed for each sample, or once for the whole batch."""

from typing import Literal, TypeAlias

from keras import ops

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor

Over: TypeAlias = Literal["sample", "batch"]
"""`"sample"`: a value depends on its sample alone; `"batch"`: on all samples of all replicas."""


def check_over(owner: str, over: object) -> None:
    """Raises a `ValueError` unless `over` is one of its two words."""
    if not isinstance(over, str) or over not in ("sample", "batch"):
        raise ValueError(
            f"The argument `over` of {owner} must be 'sample' or 'batch'. Received: {over!r}"
        )


def added_up(over: Over, *sums: Tensor) -> tuple[Tensor, ...]:
    """Sums of samples, `(batch, ...)`; with `over="batch"` those of the whole batch, `(1, ...)`."""
    if over == "sample":
        return sums
    # One message between the replicas, not one for each sum.
    together = backend.global_sum(ops.sum(ops.stack(sums), axis=1, keepdims=True))
    return tuple(together[i] for i in range(len(sums)))
