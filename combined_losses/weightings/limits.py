"""The arguments that every rule has: when it gives new weights, and within which limits."""

import numpy as np
from keras import ops

from combined_losses._core.checks import check_number, is_integer, shown


def check_limits(owner, update_every, warmup, min_weight, max_weight, total):
    """Raises where one of the arguments that every rule has is outside its range."""
    _check_steps(owner, "update_every", update_every, 1)
    _check_steps(owner, "warmup", warmup, 0)
    why = "beyond, its product with a value is no float32 number"
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


def _check_steps(owner, name, value, least):
    if not is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` of {owner} must be an integer of at least {least}, below "
            f"2**31. Received: {shown(value)}"
        )


def check_seed(owner, seed):
    """Raises unless the seed of a rule that draws is None or an integer."""
    if not (seed is None or is_integer(seed)):
        raise ValueError(
            f"`seed` of {owner} must be None or an integer below 2**31. Received: {shown(seed)}"
        )


def within_limits(rule, weights, state, present, live):
    """What a rule has given, with all that its arguments say of it.

    Args:
        rule: a `Weighting`.
        weights: `(k,)`, 0 for what does not count.
        state: what its state was before this step.
        present: `(k,)`, 1.0 where there is a value.
        live: `(k,)`, 1.0 where it counts in this step.
    """
    weights = _rescaled(weights, rule.total, live)
    weights = _capped(weights, rule.min_weight, rule.max_weight, live)
    steps = state["steps"]
    if rule.update_every > 1:
        weights = ops.where(rule.is_due(steps), weights, state["current"] * present)
    if rule.warmup:
        equal = present * rule._equal_weight(ops.maximum(ops.sum(present), 1.0))
        weights = ops.where(steps < rule.warmup, equal, weights)
    return weights


def _rescaled(weights, total, live):
    if total is None:
        return weights
    total = ops.sum(live) if total == "k" else float(total)
    size = ops.sum(weights)
    return weights / ops.where(ops.equal(size, 0.0), 1.0, size) * total


def _capped(weights, min_weight, max_weight, live):
    if min_weight is None and max_weight is None:
        return weights
    lowest = 0.0 if min_weight is None else float(min_weight)
    highest = np.inf if max_weight is None else float(max_weight)
    return ops.clip(weights, lowest, highest) * live
