"""The arguments that every rule has: when it gives new weights, and within which limits."""

from typing import Literal, TypedDict

import numpy as np
from keras import ops

from combined_losses._core.checks import check_number, is_integer, shown
from combined_losses._core.limited import Limited
from combined_losses._numerics.arrays import Tensor
from combined_losses.weightings.state import StateTensors

Total = float | Literal["k"] | None


class RuleArguments(TypedDict, total=False):
    """The arguments of `WithLimits`, for the `**kwargs` of rules."""

    update_every: int
    warmup: int
    min_weight: float | None
    max_weight: float | None
    total: Total


class WithLimits(Limited):
    """A rule whose weights are rescaled, capped, and given in some of the steps only.

    Args:
        update_every, warmup, min_weight, max_weight, total: see `Weighting`.
    """

    sums_to_one: bool = False

    def __init__(
        self,
        update_every: int,
        warmup: int,
        min_weight: float | None,
        max_weight: float | None,
        total: Total,
    ) -> None:
        check_limits(type(self).__name__, update_every, warmup, min_weight, max_weight, total)
        self.update_every = update_every
        self.warmup = warmup
        self.total = total
        self.min_weight = min_weight
        self.max_weight = max_weight

    def is_due(self, steps: Tensor) -> Tensor:
        """Whether the rule gives new weights in the step of this number, a boolean `()`."""
        return ops.equal(ops.mod(steps - self.warmup, float(self.update_every)), 0.0)

    def _equal_weight(self, k: float | Tensor) -> float | Tensor:
        """The weight of each of k components that count alike."""
        total = 1.0 if self.total is None and self.sums_to_one else self.total
        return 1.0 if total is None or total == "k" else total / k

    def _within_limits(
        self, weights: Tensor, state: StateTensors, present: Tensor, active: Tensor
    ) -> Tensor:
        """The weights of a rule after `total`, the caps, `update_every` and `warmup`.

        Args:
            weights: `(k,)`, 0 for components that do not count.
            state: the state before this step.
            present: `(k,)`, 1.0 where there is a value.
            active: `(k,)`, 1.0 where the component counts in this step.
        """
        weights = _rescaled(weights, self.total, active)
        weights = _capped(weights, self.min_weight, self.max_weight, active)
        steps = state["steps"]
        if self.update_every > 1:
            weights = ops.where(self.is_due(steps), weights, state["current"] * present)
        if self.warmup:
            equal = present * self._equal_weight(ops.maximum(ops.sum(present), 1.0))
            weights = ops.where(steps < self.warmup, equal, weights)
        return weights


def check_limits(
    owner: str,
    update_every: int,
    warmup: int,
    min_weight: float | None,
    max_weight: float | None,
    total: Total,
) -> None:
    """Raises if one of the arguments that every rule has is outside its range."""
    _check_steps(owner, "update_every", update_every, 1)
    _check_steps(owner, "warmup", warmup, 0)
    why = "a larger number times a value may be infinite in float32"
    if min_weight is not None:
        check_number(owner, "min_weight", min_weight, 0, maximum=1e30, why=why)
    if max_weight is not None:
        check_number(owner, "max_weight", max_weight, 0)
    if min_weight is not None and max_weight is not None and min_weight > max_weight:
        raise ValueError(
            f"`min_weight` of {owner} must not exceed `max_weight`. "
            f"Received: min_weight={min_weight!r} and max_weight={max_weight!r}"
        )
    if isinstance(total, str) and total != "k":
        raise ValueError(
            f"`total` of {owner} must be None, 'k' or a number above 0. Received: {total!r}"
        )
    if total is not None and total != "k":
        check_number(owner, "total", total, 0, True, maximum=1e30, why=why)


def _check_steps(owner: str, name: str, value: int, least: int) -> None:
    if not is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` of {owner} must be an integer of at least {least} and below 2**31. "
            f"Received: {shown(value)}"
        )


def check_seed(owner: str, seed: int | None) -> None:
    """Raises unless the seed of a rule that draws is None or an integer."""
    if not (seed is None or is_integer(seed)):
        raise ValueError(
            f"`seed` of {owner} must be None or an integer below 2**31. Received: {shown(seed)}"
        )


def _rescaled(weights: Tensor, total: Total, active: Tensor) -> Tensor:
    """The weights with the sum `total`."""
    if total is None:
        return weights
    wanted = ops.sum(active) if total == "k" else float(total)
    size = ops.sum(weights)
    return weights / ops.where(ops.equal(size, 0.0), 1.0, size) * wanted


def _capped(
    weights: Tensor, min_weight: float | None, max_weight: float | None, active: Tensor
) -> Tensor:
    """The weights of the active components, clipped to the caps."""
    if min_weight is None and max_weight is None:
        return weights
    lowest = 0.0 if min_weight is None else float(min_weight)
    highest = np.inf if max_weight is None else float(max_weight)
    return ops.clip(weights, lowest, highest) * active
