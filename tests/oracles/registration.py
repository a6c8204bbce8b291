"""Twins of the losses of `combined_losses.losses.images` that register images, place by place."""

import itertools

import numpy as np

from tests.oracles.images import over_windows


def _steps(spacing, axes):
    return np.broadcast_to(1.0 if spacing is None else spacing, axes)


def _shifted(here, *moves):
    """An index, moved by `(axis, by)`."""
    moved = list(here)
    for axis, by in moves:
        moved[axis] += by
    return tuple(moved)


def _stencils(axes, steps):
    """Of each second derivative the factor of its square, and its places and their factors."""
    for a in axes:
        yield 1 / steps[a - 1] ** 4, [((a, 1), 1), ((a, 0), -2), ((a, -1), 1)]
    for a, b in itertools.combinations(axes, 2):
        corners = itertools.product((1, -1), repeat=2)
        weight = 2 / (4 * steps[a - 1] * steps[b - 1]) ** 2
        yield weight, [((a, i, b, j), i * j) for i, j in corners]


def bending_energy(y_true, y_pred, spacing=None):
    p = np.float64(y_pred)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    axes = range(1, p.ndim - 1)
    inside = [n - 2 for n in p.shape[1:-1]]
    places = np.prod(inside) * p.shape[-1]
    for weight, stencil in _stencils(axes, _steps(spacing, len(axes))):
        for n, *corner, k in np.ndindex(len(p), *inside, p.shape[-1]):
            here = (n, *(1 + i for i in corner), k)
            at = [_shifted(here, *zip(m[::2], m[1::2], strict=True)) for m, _ in stencil]
            factors = [factor for _, factor in stencil]
            second = sum(f * p[place] for f, place in zip(factors, at, strict=True))
            values[n] += weight * second**2 / places
            for f, place in zip(factors, at, strict=True):
                gradient[place] += 2 * weight * second * f / places
    return values, gradient


def diffusion(y_true, y_pred, spacing=None):
    p = np.float64(y_pred)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    axes = range(1, p.ndim - 1)
    for axis, h in zip(axes, _steps(spacing, len(axes)), strict=True):
        pairs = p[0].size // p.shape[axis] * (p.shape[axis] - 1)
        for here in np.ndindex(*p.shape):
            if here[axis] + 1 == p.shape[axis]:
                continue
            ahead = _shifted(here, (axis, 1))
            slope = (p[ahead] - p[here]) / h
            values[here[0]] += slope**2 / pairs
            gradient[ahead] += 2 * slope / h / pairs
            gradient[here] -= 2 * slope / h / pairs
    return values, gradient


def local_cross_correlation(y_true, y_pred, window=9, epsilon=1e-5, counts=None):
    def at(y, p, factors):
        my, mp = np.sum(factors * y), np.sum(factors * p)
        vy, vp = np.sum(factors * (y - my) ** 2), np.sum(factors * (p - mp) ** 2)
        covariance = np.sum(factors * (y - my) * (p - mp))
        below = vy * vp + epsilon
        by_covariance, by_vp = -2 * covariance / below, covariance**2 * vy / below**2
        slope = factors * (by_covariance * (y - my) + by_vp * 2 * (p - mp))
        return 1 - covariance**2 / below, slope

    axes = np.ndim(y_pred) - 2
    return over_windows(y_true, y_pred, np.full([window] * axes, window**-axes), at, counts)


def _memberships(x, bins, sigma_ratio, low, high):
    """How far each pixel belongs to each bin, `(pixels, bins)`, and the slopes of that."""
    centres = np.linspace(low, high, bins)
    sigma = sigma_ratio * (high - low) / (bins - 1)
    powers = -((x[:, None] - centres) ** 2) / (2 * sigma**2)
    shares = np.exp(powers - powers.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    by_x = -(x[:, None] - centres) / sigma**2
    return shares, shares * (by_x - np.sum(shares * by_x, axis=1, keepdims=True))


def mutual_information(y_true, y_pred, bins=32, sigma_ratio=0.5, low=0.0, high=1.0, counts=None):
    y, p = np.float64(y_true), np.float64(y_pred)
    m = np.ones(p.shape) if counts is None else np.float64(counts)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    for n, c in np.ndindex(len(p), p.shape[-1]):
        w = m[n, ..., c].ravel()
        if not w.any():
            continue
        w, channels = (
            w / w.sum(),
            np.count_nonzero([m[n, ..., k].any() for k in range(p.shape[-1])]),
        )
        own = [_memberships(x[n, ..., c].ravel(), bins, sigma_ratio, low, high) for x in (y, p)]
        (of_y, _), (of_p, by_p) = own
        joint = np.einsum("i,ik,il->kl", w, of_y, of_p)
        f, g = joint.sum(axis=1), joint.sum(axis=0)
        for k, j in np.ndindex(bins, bins):
            of_both, of_each = joint[k, j] + 1e-7, f[k] * g[j] + 1e-7
            logarithm = np.log(of_both / of_each)
            values[n] -= joint[k, j] * logarithm / channels
            # The change of J_kj by each pixel of p, and that of g_j.
            by_joint, by_share = w * of_y[:, k] * by_p[:, j], w * by_p[:, j]
            change = by_joint * (logarithm + joint[k, j] / of_both)
            change -= by_share * f[k] * joint[k, j] / of_each
            gradient[n, ..., c] -= (change / channels).reshape(p.shape[1:-1])
    return values, gradient
