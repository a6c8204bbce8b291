"""The quick way to `nonnegative` of `linalg.py` for NumPy arrays in float64."""

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Support = NDArray[np.bool_]

# How often in a row all violations of a problem may be exchanged without there being fewer of them.
_PATIENCE = 3
# Most problems take 3 to 7 exchanges. Of gradients of half their number of dimensions, or a matrix
# that float32 has rounded to one that is not positive, there may be no end.
_LONGEST = 20
# What is rounding: of a z, relative to the largest z, for a matrix of condition 1e6 at most, as the
# ridge of the cosines makes it; of a slack, relative to the largest term of its sum.
_ROUNDING_OF_Z = 1e-10
_ROUNDING_OF_SLACK = 1e-13


def nonnegative(matrix: _Array, linear: _Array) -> _Array:
    """`argmin of 0.5 z'Cz - b'z over z >= 0`, for many b: see `linalg.nonnegative`.

    Block principal pivoting. A guess which z are above 0 gives z from their equations alone. Every
    z below 0 then leaves the guess, and every z whose slack `(Cz - b)_i` is below 0 enters it,
    until nothing is violated. Where that goes in circles, only the violation of the largest index
    is exchanged, which ends for every positive definite matrix (Murty, 1974).

    Raises:
        ArithmeticError: if it does not end within 20 exchanges.
    """
    sizes = np.max(np.abs(linear), axis=1, keepdims=True)
    support = linear > 0
    fewest = np.full(len(linear), linear.shape[1] + 1)
    patience = np.full(len(linear), _PATIENCE)
    for _ in range(_LONGEST):
        z = solve_on(support, matrix, linear)
        longest = np.max(np.abs(z), axis=1, keepdims=True)
        is_negative = z < -_ROUNDING_OF_Z * longest
        is_below = z @ matrix - linear < -_ROUNDING_OF_SLACK * (sizes + longest)
        violated = np.where(support, is_negative, is_below)
        number = violated.sum(axis=1)
        if not number.any():
            return np.maximum(z, 0.0)
        fewer = number < fewest
        fewest = np.minimum(number, fewest)
        patience = np.where(fewer, _PATIENCE, patience - 1)
        support ^= np.where((patience > 0)[:, None], violated, _last(violated))
    raise ArithmeticError("The exchange of violated conditions does not end.")


def _last(violated: _Support) -> _Support:
    """The violation of the largest index of each problem alone."""
    later = np.cumsum(violated[:, ::-1], axis=1)[:, ::-1]
    found: _Support = violated & (later == 1)
    return found


def solve_on(support: _Support, matrix: _Array, right: _Array) -> _Array:
    """`x` of `matrix x = right` on the rows and columns of a support `(m, k)`; 0 elsewhere."""
    both = support[:, :, None] & support[:, None, :]
    restricted = np.where(both, matrix, np.eye(len(matrix)))
    solved = np.linalg.solve(restricted, np.where(support, right, 0.0)[..., None])
    return np.asarray(solved[..., 0])
