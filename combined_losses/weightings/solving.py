"""Solves the equations of a rule on the host where that is faster, else by the framework."""

from collections.abc import Callable

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor


def solved(function: Callable[..., Tensor], *arrays: Tensor) -> Tensor:
    """`function(*arrays)`, of NumPy arrays where the backend prefers that.

    Args:
        function: computes with tensors and with NumPy arrays alike, see `_numerics/linalg.py`.
        arrays: what it takes, tensors of a few numbers.
    """
    found = backend.on_host(function, arrays)
    return function(*arrays) if found is None else found
