"""Tensors as frameworks have them: variables, and arrays of which TensorFlow knows no rank."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import uniform, value
from tests.contracts.registry import CASES
from tests.messages import raises

pytestmark = pytest.mark.depends_on_version

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has them"
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_a_variable_as_prediction_and_target(case):
    loss = cl.CompositeLoss([case.make()])
    expected = value(loss, case.y_true, case.y_pred)
    y_true = case.y_true
    if np.asarray(y_true).dtype.kind == "f":
        y_true = keras.Variable(y_true, dtype="float32")
    found = value(loss, y_true, keras.Variable(case.y_pred, dtype="float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_a_variable_of_tensorflow_is_trained(case):
    import tensorflow as tf

    loss, variable = cl.CompositeLoss([case.make()]), tf.Variable(case.y_pred)
    with tf.GradientTape() as tape:
        found = loss(case.y_true, variable)
    tensor = tf.constant(case.y_pred)
    with tf.GradientTape() as other:
        other.watch(tensor)
        expected = loss(case.y_true, tensor)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    slope = tape.gradient(found, variable)
    np.testing.assert_allclose(slope, other.gradient(expected, tensor), rtol=1e-5, atol=1e-7)


def without_rank(array):
    import tensorflow as tf

    return tf.numpy_function(lambda a: a, [array], tf.float32)


@on_tensorflow
@pytest.mark.parametrize("what", ["y_true", "sample_weight"])
def test_an_array_of_unknown_rank_in_a_data_set(what):
    import tensorflow as tf

    def spoilt(x, y, w):
        return x, *((without_rank(y), w) if what == "y_true" else (y, without_rank(w)))

    data = (uniform(8, 3), uniform(8, 1, seed=1), uniform(8, seed=2))
    whole = tf.data.Dataset.from_tensor_slices(data).batch(4)
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss(["mse"], name="total"))
    said = (f"`{what}` of 'total'", "known number of axes", "set_shape", "unknown rank")
    for act in (model.evaluate, model.fit):
        with raises(ValueError, *said):
            act(whole.map(spoilt), verbose=0, **({"shuffle": False} if act == model.fit else {}))

    def cured(x, y, w):
        x, y, w = spoilt(x, y, w)
        return x, tf.ensure_shape(y, (None, 1)), tf.ensure_shape(w, (None,))

    again = model.evaluate(whole.map(cured), verbose=0)
    assert again == pytest.approx(model.evaluate(whole, verbose=0), rel=1e-6)


@on_tensorflow
@pytest.mark.parametrize("loss", [cl.CompositeLoss(["mse"]), cl.losses.Expectile()])
def test_predictions_of_unknown_rank(loss):
    import tensorflow as tf

    @tf.function
    def call(y_true, y_pred):
        return loss(y_true, without_rank(y_pred))

    with raises(ValueError, f"`y_pred` of '{loss.name}'", "known number of axes"):
        call(ops.array(uniform(4, 1)), ops.array(uniform(4, 1)))
