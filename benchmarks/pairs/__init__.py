"""What `losses.py` compares: one file for each family of losses, with a `PAIRS` of names."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Pair(NamedTuple):
    """
    Attributes:
        data: `(rng) -> y_true, y_pred`, NumPy arrays as ours wants them.
        ours: makes our loss.
        theirs: makes the peer, a function `(y_true, y_pred) -> value` of torch tensors.
        to_theirs: `(y_true, y_pred) ->` both as the peer wants them, NumPy arrays.
        bare: `(y_true, y_pred) -> value`, the formula alone in `keras.ops`; or None.
    """

    data: Callable
    ours: Callable
    theirs: Callable
    to_theirs: Callable = lambda y_true, y_pred: (y_true, y_pred)
    bare: Callable | None = None


def value_and_gradient(function, y_true, y_pred):
    """A function without arguments that computes both by torch."""
    y_true, y_pred = torch.tensor(y_true), torch.tensor(y_pred, requires_grad=True)
    return lambda: torch.autograd.grad(function(y_true, y_pred), y_pred)
