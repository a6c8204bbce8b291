"""Sets compared by a kernel."""

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import are_numbers, check_flag
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.over import Over
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.losses.samples.members import OfMembers, shares, squared_distances

__all__ = ["MMD"]

# The square of a smaller number is 0 in float32, or nearly.
_LEAST = 1e-18


@keras.saving.register_keras_serializable("combined_losses")
class MMD(OfMembers):
    """The squared maximum mean discrepancy of two sets: 0 where they look alike to a kernel.

    `sum a_i a_j k(y_i, y_j) + sum b_i b_j k(p_i, p_j) - 2 sum a_i b_j k(y_i, p_j)`, where k is the
    mean over the bandwidths s of `exp(-|x - z|^2 / (2 s^2))` and a, b are 1 / n, or the weights
    divided by their sum. Use it to make what a network draws look like the data, where no draw
    belongs to a certain target: for a generator, or a code that shall be Gaussian.

    Args:
        bandwidths: widths of the Gaussian kernel, above 0, in units of the members. Take several,
            from the distance of neighbours to that of the sets: sets that are many bandwidths apart
            do not pull each other. Default `(1.0,)`.
        unbiased: whether to leave out `i = j` in the first two sums, each then divided by
            `1 - sum a_i^2`: on average 0 for two sets of one distribution, so it may be negative.
            A single member has the term 0. Default False.
        over: `"batch"` (default): all members of the batch, on all replicas, are one set, and every
            sample is given its one number; `"sample"`: each sample is a pair of sets of its own.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: with `over="batch"` `y_true` and `y_pred` `(batch, ..., D)`, every row a member of D
    numbers; with `over="sample"` `(batch, ..., D)` too, the middle axes being the members of each
    sample, of which the two sets may have different numbers. Values `(batch,)`.

    Weights are those of members, and the same for both sets. A member of weight 0, or with a
    missing label, leaves both.

    Raises:
        ValueError: if an argument is outside its range, a shape does not fit, or members of sets
            of different sizes have weights.

    Example: two sets that are far apart, and the same set in another order.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.MMD()
    >>> y = np.array([[0.0], [100.0]])
    >>> float(loss(y, y[::-1])), float(loss(y, y + 30.0))
    (0.0, 1.0)

    Limits: at most 2. Two sets of one distribution have about `2 / n` times the mean of `1 - k`.
    The memory grows with the square of the number of members.

    Reference: Gretton et al., A Kernel Two-Sample Test, JMLR 2012.
    """

    def __init__(
        self,
        bandwidths: Sequence[float] = (1.0,),
        *,
        unbiased: bool = False,
        over: Over = "batch",
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(over, **kwargs)
        if not (are_numbers(bandwidths) and min(bandwidths) >= _LEAST):
            raise ValueError(
                "The argument `bandwidths` of MMD must be a list of finite numbers above 0. "
                f"Received: {bandwidths!r}"
            )
        check_flag("MMD", "unbiased", unbiased)
        self.bandwidths = bandwidths
        self.unbiased = unbiased

    def measure(self, x: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        a, b = shares(x, weight), shares(z, weight)
        apart = _double_sum(self._kernel(x, z), a, b)
        return self._within(x, a) + self._within(z, b) - 2 * apart

    def _within(self, x: Tensor, a: Tensor) -> Tensor:
        """The mean of the kernel over the pairs of a set."""
        total = _double_sum(self._kernel(x, x), a, a)
        if not self.unbiased:
            return total
        same = ops.sum(ops.square(a), axis=1)  # the kernel of a member with itself is 1
        return div(total - same, 1 - same)

    def _kernel(self, x: Tensor, z: Tensor) -> Tensor:
        squares = squared_distances(x, z)
        terms = [ops.exp(squares * (-0.5 / s / s)) for s in map(float, self.bandwidths)]
        return sum(terms[1:], terms[0]) / len(terms)


def _double_sum(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`sum_ij a_i b_j k_ij` of each pair of sets."""
    return ops.sum(a * ops.sum(kernel * ops.expand_dims(b, 1), axis=2), axis=1)
