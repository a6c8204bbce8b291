"""Sets compared by what it costs to move one onto the other."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_flag, check_number, is_integer
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.over import Over
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.samples.members import OfMembers, shares, squared_distances

__all__ = ["Sinkhorn"]


@keras.saving.register_keras_serializable("combined_losses")
class Sinkhorn(OfMembers):
    """What it costs to move one set onto the other, blurred by an entropy: the Sinkhorn divergence.

    `OT(y, p) - (OT(y, y) + OT(p, p)) / 2`, where OT is the least `sum P_ij c_ij` over plans P whose
    rows and columns add up to the shares of the members, plus `epsilon` times the divergence of P
    from the plan that moves everything everywhere; `c_ij = |x_i - z_j|^power`. Use it to make one
    set like another where distances mean something, and for small sets: it pulls from any distance,
    and sees all directions at once.

    Args:
        epsilon: how much the plan is blurred, above 0, in units of the cost: standardise the
            members, or give a share of a typical cost, such as 0.05 times it. Smaller ones are
            sharper, and need more iterations. Default 0.1.
        iterations: how often rows and columns are brought to their sums, at least 1. Default 50.
        power: 1 or 2, of the distances. Default 2.
        debias: whether to subtract the cost of each set to itself, without which the loss draws
            all members together. Default True.
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

    Example: a set moved by 2, in another order.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Sinkhorn()
    >>> y = np.array([[0.0], [10.0], [30.0]])
    >>> round(float(loss(y, y[::-1] + 2.0)), 4)
    4.0

    Limits: a set and itself have 0, and a set moved by t has `|t|^2` (`power=2`, enough
    iterations). epsilon -> 0 is the Wasserstein distance to the power. The slope is that of the
    cost under the last plan, which is exact once the iterations have settled; they are not part of
    the gradient. Time and memory grow with the square of the number of members.

    References: Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895; Feydy et al., Interpolating
    between Optimal Transport and MMD using Sinkhorn Divergences, 2019, arXiv 1810.08278.
    """

    def __init__(
        self,
        epsilon: float = 0.1,
        iterations: int = 50,
        *,
        power: int = 2,
        debias: bool = True,
        over: Over = "batch",
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(over, **kwargs)
        check_number("Sinkhorn", "epsilon", epsilon, minimum=0, exclusive=True)
        if not is_integer(iterations) or iterations < 1:
            raise ValueError(
                "The argument `iterations` of Sinkhorn must be an integer of at least 1. "
                f"Received: {iterations!r}"
            )
        if power not in (1, 2) or isinstance(power, bool):
            raise ValueError(
                f"The argument `power` of Sinkhorn must be 1 or 2. Received: {power!r}"
            )
        check_flag("Sinkhorn", "debias", debias)
        self.epsilon = epsilon
        self.iterations = iterations
        self.power = power
        self.debias = debias

    def measure(self, x: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        counts = None if weight is None else ops.sum(weight, axis=1, keepdims=True) > 0
        if counts is not None:  # where no member counts, all do; the value is replaced below
            weight = ops.where(counts, weight, 1.0)
        a, b = shares(x, weight), shares(z, weight)
        pairs = [(x, z, a, b)]
        if self.debias:
            pairs += [(x, x, a, a), (z, z, b, b)]
        costs = [self._cost(one, other) for one, other, _, _ in pairs]
        sides = [(_log(left), _log(right)) for _, _, left, right in pairs]
        plans = self._plans(costs, sides)
        found = [
            _transported(cost, potentials, shares, self.epsilon)
            for cost, potentials, shares in zip(costs, plans, sides, strict=True)
        ]
        value = found[0] - 0.5 * (found[1] + found[2]) if self.debias else found[0]
        return value if counts is None else ops.where(counts[:, 0], value, 0.0)

    def _cost(self, x: Tensor, z: Tensor) -> Tensor:
        squares = squared_distances(x, z)
        if self.power == 2:
            return squares
        nothing = squares <= 1e-24
        return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, squares)))

    def _plans(
        self, costs: list[Tensor], sides: list[tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """The potentials f and g of each pair of sets, over epsilon; without gradients."""
        state: list[Tensor] = []
        for cost, (left, right) in zip(costs, sides, strict=True):
            scaled = ops.stop_gradient(cost) / self.epsilon
            state += [ops.zeros_like(left), ops.zeros_like(right), scaled, left, right]
        # One loop for all pairs, which no backend writes out, and which JAX compiles once.
        done = ops.fori_loop(0, self.iterations, _step, tuple(state))
        return [(done[i], done[i + 1]) for i in range(0, len(done), 5)]


def _step(_: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Brings the rows, then the columns, of every plan to their sums."""
    found: list[Tensor] = []
    for i in range(0, len(state), 5):
        _, g, cost, left, right = state[i : i + 5]
        f = -ops.logsumexp(ops.expand_dims(right + g, 1) - cost, axis=2)
        g = -ops.logsumexp(ops.expand_dims(left + f, 2) - cost, axis=1)
        found += [f, g, cost, left, right]
    return tuple(found)


def _log(share: Tensor) -> Tensor:
    """The logarithm of shares; minus infinity for members that do not count."""
    share = ops.stop_gradient(share)
    nothing = share <= 0
    return ops.where(nothing, -float("inf"), ops.log(ops.where(nothing, 1.0, share)))


def _transported(
    cost: Tensor, potentials: tuple[Tensor, Tensor], sides: tuple[Tensor, Tensor], epsilon: float
) -> Tensor:
    """The transport cost of each pair of sets, `(sets,)`."""
    (f, g), (left, right) = potentials, sides
    dual = epsilon * (ops.sum(ops.exp(left) * f, axis=1) + ops.sum(ops.exp(right) * g, axis=1))
    scaled = ops.stop_gradient(cost) / epsilon
    # The plan is `exp(left + f + right + g - scaled)`, where g brings each column to its sum,
    # exp(right). It is computed like that, because the rounding of g is large where the costs are,
    # and its exponential may be infinite.
    columns = _softmax_of_columns(ops.expand_dims(left + f, 2) - scaled)
    plan = ops.expand_dims(ops.exp(right), 1) * columns
    # At the optimum the potentials have no slope (the envelope theorem): what is left of that of
    # the dual is the slope of the cost under the plan.
    moved = ops.sum(plan * cost, axis=(1, 2))
    return dual + moved - ops.stop_gradient(moved)


def _softmax_of_columns(rows: Tensor) -> Tensor:
    share = ops.exp(rows - ops.max(rows, axis=1, keepdims=True))
    # XLA may compute `rows` twice, and round it in another way for the maximum. Where all numbers
    # are large, all shares are then 0: so that of the largest is set to 1.
    some = rows
    if not rows.shape[1]:  # there may be none, of which TensorFlow takes no maximum
        some = ops.pad(rows, ((0, 0), (0, 1), (0, 0)), constant_values=-float("inf"))
    places = ops.expand_dims(ops.arange(ops.shape(rows)[1], dtype="int32"), -1)
    largest = ops.equal(places, ops.argmax(some, axis=1, keepdims=True))
    share = ops.where(largest, 1.0, ops.minimum(share, 1.0))
    return share / ops.sum(share, axis=1, keepdims=True)
