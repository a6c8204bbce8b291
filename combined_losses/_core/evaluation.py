"""What one call of a loss gives: the total and its parts."""

from collections.abc import Iterable
from typing import NamedTuple

from combined_losses._numerics.arrays import Tensor


class Evaluation(NamedTuple):
    """What one call of a loss gives. Each tensor is `()`, or `(batch,)` if not reduced.

    `values` holds the unweighted values of the parts in the order of their names. An entry is a
    scalar, or the vector of several parts, with the parts as the first axis. `extras` holds other
    numbers to log, in the order of `Compound.extra_keys`. `present` says whether anything of this
    replica's batch has counted, see `presence`. `rows` says over how many rows of this replica's
    batch the total, and each entry of `values`, is a mean: numbers, or None for those of the batch
    that was evaluated; `()` stands for None alone.
    """

    total: Tensor
    values: tuple[Tensor | None, ...] = ()
    extras: tuple[Tensor, ...] = ()
    present: Tensor | None = None
    rows: tuple[Tensor | None, ...] = ()

    def all_rows(self) -> tuple[Tensor | None, ...]:
        """`rows` with an entry for the total and for each entry of `values`."""
        return self.rows or (None,) * (1 + len(self.values))

    def over_rows(self, count: Tensor) -> "Evaluation":
        """The same; what is a mean over the rows of the batch now says that these are `count`."""
        rows = tuple(count if each is None else each for each in self.all_rows())
        return self._replace(rows=rows)


def rows_of_parts(
    evaluations: Iterable[Evaluation],
) -> tuple[Tensor | None, ...]:
    """`rows` of what is made of these parts, whose own value is one of the whole batch."""
    return (None, *(each for found in evaluations for each in found.all_rows()))


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
