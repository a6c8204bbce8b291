"""Where the points of one set come from: a box, a function, or the rows of an array."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from combined_losses._core.checks import as_array
from combined_losses._numerics.arrays import ArrayLike
from combined_losses.points.box import Box, check_drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pool:
    """Points to draw from, and the probability of each."""

    points: "NDArray[Any]"
    probability: "NDArray[np.float64]"

    def draw(self, count: int, rng: np.random.Generator) -> "NDArray[Any]":
        """Draws points, each at most once if there are enough that can be drawn."""
        replace = bool(count > np.count_nonzero(self.probability))
        rows = rng.choice(len(self.points), count, replace=replace, p=self.probability)
        # Without replacement probable points come first; every batch must have its share of them.
        chosen: NDArray[Any] = self.points[rng.permutation(rows)]
        return chosen


@dataclass(frozen=True)
class State:
    """All that decides which points are drawn. It is replaced, never changed.

    Keras reads batches in threads of its own; what they read of one `State` belongs together.
    """

    epoch: int
    seed: int
    pools: dict[str, Pool] = field(default_factory=dict)

    def rng(self, name: str, purpose: str, number: int) -> np.random.Generator:
        """A generator for one use, so that a draw depends on no other draw."""
        words = [zlib.crc32(word.encode()) for word in (name, purpose)]
        return np.random.default_rng([self.seed, *words, number])


@dataclass(frozen=True)
class Drawn:
    """The points of a set in one epoch, batch after batch."""

    points: "NDArray[Any]"
    rows: "NDArray[np.int64] | None" = None  # of the array that the points are from


class Source(Protocol):
    """Where the points of one set come from."""

    length: int | None
    """How many rows there are; None where points are drawn."""

    def draw(self, batch: int, steps: int, number: int, state: State) -> Drawn:
        """The points of draw `number`: those of an epoch, or of several with the same points."""
        ...

    def candidates(self, count: int, state: State) -> "NDArray[Any] | None":
        """Points to choose from, or None where points cannot be chosen."""
        ...


class Sampled:
    """Points that a box or a function draws."""

    length: int | None = None

    def __init__(self, name: str, sampler: Box | Callable[..., ArrayLike]) -> None:
        self.name = name
        self.sampler = sampler

    def draw(self, batch: int, steps: int, number: int, state: State) -> Drawn:
        rng = state.rng(self.name, "points", number)
        if self.name in state.pools:
            return Drawn(state.pools[self.name].draw(batch * steps, rng))
        return Drawn(self._sample(batch, steps, rng))

    def candidates(self, count: int, state: State) -> "NDArray[Any] | None":
        return self._sample(count, 1, state.rng(self.name, "candidates", state.epoch))

    def _sample(self, batch: int, steps: int, rng: np.random.Generator) -> "NDArray[Any]":
        if isinstance(self.sampler, Box):
            return self.sampler.draw(batch, steps, rng)
        return check_drawn(self.name, self.sampler(batch * steps, rng), batch * steps)


class Rows:
    """The rows of an array, shuffled.

    The draws follow each other in one endless sequence of shuffled copies of the rows. So each row
    comes equally often, whatever the sizes are, and draws need no memory of those before.
    """

    def __init__(self, name: str, array: "NDArray[Any]") -> None:
        self.name = name
        self.array = array
        self.length: int | None = len(array)

    def draw(self, batch: int, steps: int, number: int, state: State) -> Drawn:
        # Copies of a short array are shuffled many at a time, since each generator takes a while.
        size, count = len(self.array), batch * steps
        copies = np.tile(np.arange(size), (max(1, 1000 // size), 1))
        first = number * count
        blocks = range(first // copies.size, (first + count - 1) // copies.size + 1)
        orders = [
            state.rng(self.name, "order", block).permuted(copies, axis=1).ravel()
            for block in blocks
        ]
        start = first - blocks.start * copies.size
        rows = np.concatenate(orders)[start : start + count]
        return Drawn(self.array[rows], rows)

    def candidates(self, count: int, state: State) -> "NDArray[Any] | None":
        return None


def source_of(name: str, given: Any) -> Source:
    """What draws the points of a set."""
    if isinstance(given, Box) or callable(given):
        return Sampled(name, given)
    array = as_array(given)
    if array.ndim < 1 or len(array) < 1 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"The set '{name}' of PointSets must be a cl.Box, a function f(count, rng), or an "
            f"array of at least one row of numbers. Received: {_described(given, array)}"
        )
    return Rows(name, array)


def _described(given: Any, array: "NDArray[Any]") -> str:
    if isinstance(given, np.ndarray):
        return f"an array of shape {array.shape} and dtype {array.dtype}"
    return f"{given!r} of type {type(given).__name__}"
