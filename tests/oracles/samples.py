"""Twins of `combined_losses.losses.samples`: loops over members, gradients by differences."""

import itertools

import numpy as np

from tests.oracles.distributions import by_differences


def _of_sets(measure, y_true, y_pred, sample_weight, over):
    """`measure(x, z, a, b)` of the whole batch, repeated, or of each sample."""
    weight = _of_members(y_true, sample_weight)
    size, count = y_true.shape[-1], len(y_true)

    def members(array):
        return np.float64(array).reshape(-1, size)

    def shares(number, weight):
        weight = np.ones(number) if weight.size != number else weight.reshape(-1)
        return weight / weight.sum()

    def of(x, z, w):
        x, z = members(x), members(z)
        return measure(x, z, shares(len(x), w), shares(len(z), w))

    def values_of(y_pred):
        if over == "batch":
            return np.full(count, of(y_true, y_pred, weight))
        return np.array([of(x, z, w) for x, z, w in zip(y_true, y_pred, weight, strict=True)])

    return by_differences(values_of, y_pred)


def _of_members(y_true, sample_weight):
    """The weight of each member."""
    rows = y_true.shape[:-1]
    weight = np.ones(rows) if sample_weight is None else np.float64(sample_weight)
    missing = len(rows) - weight.ndim
    return np.broadcast_to(weight.reshape(*weight.shape, *[1] * missing), rows)


def _squares(x, z):
    return np.sum((x[:, None] - z) ** 2, axis=-1)


def mmd(y_true, y_pred, bandwidths=(1.0,), unbiased=False, over="batch", sample_weight=None):
    def kernel(x, z):
        return np.mean([np.exp(-_squares(x, z) / (2 * s * s)) for s in bandwidths], axis=0)

    def within(x, a):
        weights = np.outer(a, a)
        if not unbiased:
            return np.sum(weights * kernel(x, x))
        np.fill_diagonal(weights, 0)
        return 0.0 if len(x) == 1 else np.sum(weights * kernel(x, x)) / (1 - np.sum(a**2))

    def measure(x, z, a, b):
        return within(x, a) + within(z, b) - 2 * np.sum(np.outer(a, b) * kernel(x, z))

    return _of_sets(measure, y_true, y_pred, sample_weight, over)


def sliced_wasserstein(y_true, y_pred, projections, power=2, over="batch", sample_weight=None):
    """By the two quantile functions, on the union of the steps of both."""
    lines = np.float64(projections)
    lines = lines / np.linalg.norm(lines, axis=1, keepdims=True)

    def measure(x, z, a, b):
        found = []
        for line in lines:
            levels = []
            for set_, weight in ((x @ line, a), (z @ line, b)):
                order = np.argsort(set_)
                levels.append((set_[order], np.cumsum(weight[order])))
            ends = np.unique(np.concatenate([[0.0], *(c for _, c in levels)]).round(12))
            total = 0.0
            for low, high in itertools.pairwise(ends):
                p, q = (v[np.searchsorted(c, (low + high) / 2)] for v, c in levels)
                total += (high - low) * abs(p - q) ** power
            found.append(total)
        return np.mean(found)

    return _of_sets(measure, y_true, y_pred, sample_weight, over)


def _logsumexp(array, axis):
    top = array.max(axis=axis, keepdims=True)
    return np.log(np.sum(np.exp(array - top), axis=axis)) + top.squeeze(axis)


def transport(x, z, a, b, epsilon, iterations, power):
    """The cost, and its slopes by x and z under the last plan; members of weight 0 are left out."""
    left, right = a > 0, b > 0
    slopes = np.zeros(x.shape), np.zeros(z.shape)
    x, z, a, b = x[left], z[right], a[left], b[right]
    cost = _squares(x, z) ** (power / 2)
    g = np.zeros(len(z))
    for _ in range(iterations):
        f = -epsilon * _logsumexp(np.log(b) + (g - cost) / epsilon, 1)
        g = -epsilon * _logsumexp(np.log(a) + (f - cost.T) / epsilon, 1)
    plan = np.outer(a, b) * np.exp((f[:, None] + g - cost) / epsilon)
    safe = np.where(cost > 0, cost, 1)
    by_x = 2 * (x[:, None] - z) if power == 2 else (x[:, None] - z) / safe[..., None]
    slopes[0][left] = np.sum(plan[..., None] * by_x, axis=1)
    slopes[1][right] = -np.sum(plan[..., None] * by_x, axis=0)
    return a @ f + b @ g, *slopes


def sinkhorn(
    y_true,
    y_pred,
    epsilon=0.1,
    iterations=50,
    power=2,
    debias=True,
    over="batch",
    sample_weight=None,
):
    options, size = (epsilon, iterations, power), y_true.shape[-1]

    def of(x, z, weight):
        x, z, w = np.float64(x).reshape(-1, size), np.float64(z).reshape(-1, size), weight.ravel()
        a, b = (w / w.sum(), w / w.sum()) if len(x) == len(z) else (each_alike(x), each_alike(z))
        value, _, slope = transport(x, z, a, b, *options)
        if debias:
            own, first, second = transport(z, z, b, b, *options)
            value -= (transport(x, x, a, a, *options)[0] + own) / 2
            slope = slope - (first + second) / 2
        return value, slope

    def each_alike(members):
        return np.full(len(members), 1 / len(members))

    weight = _of_members(y_true, sample_weight)
    if over == "batch":
        value, slope = of(y_true, y_pred, weight)
        return np.full(len(y_true), value), len(y_true) * slope.reshape(y_pred.shape)
    found = [of(x, z, w) for x, z, w in zip(y_true, y_pred, weight, strict=True)]
    values, slopes = zip(*found, strict=True)
    return np.array(values), np.reshape(slopes, y_pred.shape)
