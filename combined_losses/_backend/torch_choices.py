"""The lesser and the greater of numbers, with gradients that take torch a few passes.

At a tie two numbers share the slope. The sign of their difference says which is the lesser:
comparisons and masks take torch several times as long.
"""

from typing import Any

import torch

from combined_losses._backend import plain
from combined_losses._backend.arrays import Tensor


class _Lesser(torch.autograd.Function):
    """`torch.minimum`, but its gradient takes several times as long."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _shared(upstream, b - a)


def _shared(slope: Tensor, lead: Tensor) -> tuple[Tensor, Tensor]:
    """A slope in two shares: all and nothing where `lead` is above 0, halves where it is 0."""
    half = slope / 2
    turn = half * lead.sign()
    return half + turn, half - turn


class _OfThree(torch.autograd.Function):
    """Torch would fill an array for the gradient of each slice, and add them up."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, greatest: bool) -> Tensor:
        found, last = x.clone(), x.shape[axis] - 1
        limit = torch.Tensor.clamp_min_ if greatest else torch.Tensor.clamp_max_
        limit(found.narrow(axis, 0, last), x.narrow(axis, 1, last))
        limit(found.narrow(axis, 1, last), x.narrow(axis, 0, last))
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, bool], output: Tensor) -> None:
        x, ctx.axis, ctx.greatest = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (x,), axis = ctx.saved_tensors, ctx.axis
        last = x.shape[axis] - 1
        # The pairs as in `plain`, and the slopes of them.
        choose = torch.maximum if ctx.greatest else torch.minimum
        pairs = choose(x.narrow(axis, 0, last), x.narrow(axis, 1, last))
        pairs = torch.cat([x.narrow(axis, 0, 1), pairs, x.narrow(axis, last, 1)], axis)
        slopes = _of_neighbours(upstream, pairs, axis, ctx.greatest)
        found = _of_neighbours(slopes.narrow(axis, 1, last), x, axis, ctx.greatest)
        found.narrow(axis, 0, 1).add_(slopes.narrow(axis, 0, 1))
        found.narrow(axis, last, 1).add_(slopes.narrow(axis, last + 1, 1))
        return found, None, None


def _of_neighbours(upstream: Tensor, x: Tensor, axis: int, greatest: bool) -> Tensor:
    """The slopes of `x`, from those of the chosen ones of its neighbours along an axis."""
    count = x.shape[axis] - 1
    before, after = x.narrow(axis, 0, count), x.narrow(axis, 1, count)
    of_before, of_after = _shared(upstream, before - after if greatest else after - before)
    end = torch.zeros_like(x.narrow(axis, 0, 1))
    found = torch.cat([of_before, end], axis)
    found.narrow(axis, 1, count).add_(of_after)
    return found


def lesser(a: Tensor, b: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return plain.lesser(a, b)
    found: Tensor = _Lesser.apply(a, b)
    return found


def least_of_three(x: Tensor, axis: int) -> Tensor:
    if torch.compiler.is_compiling():
        return plain.least_of_three(x, axis)
    return _of_three(x, axis, False)


def greatest_of_three(x: Tensor, axis: int) -> Tensor:
    if torch.compiler.is_compiling():
        return plain.greatest_of_three(x, axis)
    return _of_three(x, axis, True)


def _of_three(x: Tensor, axis: int, greatest: bool) -> Tensor:
    found: Tensor = _OfThree.apply(x, axis, greatest)
    return found
