"""Twins of `combined_losses.losses.distributions`."""

import math

import numpy as np
from scipy import special

_erf = np.vectorize(math.erf)


def linexp(u):
    """exp, above 20 its tangent; and the derivative."""
    slope = np.exp(np.minimum(u, 20))
    return np.where(u > 20, slope * (1 + u - 20), slope), slope


def halves(y_true, y_pred):
    """Error and log-variance, in float64; a target `(...)` has D = 1."""
    mean, log_variance = np.split(np.float64(y_pred), 2, axis=-1)
    return np.float64(y_true).reshape(mean.shape) - mean, log_variance


def mean_and_gradient(values, by_mean, by_log_variance):
    """The mean over D, and the two halves of the gradient of it, side by side."""
    gradient = np.concatenate([by_mean, by_log_variance], axis=-1) / values.shape[-1]
    return values.mean(axis=-1), gradient


def beta_nll(y_true, y_pred, beta=0.5):
    error, s = halves(y_true, y_pred)
    precision, by_minus_s = linexp(-s)
    weight, _ = linexp(beta * s)  # a constant of the gradient
    values = weight * 0.5 * (s + error**2 * precision)
    by_log_variance = weight * 0.5 * (1 - error**2 * by_minus_s)
    return mean_and_gradient(values, -weight * error * precision, by_log_variance)


def gaussian_nll(y_true, y_pred):
    return beta_nll(y_true, y_pred, beta=0.0)


def gaussian_crps(y_true, y_pred):
    """With d CRPS / d m = -erf(w / sqrt 2) and d CRPS / d sigma = 2 phi(w) - 1 / sqrt pi."""
    error, s = halves(y_true, y_pred)
    sigma, slope = linexp(np.maximum(s, -40) / 2)
    w = error / sigma
    by_sigma = 2 * np.exp(-(w**2) / 2) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    values = error * _erf(w / math.sqrt(2)) + sigma * by_sigma
    by_log_variance = np.where(s < -40, 0, by_sigma * slope / 2)
    return mean_and_gradient(values, -_erf(w / math.sqrt(2)), by_log_variance)


def gaussian_kl(y_true, y_pred, free_bits=0.0, over="sample", sample_weight=None):
    """Dimension by dimension; the weights of rows act in the mean over the batch."""
    mean, s = np.split(np.float64(y_pred), 2, axis=-1)
    centre = np.clip(s, -20, 20)
    slope = np.expm1(centre)
    each = 0.5 * (mean**2 + slope - centre + slope * (s - centre))
    used = each
    if over == "batch":
        weight = np.ones(len(each)) if sample_weight is None else np.float64(sample_weight)
        weight = np.broadcast_to(weight.reshape(-1, *[1] * (each.ndim - 1)), each.shape)
        used = np.average(each, weights=weight, axis=tuple(range(each.ndim - 1)))
        used = np.broadcast_to(used, each.shape)
    free = (used <= free_bits) & (free_bits > 0)
    values = np.where(free, free_bits, each).sum(axis=-1)
    by_mean, by_s = (np.where(free, 0, part) for part in (mean, slope / 2))
    return values, np.concatenate([by_mean, by_s], axis=-1)


def ensemble_crps(y_true, y_pred, fair=True):
    """All pairs, by loops."""
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    size = y_pred.shape[-1]
    targets = np.float64(y_true).reshape(y_pred.shape[:-1])
    for row in np.ndindex(*y_pred.shape[:-1]):
        x, y = np.float64(y_pred[row]), targets[row]
        pairs = 2 * size * (size - 1) if fair else 2 * size**2
        values[row] = np.mean(np.abs(x - y)) - sum(abs(a - b) for a in x for b in x) / pairs
        for i in range(size):
            spread = sum(np.sign(x[i] - b) for b in x) * 2 / pairs
            gradient[row][i] = np.sign(x[i] - y) / size - spread
    return values, gradient


def energy_score(y_true, y_pred, beta=1.0, fair=True):
    size, targets = y_pred.shape[-2], np.float64(y_true)

    def values_of(y_pred):
        found = np.zeros(y_pred.shape[:-2])
        for row in np.ndindex(*found.shape):
            x, y = y_pred[row], targets[row]
            pairs = 2 * size * (size - 1) if fair else 2 * size**2
            between = sum(np.linalg.norm(a - b) ** beta for a in x for b in x)
            found[row] = np.mean([np.linalg.norm(a - y) ** beta for a in x]) - between / pairs
        return found

    return by_differences(values_of, y_pred)


def laplace_nll(y_true, y_pred):
    error, s = halves(y_true, y_pred)
    inverse, slope = linexp(-s)
    by_centre, by_s = -np.sign(error) * inverse, 1 - np.abs(error) * slope
    return mean_and_gradient(s + np.abs(error) * inverse, by_centre, by_s)


def student_t_nll(y_true, y_pred, df=3.0):
    error, s = halves(y_true, y_pred)
    inverse, slope = linexp(-s)
    square = (error * inverse) ** 2 / df
    values = s + (df + 1) / 2 * np.log1p(square)
    pull = (df + 1) / (1 + square) / df * error * inverse
    return mean_and_gradient(values, -pull * inverse, 1 - pull * error * slope)


def log_normal_nll(y_true, y_pred, epsilon=1e-7):
    log = np.log(np.maximum(np.float64(y_true), epsilon))
    values, gradient = gaussian_nll(log, y_pred)
    return values + log.reshape(halves(log, y_pred)[0].shape).mean(axis=-1), gradient


def negative_binomial_nll(y_true, y_pred):
    """By the log-gammas of scipy, in float64, where the sizes are small enough for them."""
    m, a = np.split(np.float64(y_pred), 2, axis=-1)
    y = np.float64(y_true).reshape(m.shape)
    mu, r = np.exp(m), np.exp(a)
    values = special.gammaln(y + 1) - special.gammaln(r + y) + special.gammaln(r)
    values += r * np.log1p(mu / r) + y * np.log1p(r / mu)
    by_m = r * (mu - y) / (r + mu)
    by_a = r * (special.digamma(r) - special.digamma(r + y) + np.log1p(mu / r))
    return mean_and_gradient(values, by_m, by_a + r * (y - mu) / (r + mu))


def by_differences(values_of, y_pred, step=1e-5):
    """The values, and the gradient of their sum by central differences in float64."""
    y_pred = np.float64(y_pred)
    gradient = np.zeros(y_pred.shape)
    for index in np.ndindex(*y_pred.shape):
        moved = y_pred.copy()
        moved[index] += step
        above = values_of(moved).sum()
        moved[index] -= 2 * step
        gradient[index] = (above - values_of(moved).sum()) / (2 * step)
    return values_of(y_pred), gradient


def mixture_nll(y_true, y_pred, components=3):
    """Row by row and component by component, from the densities."""
    k = components
    size = (y_pred.shape[-1] - k) // (2 * k)
    targets = np.float64(y_true).reshape(-1, size)

    def values_of(y_pred):
        found = []
        for y, p in zip(targets, y_pred.reshape(-1, y_pred.shape[-1]), strict=True):
            shares = np.exp(p[:k] - p[:k].max())
            shares /= shares.sum()
            density = 0.0
            for c in range(k):
                m, s = (p[at + c * size : at + (c + 1) * size] for at in (k, k + k * size))
                density += shares[c] * np.exp(-0.5 * np.sum(s + (y - m) ** 2 * linexp(-s)[0]))
            found.append(-np.log(density) / size)
        return np.reshape(found, y_pred.shape[:-1])

    return by_differences(values_of, y_pred)
