"""Losses to compose and data for them, shared by the tests of `CompositeLoss`."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

import combined_losses as cl

SCALAR_REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
REDUCTIONS = [*SCALAR_REDUCTIONS, "none"]  # and None, which is "none"
WEIGHTS = np.array([2.0, 0.0, 0.5, 1.0], "float32")


def uniform(*shape, seed=0, low=0.1, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype("float32")


def value(loss, *data):
    """`loss(y_true, y_pred[, sample_weight])` as a NumPy array."""
    return ops.convert_to_numpy(loss(*data))


# A batch of 4 sequences of 3 steps with 2 features, positive and below 1.
Y_TRUE, Y_PRED = uniform(4, 3, 2, seed=1), uniform(4, 3, 2, seed=2)


@keras.saving.register_keras_serializable("tests")
def log_ratio(y_true, y_pred):
    """A user's function; infinite with an infinite slope at a prediction of 0."""
    return ops.mean(ops.abs(ops.log(y_pred) - ops.log(y_true)), axis=-1)


@keras.saving.register_keras_serializable("tests")
class SquaredError(keras.losses.Loss):
    """A user's loss, derived from Keras's base class."""

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("tests")
class BatchScalar(keras.losses.Loss):
    """A user's loss that reduces the batch by itself."""

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred))


def squared_error(y_true, y_pred, axis=-1):
    return ops.mean(ops.square(y_true - y_pred), axis=axis)


# One of every kind that a component can be. Values of shape (4, 3), of the last (4,).
CHILDREN = {
    "keras": keras.losses.MeanAbsolutePercentageError,
    "string": lambda: "mae",
    "function": lambda: log_ratio,
    "subclass": SquaredError,
    "own": lambda: cl.losses.AsymmetricError(3.0, 0.5, 1.5),
    "nested": lambda: cl.CompositeLoss(["mse", log_ratio], weights=[2.0, 0.5]),
    "field": lambda: cl.losses.BoundaryDisagreement(axes=(1,)),
}


@dataclasses.dataclass(frozen=True)
class KerasChild:
    """A loss of Keras and a batch of 4 for it."""

    make: Callable[..., keras.losses.Loss]
    y_true: np.ndarray
    y_pred: np.ndarray


def _classes_of_keras():
    found = {name: getattr(keras.losses, name) for name in dir(keras.losses)}
    losses = {n: c for n, c in found.items() if isinstance(c, type)}
    return {n: c for n, c in losses.items() if c is not keras.losses.Loss}


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


KERAS_CLASSES = _classes_of_keras()
_NUMBERS = uniform(4, 3, seed=3), uniform(4, 3, seed=4)
_ONE_HOT = np.eye(3, dtype="float32")[[0, 2, 1, 1]], uniform(4, 3, seed=5) / 3
_LABELS = np.array([0, 2, 1, 1]), _ONE_HOT[1]
_SIGNS = np.sign(uniform(4, 3, seed=6, low=-1.0)), uniform(4, 3, seed=7, low=-1.0)
_SPOKEN = np.array([[1, 2, 1], [2, 1, 2], [1, 2, 0], [2, 0, 0]]), uniform(4, 3, 4, seed=8)
_EMBEDDED = np.array([0, 0, 2, 2]), _unit(uniform(4, 3, seed=9, low=-1.0))

_DATA = {
    "BinaryCrossentropy": _ONE_HOT,
    "BinaryFocalCrossentropy": _ONE_HOT,
    "CTC": _SPOKEN,
    "CategoricalCrossentropy": _ONE_HOT,
    "CategoricalFocalCrossentropy": _ONE_HOT,
    "CategoricalGeneralizedCrossEntropy": _LABELS,
    "CategoricalHinge": _ONE_HOT,
    "Circle": _EMBEDDED,
    "CosineSimilarity": _NUMBERS,
    "Dice": _ONE_HOT,
    "Hinge": _SIGNS,
    "Huber": _NUMBERS,
    "KLDivergence": _NUMBERS,
    "LogCosh": _NUMBERS,
    "MeanAbsoluteError": _NUMBERS,
    "MeanAbsolutePercentageError": _NUMBERS,
    "MeanSquaredError": _NUMBERS,
    "MeanSquaredLogarithmicError": _NUMBERS,
    "Poisson": _NUMBERS,
    "SparseCategoricalCrossentropy": _LABELS,
    "SquaredHinge": _SIGNS,
    "Tversky": _ONE_HOT,
}
WITHOUT_DATA = sorted(set(KERAS_CLASSES) - set(_DATA))
LABEL_CLASSES = ("CTC", "CategoricalGeneralizedCrossEntropy", "Circle")
# With their default axis these give one number for the batch; with axis=1 one for each sample.
SCALAR_CLASSES = ("Dice", "Tversky")


def _per_sample(cls):
    return lambda **kwargs: cls(axis=1, **kwargs)


KERAS_CHILDREN = {
    name: KerasChild(_per_sample(cls) if name in SCALAR_CLASSES else cls, *_DATA[name])
    for name, cls in KERAS_CLASSES.items()
    if name in _DATA
}
SCALAR_CHILDREN = {name: KerasChild(KERAS_CLASSES[name], *_DATA[name]) for name in SCALAR_CLASSES}
