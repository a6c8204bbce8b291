"""Solvers for small matrices, in float32 and with a fixed number of steps.

They never raise, whatever the numbers, and use no product that an accelerator would round to fewer
digits. The bodies of the loops are functions of all that they need: JAX compiles each of them once.
"""

import numpy as np
from keras import ops

# The square of a pivot that is rounding: the matrices have the diagonal 1.
_LEAST_SQUARE = 1e-17
_LEAST = 1e-12


def identity(matrix):
    """The one of the size of a matrix."""
    return ops.convert_to_tensor(np.eye(matrix.shape[-1], dtype="float32"))


def times(matrix, vector):
    """The products of matrices `(..., k, k)` and vectors `(..., k)`."""
    return ops.sum(matrix * vector[..., None, :], axis=-1)


def solve(matrix, right):
    """`x` of `matrix x = right` for positive definite matrices `(..., k, k)`."""
    scale = ops.rsqrt(ops.diagonal(matrix, axis1=-2, axis2=-1))
    swept = _sweep(matrix * scale[..., :, None] * scale[..., None, :], identity(matrix))
    x = _apply(swept, scale, right)
    # Once more for what is left: as exact as float32 allows.
    return x + _apply(swept, scale, right - times(matrix, x))


def solve_on(support, matrix, right):
    """`solve` with the rows and columns of `support` `(..., k)` alone; 0 elsewhere."""
    both = support[..., :, None] * support[..., None, :]
    return solve(matrix * both + identity(matrix) * (1 - support)[..., None, :], right * support)


def nonnegative(matrix, linear):
    """`argmin of 0.5 z'Cz - b'z over z >= 0`, for many b.

    Mehrotra's predictor-corrector, then the equations of the support alone, which make it exact.

    Args:
        matrix: C, `(k, k)`, positive definite.
        linear: b, `(m, k)`.

    Returns:
        `(m, k)`.
    """
    z = ops.ones_like(linear)
    s = ops.maximum(times(matrix, z) - linear, 1.0)
    eye = identity(matrix)
    start = (z, s, matrix, matrix * (1 - eye), ops.diagonal(matrix), linear, eye)
    z, s = ops.fori_loop(0, 15, _interior_step, start)[:2]
    x = solve_on(ops.cast(z > s, "float32"), matrix, linear)
    better = _violation(x, matrix, linear) <= _violation(z, matrix, linear)
    return ops.maximum(ops.where(better, x, z), 0.0)


def _violation(z, matrix, linear):
    """How far z is from a solution, `(m, 1)`."""
    left = ops.minimum(z, times(matrix, z) - linear)
    return ops.max(ops.abs(left), axis=-1, keepdims=True)


def _interior_step(_, state):
    z, s, matrix, beside, diagonal, linear, eye = state
    product = z * s
    mu = ops.mean(product, axis=-1, keepdims=True)
    rest = s - times(matrix, z) + linear
    # M = C + diag(s / z), with rows and columns divided so that its diagonal is 1.
    scale = ops.rsqrt(diagonal + s / z)
    swept = _sweep(beside * scale[..., :, None] * scale[..., None, :] + eye, eye)

    def move(target):
        dz = _apply(swept, scale, target / z - s + rest)
        ds = times(matrix, dz) - rest
        # The largest share, up to 1, that keeps z and s above 0.
        steepest = ops.maximum(-dz / z, -ds / s)
        return dz, ds, 1 / ops.maximum(ops.max(steepest, axis=-1, keepdims=True), 1.0)

    dz, ds, share = move(0.0)
    ahead = ops.mean((z + share * dz) * (s + share * ds), axis=-1, keepdims=True)
    centre = (ahead / mu) ** 3 * mu
    dz, ds, share = move(centre - dz * ds)
    z = ops.maximum(z + 0.99 * share * dz, _LEAST)
    s = ops.maximum(s + 0.99 * share * ds, _LEAST)
    return z, s, matrix, beside, diagonal, linear, eye


# For `x_i (C x)_i^alpha = exp(t_i)` let u = log x and y_i = exp((t_i - u_i) / alpha), which is
# (C x)_i where it is solved. C x - y is the slope of `0.5 x'Cx - sum_i of the integral of y_i`,
# strictly convex, so that there is one solution. Newton's step on it, with dy/dx = -y / (alpha x),
#     (C + diag(y / (alpha x))) dx = y - C x,
# has a positive definite matrix; in logarithms du = dx / x, and x stays above 0 whatever the step.
# What is far off is cut for each component by itself. (One factor for all, so that x + dx > 0,
# stops all for the sake of one that has far to go: with alpha = 8 shares span e^100.)
_LONGEST = 2.0
# Below this, relative to the largest, a share changes nothing in float32, and 1 / x stays a number.
_DEEPEST = 60.0


def fair_shares(cosines, targets, alpha, steps):
    """`log x` of `x_i (C x)_i^alpha = exp(targets_i)`, `x > 0`."""
    alpha = ops.convert_to_tensor(np.float32(alpha))
    start = (targets / (1 + alpha), cosines, targets, alpha)
    logs = ops.fori_loop(0, steps, _newton_step, start)[0]
    # What is too small to act on itself is what the others leave of it.
    x = ops.exp(logs)
    gains = times(cosines, x)
    is_small = x < 1e-6 * gains
    rest = targets - alpha * ops.log(ops.where(is_small, gains, 1.0))
    return ops.where(is_small, ops.minimum(logs, rest), logs)


def _newton_step(_, state):
    logs, cosines, targets, alpha = state
    logs = ops.maximum(logs, ops.max(logs) - _DEEPEST)
    x = ops.exp(logs)
    y = ops.exp(ops.clip((targets - logs) / alpha, -80.0, 80.0))
    slopes = cosines + identity(cosines) * (y / (alpha * x))[None, :]
    change = solve(slopes, y - times(cosines, x)) / x
    return logs + ops.clip(change, -_LONGEST, _LONGEST), cosines, targets, alpha


# The inverse of a positive definite matrix of diagonal 1, by Gauss and Jordan, which needs no
# pivoting there. Let h be row i of pivot p, but p - 1 in place of p. A - h h' / p is what the sweep
# of the row makes of A: a_jk - a_ji a_ik / p, beside the pivot a_ji - a_ji (p - 1) / p = a_ji / p,
# and at it p - (p - 1)^2 / p = 2 - 1 / p. After all rows it is 2 I - A^-1.


def _sweep(matrix, eye):
    """`2 I - A^-1`, for `_apply`."""
    return ops.fori_loop(0, matrix.shape[-1], _sweep_row, (matrix, eye))[0]


def _sweep_row(i, state):
    matrix, eye = state
    row = matrix[..., i, :]
    pivot, h = row[..., i, None], row - eye[i]
    # 1 / p, but bounded where the pivot is rounding.
    reciprocal = pivot / (pivot * pivot + _LEAST_SQUARE)
    return matrix - h[..., :, None] * (h * reciprocal)[..., None, :], eye


def _apply(swept, scale, right):
    right = scale * right
    return scale * (2 * right - times(swept, right))
