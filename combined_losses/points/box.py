"""`Box`: points in a box, drawn in one of three ways."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from combined_losses._core.checks import are_numbers
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import ArrayLike

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["uniform", "latin", "sobol"]


class Box:
    """Draws points in a box, for a set of `cl.PointSets`.

    Args:
        low: the least value of each coordinate.
        high: the largest value of each coordinate. Where it equals `low`, that coordinate is fixed:
            `Box([-1, 0], [1, 0])` has the points with t = 0.
        method: how the points are drawn.

            - `"uniform"` (default): each point by itself.
            - `"latin"`: Latin hypercubes. Of each coordinate, each of `batch` equal parts has one
              point of every batch; and each of `batch * steps` parts one point of the epoch.
            - `"sobol"`: a Sobol sequence, scrambled anew for each epoch, cut into batches. It is
              the most even where `batch` is a power of 2. It needs scipy.

    Reference: the Latin hypercubes are sliced ones, Qian 2012, JASA 107 (497). The Sobol sequences
    are those of `scipy.stats.qmc`.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> box = cl.Box([0.0, 5.0], [1.0, 5.0], method="latin")
    >>> points = box.draw(4, steps=1, rng=np.random.default_rng(0))
    >>> points.shape
    (4, 2)
    >>> sorted(int(x) for x in 4 * points[:, 0])
    [0, 1, 2, 3]
    """

    def __init__(
        self, low: Sequence[float], high: Sequence[float], *, method: Method = "uniform"
    ) -> None:
        if not (are_numbers(low) and are_numbers(high) and len(low) == len(high)):
            raise ValueError(
                "The arguments `low` and `high` of Box must be lists of finite numbers, one for "
                f"each coordinate. Received: low={low!r}, high={high!r}"
            )
        if np.any(np.asarray(low) > np.asarray(high)):
            raise ValueError(
                "Each number in `low` of Box must be at most that in `high`. "
                f"Received: low={low!r}, high={high!r}"
            )
        if method not in get_args(Method):
            raise ValueError(
                f"The argument `method` of Box must be one of {quoted(get_args(Method), 'or')}. "
                f"Received: {method!r}"
            )
        if method == "sobol":
            _sobol_class()  # raises here, not in the middle of `fit`, where scipy is missing
        self.low = low
        self.high = high
        self.method: Method = method

    def __repr__(self) -> str:
        method = "" if self.method == "uniform" else f", method={self.method!r}"
        return f"Box({self.low!r}, {self.high!r}{method})"

    def draw(self, batch: int, steps: int, rng: np.random.Generator) -> "NDArray[np.float64]":
        """The points of an epoch, batch after batch.

        Args:
            batch: the number of points of a batch.
            steps: the number of batches of the epoch.
            rng: where the randomness comes from.

        Returns:
            `(batch * steps, coordinates)`, in float64.
        """
        low, high = np.asarray(self.low, "float64"), np.asarray(self.high, "float64")
        of_unit_cube = {"uniform": _uniform, "latin": _latin, "sobol": _sobol}[self.method]
        points = low + of_unit_cube(batch, steps, len(low), rng) * (high - low)
        # The sum may be rounded to a number above `high`.
        inside: NDArray[np.float64] = np.minimum(points, high)
        return inside


def _uniform(
    batch: int, steps: int, dimensions: int, rng: np.random.Generator
) -> "NDArray[np.float64]":
    return rng.random((batch * steps, dimensions))


def _latin(
    batch: int, steps: int, dimensions: int, rng: np.random.Generator
) -> "NDArray[np.float64]":
    """Each batch is a Latin hypercube of `batch` strata, the epoch one of `batch * steps`.

    A stratum of a batch is a block of `steps` strata of the epoch. Each block gives one of its
    strata to each batch, so every batch has a point in every block, and no stratum is used twice.
    """
    count = batch * steps
    blocks = np.arange(count).reshape(batch, steps)
    strata = []
    for _ in range(dimensions):
        of_batches = rng.permuted(blocks, axis=1)  # column i: what the blocks give to batch i
        strata.append(rng.permuted(of_batches, axis=0).T.ravel())
    return (np.stack(strata, axis=-1) + rng.random((count, dimensions))) / count


def _sobol(
    batch: int, steps: int, dimensions: int, rng: np.random.Generator
) -> "NDArray[np.float64]":
    """The first points of a scrambled Sobol sequence.

    scipy warns of a number of points that is no power of 2, so the sequence is cut here.
    """
    count = batch * steps
    sequence = _sobol_class()(dimensions, scramble=True, rng=rng)
    points: NDArray[np.float64] = sequence.random_base2((count - 1).bit_length())
    return points[:count]


def _sobol_class() -> Any:
    try:
        from scipy.stats import qmc
    except ImportError as error:
        raise ImportError(
            'Box(..., method="sobol") needs scipy, which is not installed. Run: '
            'pip install "combined_losses[points]", or choose method="latin"'
        ) from error
    return qmc.Sobol


def check_drawn(name: str, points: ArrayLike, count: int) -> "NDArray[Any]":
    """What the sampler of a set has drawn, as an array; raises unless it has `count` points."""
    array = np.asarray(points)
    if array.ndim < 1 or len(array) != count or array.dtype.kind not in "fiu":
        raise ValueError(
            f"The function of the set '{name}' is called as f(count, rng) and must return an array "
            f"of `count` points, of shape ({count}, ...). "
            f"Received: an array of shape {array.shape} and dtype {array.dtype}"
        )
    return array
