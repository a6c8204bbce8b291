"""Tiny models and data whose losses NumPy can tell."""

import keras
import numpy as np

import combined_losses as cl

FROZEN = 0.0  # a learning rate


def arrays(samples=10, features=3, outputs=1, seed=0):
    """`x` and `y` of one regression problem."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features)).astype("float32")
    y = rng.normal(size=(samples, outputs)).astype("float32")
    return x, y


def line(cls=cl.Sequential, features=3, outputs=1, seed=0, **dense):
    """A linear model of one layer; the same weights for the same seed."""
    kernel = np.random.default_rng(1000 + seed).normal(size=(features, outputs)).astype("float32")
    dense = {"kernel_initializer": keras.initializers.Constant(kernel), **dense}
    return cls([keras.Input((features,)), keras.layers.Dense(outputs, **dense)])


def two_heads(cls=cl.Model, structure=list, features=3, seed=0):
    """A model of the outputs `a` and `b`, each `(N, 1)`; a plain one has the same weights."""
    inputs = keras.Input((features,))
    heads = {}
    for index, name in enumerate("ab"):
        kernel = np.random.default_rng([seed, index]).normal(size=(features, 1)).astype("float32")
        initializer = keras.initializers.Constant(kernel)
        heads[name] = keras.layers.Dense(1, kernel_initializer=initializer, name=name)(inputs)
    return cls(inputs, heads if structure is dict else structure(heads.values()))


def predictions(model, x):
    """What the linear model predicts, in float64."""
    kernel, bias = (keras.ops.convert_to_numpy(w).astype("float64") for w in model.weights[:2])
    return x.astype("float64") @ kernel + bias


def mse(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2)


def mae(y_true, y_pred):
    return np.mean(np.abs(y_true - y_pred))


def sgd(learning_rate=0.1):
    return keras.optimizers.SGD(learning_rate)


def weights_of(model):
    """A copy of the model's weights, all in one vector."""
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])
