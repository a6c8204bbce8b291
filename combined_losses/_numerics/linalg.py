"""Solvers for small matrices, of tensors in float32 or of NumPy arrays in float64.

With tensors they take a fixed number of steps and never raise, whatever the numbers. They use no
matrix product, because accelerators round its factors to fewer digits. The bodies of the loops are
module-level functions that get all they need as arguments, so that JAX compiles each of them once.
With NumPy arrays they use LAPACK, and raise an `ArithmeticError` or `LinAlgError` where they do not
find the solution.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from combined_losses._numerics import pivoting
from combined_losses._numerics.arrays import Tensor

# The square of a pivot that is nothing but rounding error, in a matrix whose diagonal is 1.
_LEAST_SQUARE = 1e-17
# The lower bound of the iterates in `nonnegative`.
_LEAST = 1e-12


def arithmetic(array: Tensor) -> Any:
    """The module that computes with an array: NumPy or `keras.ops`, which share most names."""
    return np if isinstance(array, np.ndarray) else ops


def repeat(times: int, step: Callable[[Any, Any], Any], start: tuple[Tensor, ...]) -> Any:
    """What is left of `start` after so many steps, `step(index, state)`."""
    if not isinstance(start[0], np.ndarray):
        return ops.fori_loop(0, times, step, start)
    for index in range(times):
        start = step(index, start)
    return start


def identity(matrix: Tensor) -> Tensor:
    """The identity matrix of the size of `matrix`."""
    if isinstance(matrix, np.ndarray):
        return np.eye(matrix.shape[-1])
    return ops.convert_to_tensor(np.eye(matrix.shape[-1], dtype="float32"))


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """The products of matrices `(..., k, k)` and vectors `(..., k)`."""
    return arithmetic(matrix).sum(matrix * vector[..., None, :], axis=-1)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """`x` of `matrix x = right` for positive definite matrices `(..., k, k)`."""
    if isinstance(matrix, np.ndarray):
        return np.linalg.solve(matrix, right[..., None])[..., 0]
    scale = ops.rsqrt(ops.diagonal(matrix, axis1=-2, axis2=-1))
    swept = _sweep(matrix * scale[..., :, None] * scale[..., None, :], identity(matrix))
    x = _apply(swept, scale, right)
    # Solve once more, for the residual: the result is then as exact as float32 allows.
    return x + _apply(swept, scale, right - times(matrix, x))


def solve_on(support: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """`solve` restricted to the rows and columns where `support` `(..., k)` is 1; 0 elsewhere."""
    both = support[..., :, None] * support[..., None, :]
    return solve(matrix * both + identity(matrix) * (1 - support)[..., None, :], right * support)


def nonnegative(matrix: Tensor, linear: Tensor) -> Tensor:
    """`argmin of 0.5 z'Cz - b'z over z >= 0`, for many b.

    Mehrotra's predictor-corrector method finds which z are above 0; the equations of these alone
    then give them exactly.

    Args:
        matrix: C, `(k, k)`, positive definite.
        linear: b, `(m, k)`.

    Returns:
        `(m, k)`.
    """
    xp = arithmetic(matrix)
    if xp is np:
        with contextlib.suppress(ArithmeticError):
            return pivoting.nonnegative(matrix, linear)
    z = xp.ones_like(linear)
    s = xp.maximum(times(matrix, z) - linear, 1.0)
    eye = identity(matrix)
    start = (z, s, matrix, matrix * (1 - eye), xp.diagonal(matrix), linear, eye)
    z, s = repeat(15, _interior_step, start)[:2]
    x = solve_on(xp.where(z > s, 1.0, 0.0), matrix, linear)
    better = _violation(x, matrix, linear) <= _violation(z, matrix, linear)
    return xp.maximum(xp.where(better, x, z), 0.0)


def _violation(z: Tensor, matrix: Tensor, linear: Tensor) -> Tensor:
    """How far z is from a solution, `(m, 1)`."""
    xp = arithmetic(matrix)
    left = xp.minimum(z, times(matrix, z) - linear)
    return xp.max(xp.abs(left), axis=-1, keepdims=True)


def _interior_step(_: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of the predictor-corrector method; s is the slack `Cz - b`."""
    z, s, matrix, beside, diagonal, linear, eye = state
    xp = arithmetic(matrix)
    product = z * s
    mu = xp.mean(product, axis=-1, keepdims=True)
    rest = s - times(matrix, z) + linear
    # The matrix of the step is C + diag(s / z), scaled by rows and columns to the diagonal 1.
    scale = 1 / xp.sqrt(diagonal + s / z)
    swept = _sweep(beside * scale[..., :, None] * scale[..., None, :] + eye, eye)

    def move(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dz = _apply(swept, scale, target / z - s + rest)
        ds = times(matrix, dz) - rest
        # The largest share of the step, at most 1, that keeps z and s above 0.
        steepest = xp.maximum(-dz / z, -ds / s)
        return dz, ds, 1 / xp.maximum(xp.max(steepest, axis=-1, keepdims=True), 1.0)

    dz, ds, share = move(0.0)
    ahead = xp.mean((z + share * dz) * (s + share * ds), axis=-1, keepdims=True)
    centre = (ahead / mu) ** 3 * mu
    dz, ds, share = move(centre - dz * ds)
    z = xp.maximum(z + 0.99 * share * dz, _LEAST)
    s = xp.maximum(s + 0.99 * share * ds, _LEAST)
    return z, s, matrix, beside, diagonal, linear, eye


# To solve `x_i (C x)_i^alpha = exp(t_i)`, let u = log x and y_i = exp((t_i - u_i) / alpha). At the
# solution y = C x. C x - y is the gradient of `0.5 x'Cx - sum_i of the integral of y_i`, which is
# strictly convex, so there is one solution. Newton's step, with dy/dx = -y / (alpha x), is
#     (C + diag(y / (alpha x))) dx = y - C x,
# and its matrix is positive definite. We step in logarithms, du = dx / x, so that x stays above 0.
# A long step is cut to `_LONGEST`, each component by itself. (One common factor that keeps
# x + dx > 0 would hold all components back for one that has far to go: with alpha = 8 the shares
# span a factor of e^100.)
_LONGEST = 2.0
# A share of e^-60 of the largest changes nothing in float32. Smaller ones are raised to it, so that
# 1 / x stays finite.
_DEEPEST = 60.0


def fair_shares(cosines: Tensor, targets: Tensor, alpha: float, steps: int) -> Tensor:
    """`log x` of `x_i (C x)_i^alpha = exp(targets_i)`, `x > 0`."""
    xp = arithmetic(cosines)
    power = np.float64(alpha) if xp is np else ops.convert_to_tensor(np.float32(alpha))
    start = (targets / (1 + power), cosines, targets, power)
    logs = repeat(steps, _newton_step, start)[0]
    # A share too small to affect its own (C x)_i follows from the other shares alone.
    x = xp.exp(logs)
    gains = times(cosines, x)
    is_small = x < 1e-6 * gains
    rest = targets - power * xp.log(xp.where(is_small, gains, 1.0))
    return xp.where(is_small, xp.minimum(logs, rest), logs)


def _newton_step(_: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    logs, cosines, targets, alpha = state
    xp = arithmetic(cosines)
    logs = xp.maximum(logs, xp.max(logs) - _DEEPEST)
    x = xp.exp(logs)
    y = xp.exp(xp.clip((targets - logs) / alpha, -80.0, 80.0))
    slopes = cosines + identity(cosines) * (y / (alpha * x))[None, :]
    change = solve(slopes, y - times(cosines, x)) / x
    return logs + xp.clip(change, -_LONGEST, _LONGEST), cosines, targets, alpha


# Gauss-Jordan elimination inverts a positive definite matrix of diagonal 1. Such a matrix needs no
# pivoting. Let p be the pivot of row i, and h that row with p - 1 in place of p. The sweep of row i
# turns A into A - h h' / p:
#     elsewhere         a_jk - a_ji a_ik / p,
#     beside the pivot  a_ji - a_ji (p - 1) / p = a_ji / p,
#     at the pivot      p - (p - 1)^2 / p = 2 - 1 / p.
# After the sweeps of all rows the matrix is 2 I - A^-1.


def _sweep(matrix: Tensor, eye: Tensor) -> Tensor:
    """`2 I - A^-1`, which `_apply` multiplies with."""
    if isinstance(matrix, np.ndarray):
        return 2 * eye - np.linalg.inv(matrix)
    return ops.fori_loop(0, matrix.shape[-1], _sweep_row, (matrix, eye))[0]


def _sweep_row(i: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    matrix, eye = state
    row = matrix[..., i, :]
    pivot, h = row[..., i, None], row - eye[i]
    # 1 / p, but bounded where the pivot is nothing but rounding error.
    reciprocal = pivot / (pivot * pivot + _LEAST_SQUARE)
    return matrix - h[..., :, None] * (h * reciprocal)[..., None, :], eye


def _apply(swept: Tensor, scale: Tensor, right: Tensor) -> Tensor:
    """`scale A^-1 (scale right)`, from `swept = 2 I - A^-1`."""
    right = scale * right
    return scale * (2 * right - times(swept, right))
