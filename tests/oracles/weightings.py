"""Twins of the rules that combine gradients, from the rows J `(k, n)`, in float64."""

import itertools

import numpy as np


def smallest(matrix, linear):
    """`argmin of 0.5 z'Mz - b'z over z >= 0`: the best of the solutions on every support."""
    k = len(linear)
    best, least = np.zeros(k), 0.0
    for size in range(1, k + 1):
        for support in itertools.combinations(range(k), size):
            z, s = np.zeros(k), list(support)
            z[s] = np.linalg.lstsq(matrix[np.ix_(s, s)], linear[s], rcond=None)[0]
            value = 0.5 * z @ matrix @ z - linear @ z
            if np.all(z >= 0) and value < least:
                best, least = z, value
    return best


def _norms(rows):
    return np.linalg.norm(rows, axis=1)


def _shares(rows, preference):
    p = np.ones(len(rows)) if preference is None else np.float64(preference)
    return p / p.sum()


def mgda(rows, normalize=False):
    if normalize:
        n = _norms(rows)
        return mgda(rows / n[:, None]) / n * n.mean()
    v = smallest(rows @ rows.T, np.ones(len(rows)))
    return v / v.sum()


def dual_proj(rows, preference=None):
    """`argmin v'Gv over v >= p`: v = p + z."""
    gramian, p = rows @ rows.T, _shares(rows, preference)
    return p + smallest(gramian, -gramian @ p)


def upgrad(rows, preference=None):
    gramian, p = rows @ rows.T, _shares(rows, preference)
    units = np.eye(len(p))
    return sum(p[i] * (units[i] + smallest(gramian, -gramian[i])) for i in range(len(p)))


def imtlg(rows):
    """The differences of the unit gradients are orthogonal to the step, as the paper has it."""
    units = rows / _norms(rows)[:, None]
    if len(rows) == 1:
        return np.ones(1)
    apart, beside = units[0] - units[1:], rows[0] - rows[1:]
    others = rows[0] @ apart.T @ np.linalg.inv(beside @ apart.T)
    return np.array([1 - others.sum(), *others])


def config(rows, preference=None):
    """By the pseudo-inverse of the unit gradients, as the paper has it."""
    units = rows / _norms(rows)[:, None]
    step = np.linalg.pinv(units) @ _shares(rows, preference)
    step /= np.linalg.norm(step)
    step *= (rows @ step).sum()
    return np.linalg.lstsq(rows.T, step, rcond=None)[0]


def fair(rows, alpha=1.0):
    """`G w = w^(-1/alpha)`, the minimum of a convex function of w, by Newton's method."""
    gramian, power = rows @ rows.T, 1 / alpha
    scale = _norms(rows) ** (-2 * alpha / (1 + alpha))
    w = scale.copy()
    for _ in range(200):
        slope = gramian @ w - w**-power
        curve = gramian + np.diag(power * w ** (-power - 1))
        scaled = scale[:, None] * curve * scale[None, :]
        move = -scale * np.linalg.solve(scaled, scale * slope)
        w = w + move / max(1.0, 2 * np.max(np.abs(move / w)))
    return w


def nash(rows, max_norm=1.0):
    w = fair(rows)
    return w * min(1.0, max_norm / np.linalg.norm(rows.T @ w))


def aligned(rows, scale="min", preference=None):
    """By the singular values of the rows."""
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    sigma = {"min": sizes[-1], "median": np.sort(sizes)[(len(sizes) - 1) // 2]}.get(scale)
    sigma = np.sqrt(np.mean(sizes**2)) if sigma is None else sigma
    return sigma * left @ np.diag(1 / sizes) @ left.T @ _shares(rows, preference)


def pcgrad_step(rows, orders):
    """The step, with the gradients themselves."""
    steps = rows.copy()
    for i, order in enumerate(orders):
        for j in order:
            if j != i and steps[i] @ rows[j] < 0:
                steps[i] = steps[i] - steps[i] @ rows[j] / (rows[j] @ rows[j]) * rows[j]
    return steps.sum(axis=0)


def inverse_norm(rows, rescale=True):
    n = _norms(rows)
    return (n.mean() if rescale else 1.0) / n
