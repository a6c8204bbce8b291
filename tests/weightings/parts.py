"""Models whose components have the values that a test gives them, step by step."""

import keras
import numpy as np
from keras import ops

import combined_losses as cl


def part(index):
    """A component with the value of one column of the targets."""

    def value(y_true, y_pred):
        return y_true[:, index] + 0.0 * y_pred[:, index]

    return value


def parts(k):
    return {f"part{index}": part(index) for index in range(k)}


def model_of_parts(k, weights=None, weighting=None, optimizer=None, **compiled):
    """A composite of `k` parts, and a tracked model that trains on it."""
    loss = cl.CompositeLoss(parts(k), weights=weights, weighting=weighting)
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(k)])
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss=loss, **compiled)
    return loss, model


def log_of_steps(model, values, train=True):
    """What the logs say of each step, `{key: (steps,)}`, when the components have `values`."""
    step = model.train_on_batch if train else model.test_on_batch
    rows = []
    for row in values:
        model.reset_metrics()  # else they are means over the steps so far
        x, y = np.ones((1, 1), "float32"), np.asarray(row, "float32")[None]
        rows.append(step(x, y, return_dict=True))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def frozen(model):
    """A copy of the weights of the layer."""
    found = model.layers[-1].trainable_variables
    return np.concatenate([np.ravel(ops.convert_to_numpy(v.value)) for v in found])
