"""A small problem, and searches of it that take a second or two."""

import math

import keras
import numpy as np
from keras import ops

import combined_losses as cl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = (X.sum(axis=1, keepdims=True) + RNG.normal(size=(48, 1))).astype("float32")


def model_of(loss, metrics=("mae",)):
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=list(metrics))
    return model


def build():
    return model_of(cl.CompositeLoss({"fit": "mse", "under": cl.losses.UnderestimationPenalty()}))


def fit(**kwargs):
    """The arguments of a short training, and of a search in memory that prints nothing."""
    quick = {"epochs": 2, "batch_size": 24, "storage": None, "verbose": 0, "validation": 0.25}
    return {**quick, **kwargs}


def search(make=build, **kwargs):
    given = {
        "parameters": {"under": (0.01, 10.0)},
        "objectives": "val_mae:min",
        "trials": 2,
        "seeds": 1,
        "confirm": 0,
    }
    data = kwargs.pop("data", (X, Y))
    return cl.search(make, data, **fit(**{**given, **kwargs}))


@keras.saving.register_keras_serializable("tests")
class NotFinite(cl.losses.Loss):
    """A loss that is NaN."""

    def call(self, y_true, y_pred):
        return ops.mean(y_pred - y_true, axis=-1) * math.nan
