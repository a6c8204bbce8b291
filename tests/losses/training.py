"""How a loss is trained in the tests `test_training*.py`."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl


def rows(table):
    return pytest.mark.parametrize("key", table)


def name_in(key):
    return key.replace(",", " ").split()[0]


def make(key, arguments):
    return getattr(cl.losses, name_in(key))(**arguments)


def train(model, loss, x, y, epochs=6):
    """Fits in full batches, ten to an epoch; what the model predicts before and after."""
    keras.utils.set_random_seed(0)
    start(model)
    model.compile(keras.optimizers.Adam(0.02), loss=loss)
    before = predicted(model, x)
    # An epoch of one step would cost TensorFlow ten times the step.
    steps = [np.concatenate([array] * 10) for array in (x, y)]
    options = {"batch_size": len(x), "shuffle": False, "verbose": 0}
    history = model.fit(*steps, epochs=epochs, **options).history
    assert set(history) == {
        "loss",
        *(f"{name}_loss" for name in getattr(loss, "component_names", ())),
    }
    assert all(np.all(np.isfinite(values)) for values in history.values())
    assert history["loss"][-1] < history["loss"][0]
    return before, predicted(model, x)


def start(model, seed=0):
    """The same weights on every backend: a variance of 1 / inputs, and biases of 0."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            kernel = rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
            weight.assign(kernel.astype("float32"))


def predicted(model, x):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x))
