"""In `fit` and `evaluate` a composite of one logs what its child is, batch by batch."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import KERAS_CHILDREN, value

WEIGHTS = np.array([2.0, 0.0, 0.5, 1.0, 3.0, 1.0, 0.0], "float32")
BATCH = 4  # of seven samples: the last batch is a partial one


def seven(array):
    return np.concatenate([array, array[[1, 3, 0]]])


def identity_model(shape, loss):
    """Predicts its input, and has a weight to train."""
    dense = keras.layers.Dense(shape[-1], use_bias=False, kernel_initializer="identity")
    model = cl.Sequential([keras.Input(shape), dense])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    return model


@pytest.mark.filterwarnings("ignore:In loss categorical:SyntaxWarning")
@pytest.mark.parametrize("name", KERAS_CHILDREN)
def test_every_loss_of_keras_in_fit_and_evaluate(name):
    child = KERAS_CHILDREN[name]
    y_true, y_pred = seven(child.y_true), seven(child.y_pred)
    batches = [slice(0, BATCH), slice(BATCH, 7)]
    expected = sum(
        len(y_true[b]) * value(child.make(), y_true[b], y_pred[b], WEIGHTS[b]) for b in batches
    ) / len(y_true)
    loss = cl.CompositeLoss({"a": child.make(), "twice": child.make()}, weights={"twice": 2.0})
    model = identity_model(y_pred.shape[1:], loss)
    kwargs = {"sample_weight": WEIGHTS, "batch_size": BATCH, "verbose": 0}
    history = model.fit(y_pred, y_true, shuffle=False, **kwargs).history
    logs = model.evaluate(y_pred, y_true, return_dict=True, **kwargs)
    for found in (logs, {key: values[0] for key, values in history.items()}):
        assert found["a_loss"] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert found["twice_loss"] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert found["loss"] == pytest.approx(3 * expected, rel=1e-5, abs=1e-6)
