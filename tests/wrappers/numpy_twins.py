"""Losses and wrappers in float64 NumPy, and the check of value and gradient against them.

A *total* is a function `(y_true, y_pred) -> number`; what a wrapper does is a function from total
to total. Nothing here calls the package but `check`.
"""

import functools

import numpy as np

from tests.composite.children import WEIGHTS, value
from tests.gradients import gradient
from tests.masks import masked
from tests.training.twin import reduce

EPSILON = 1e-7  # of Keras, where probabilities are clipped


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def uniform(*shape, seed, low=0.1, high=0.9):
    return np.random.default_rng(seed).uniform(low, high, shape).astype("float32")


# Values of losses: `(y_true, y_pred) -> values`.


def mse(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2, axis=-1)


def mae(y_true, y_pred):
    return np.mean(np.abs(y_true - y_pred), axis=-1)


def binary_crossentropy(y_true, y_pred):
    return np.mean(-y_true * np.log(y_pred) - (1 - y_true) * np.log(1 - y_pred), axis=-1)


def softmax(logits):
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def categorical_crossentropy(y_true, y_pred):
    return -np.sum(y_true * np.log(y_pred / y_pred.sum(axis=-1, keepdims=True)), axis=-1)


def softmax_crossentropy(y_true, logits):
    return -np.sum(y_true * np.log(softmax(logits)), axis=-1)


def cosine_similarity(y_true, y_pred):
    lengths = np.linalg.norm(y_true, axis=-1) * np.linalg.norm(y_pred, axis=-1)
    return -np.sum(y_true * y_pred, axis=-1) / lengths


def total(values, weight=None, mask=None, reduction="sum_over_batch_size"):
    """The total of a loss given by its values."""
    return lambda y_true, y_pred: reduce(values(y_true, y_pred), weight, mask, reduction)


# What is seen.


def block_means(array, side):
    """The means over blocks of `side` along all axes but the first and the last."""
    array = np.asarray(array, "float64")
    for axis in range(1, array.ndim - 1):
        count = array.shape[axis] // side
        array = np.take(array, range(count * side), axis)
        split = (*array.shape[:axis], count, side, *array.shape[axis + 1 :])
        array = array.reshape(split).mean(axis + 1)
    return array


def channels(array, axis=-1):
    """Each channel with its axis kept."""
    return np.split(array, array.shape[axis], axis)


# The check.


def slope_of(function, x):
    """Central differences in float64, element by element."""
    x, slope, step = np.array(x, "float64"), np.zeros(np.shape(x)), 1e-6
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        slope[index] = (function(ahead) - function(behind)) / (2 * step)
    return slope


def close(actual, expected, rtol=2e-5, atol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def check(loss, expected, y_true, y_pred, weight=None, mask=None, slopes=True):
    """`loss` has the value of the total `expected`, and its gradient.

    The gradient is checked without weights and mask, and with both: each one takes a compilation.
    """
    slopes = slopes and (weight is None) == (mask is None)
    data = () if weight is None else (weight,)

    def put(p):
        return p if mask is None else masked(p, mask)

    twin = functools.partial(expected, np.asarray(y_true, "float64"))
    close(value(loss, y_true, put(y_pred), *data), twin(np.asarray(y_pred, "float64")))
    if slopes:
        close(gradient(lambda p: loss(y_true, put(p), *data), y_pred), slope_of(twin, y_pred), 1e-4)


# Sample weights and masks of a batch of four samples and five steps.

STEP_WEIGHTS = uniform(4, 5, seed=7)
STEPS = np.random.default_rng(3).random((4, 5)) < 0.7
SEEN = {
    "plain": (None, None),
    "weights": (WEIGHTS, None),
    "weights of steps": (STEP_WEIGHTS, None),
    "mask": (None, STEPS),
    "weights and mask": (WEIGHTS, STEPS),
}
