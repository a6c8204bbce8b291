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
