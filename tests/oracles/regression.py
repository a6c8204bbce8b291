"""Twins of `combined_losses.losses.regression`."""

import numpy as np


def asymmetric_error(y_true, y_pred, under_weight=2.0, over_weight=1.0, power=2.0):
    error = np.float64(y_true) - np.float64(y_pred)
    under, over = np.maximum(error, 0), np.maximum(-error, 0)
    values = np.mean(under_weight * under**power + over_weight * over**power, axis=-1)
    # d under^p / d y_pred = -p under^(p - 1) where under > 0, d over^p / d y_pred = p over^(p - 1)
    slope_under = np.where(under > 0, under ** (power - 1), 0)
    slope_over = np.where(over > 0, over ** (power - 1), 0)
    gradient = power * (over_weight * slope_over - under_weight * slope_under)
    return values, gradient / y_pred.shape[-1]


def underestimation_penalty(y_true, y_pred, weight=2.0):
    values = np.zeros(y_pred.shape[:-1])
    gradient = np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        missing = np.float64(y_true[index]) - np.float64(y_pred[index])
        if missing > 0:
            values[index[:-1]] += weight * missing / elements
            gradient[index] = -weight / elements
    return values, gradient


def pinball(y_true, y_pred, quantile=0.5, parts=False):
    """Element by element; of several quantiles, number k prices column k against one target."""
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    columns = y_pred.shape[-1]
    for *row, column in np.ndindex(*y_pred.shape):
        q = quantile[column] if isinstance(quantile, list) else quantile
        target = y_true[*row, 0 if isinstance(quantile, list) else column]
        error = np.float64(target) - np.float64(y_pred[*row, column])
        values[*row] += (q * error if error > 0 else (q - 1) * error) / columns
        gradient[*row, column] = (-q if error > 0 else 1 - q if error < 0 else 0) / columns
    return values, gradient


def quantile_crps(y_true, y_pred, quantiles):
    """Each level counts as much as the levels that are nearer to it than to any other."""
    grid = (np.arange(200000) + 0.5) / 200000
    nearest = np.argmin(np.abs(grid[:, None] - np.array(quantiles)), axis=1)
    widths = np.bincount(nearest, minlength=len(quantiles)) / len(grid)
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for k, q in enumerate(quantiles):
        value, slope = pinball(
            np.reshape(y_true, y_pred.shape[:-1])[..., None], y_pred[..., k : k + 1], q
        )
        values += 2 * widths[k] * value
        gradient[..., k] = 2 * widths[k] * slope[..., 0]
    return values, gradient


def expectile(y_true, y_pred, expectile=0.5):
    """|t - 1[e < 0]| e^2, as Newey & Powell write it."""
    error = np.float64(y_true) - np.float64(y_pred)
    price = np.abs(expectile - (error < 0))
    return np.mean(price * error**2, axis=-1), -2 * price * error / error.shape[-1]


def linex(y_true, y_pred, sharpness=1.0):
    """In longdouble, which keeps enough digits of exp(u) - 1 - u without a series."""
    u = sharpness * (np.longdouble(y_true) - np.longdouble(y_pred))
    centre = np.clip(u, -20, 20)
    slope = np.exp(centre) - 1
    values = slope - centre + slope * (u - centre)
    gradient = -2 / np.longdouble(sharpness) * slope / u.shape[-1]
    mean = np.mean(2 / np.longdouble(sharpness) ** 2 * values, axis=-1)
    return np.float64(mean), np.float64(gradient)


def charbonnier(y_true, y_pred, epsilon=1e-3):
    error = np.float64(y_true) - np.float64(y_pred)
    root = np.hypot(error, epsilon)
    return np.mean(root, axis=-1), -error / root / error.shape[-1]
