"""What one call of a loss gives: the total and its parts."""

from collections.abc import Iterable
from typing import NamedTuple

from combined_losses._numerics.arrays import Tensor


class Evaluation(NamedTuple):
    """What one call of a loss gives. Each tensor is `()`, or `(batch,)` if not reduced.

    `values` holds the unweighted values of the parts in the order of their names. An entry is a
    scalar, or the vector of several parts, with the parts as the first axis. `extras` holds other
    numbers to log, in the order of `Compound.extra_keys`. `present` says whether anything of this
    replica's batch has counted, see `presence`.
    """

    total: Tensor
    values: tuple[Tensor | None, ...] = ()
    extras: tuple[Tensor, ...] = ()
    present: Tensor | None = None


def split(values: Iterable[Tensor | None], reduced: bool = True) -> list[Tensor | None]:
    """The values of an `Evaluation`, one tensor for each part; None for a part without a value."""
    parts: list[Tensor | None] = []
    for value in values:
        if value is None:
            parts.append(None)
            continue
        vector = len(value.shape) == (1 if reduced else 2)
        parts.extend([value[i] for i in range(value.shape[0])] if vector else [value])
    return parts
