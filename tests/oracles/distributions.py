"""Twins of `combined_losses.losses.distributions`."""

import math

import numpy as np

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


def gaussian_kl(y_true, y_pred):
    mean, s = np.split(np.float64(y_pred), 2, axis=-1)
    centre = np.clip(s, -20, 20)
    slope = np.expm1(centre)
    excess = slope - centre + slope * (s - centre)
    values = 0.5 * np.sum(mean**2 + excess, axis=-1)
    return values, np.concatenate([mean, slope / 2], axis=-1)
