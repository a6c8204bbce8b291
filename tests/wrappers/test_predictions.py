"""`StopGradient` and `Activated`: predictions changed on their way to the loss."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import Activated, OnSlice, StopGradient
from tests.composite.children import CHILDREN, WEIGHTS, Y_PRED, Y_TRUE, value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.training.tiny import arrays, line, mse, predictions, sgd
from tests.training.twin import sigmoid
from tests.wrappers.numpy_twins import (
    binary_crossentropy,
    categorical_crossentropy,
    check,
    close,
    normal,
    softmax,
    total,
)

STEPS = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)

# A quantity that is watched.


@pytest.mark.parametrize("kind", CHILDREN)
def test_what_is_watched_has_a_value_and_no_gradient(kind):
    child = CHILDREN[kind]
    loss = StopGradient(child())
    close(value(loss, Y_TRUE, Y_PRED), value(cl.CompositeLoss([child()]), Y_TRUE, Y_PRED))
    slope = gradient(lambda p: loss(Y_TRUE, p), Y_PRED)
    np.testing.assert_array_equal(slope, np.zeros_like(slope))


def test_the_others_keep_their_gradient():
    loss = cl.CompositeLoss({"mse": "mse", "mae": StopGradient("mae")}, {"mae": 3.0})
    slope = gradient(lambda p: loss(Y_TRUE, p), Y_PRED)
    close(slope, 2 * (Y_PRED - Y_TRUE) / Y_PRED.size)
    parts = loss.components(Y_TRUE, Y_PRED)
    close(parts["mae"], np.mean(np.abs(Y_TRUE - Y_PRED)))
    close(value(loss, Y_TRUE, Y_PRED), parts["mse"] + 3 * parts["mae"])


def test_training_does_not_see_what_is_watched():
    x, y = arrays()
    model = line()
    before, p = model.get_weights()[0], predictions(model, x)
    model.compile(sgd(0.1), loss=cl.CompositeLoss({"mse": "mse", "watched": StopGradient("mae")}))
    history = model.fit(x, y, batch_size=10, verbose=0).history
    close(model.get_weights()[0], before - 0.1 * 2 * x.T @ (p - y) / 10, 1e-4)
    assert history["watched_loss"] == pytest.approx([np.mean(np.abs(p - y))], rel=1e-5)
    assert history["loss"] == pytest.approx([mse(y, p) + np.mean(np.abs(p - y))], rel=1e-5)


def test_a_loss_whose_gradient_is_nan_may_be_watched():
    def never(y_true, y_pred):
        return keras.ops.mean(keras.ops.sqrt(y_pred * 0.0), axis=-1)

    loss = cl.CompositeLoss({"mse": "mse", "never": StopGradient(never)})
    close(gradient(lambda p: loss(Y_TRUE, p), Y_PRED), 2 * (Y_PRED - Y_TRUE) / Y_PRED.size)


# Activations.

NUMPY = {
    "sigmoid": sigmoid,
    "softmax": softmax,
    "tanh": np.tanh,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "exponential": np.exp,
}


@pytest.mark.parametrize("weight", [None, WEIGHTS, STEPS * 2.0], ids=["none", "(N,)", "(N, T)"])
@pytest.mark.parametrize("mask", [None, STEPS], ids=["no mask", "mask"])
@pytest.mark.parametrize("activation", NUMPY)
def test_the_loss_sees_what_the_activation_makes(activation, mask, weight):
    squared = total(lambda t, p: np.mean((t - NUMPY[activation](p)) ** 2, axis=-1), weight, mask)
    y_pred = normal(4, 3, 2, seed=3)
    check(Activated("mse", activation), squared, Y_TRUE, y_pred, weight, mask)


def test_probabilities_from_logits():
    """The loss that wants probabilities, and the one that takes logits itself."""
    logits, y_true = normal(4, 3, seed=1), np.eye(3, dtype="float32")[[0, 2, 1, 1]]
    loss = Activated("categorical_crossentropy", "softmax")
    expected = total(lambda t, p: categorical_crossentropy(t, softmax(p)), WEIGHTS)
    check(loss, expected, y_true, logits, WEIGHTS)
    own = keras.losses.CategoricalCrossentropy(from_logits=True)
    close(value(loss, y_true, logits), value(own, y_true, logits))
    binary = Activated("binary_crossentropy", "sigmoid")
    check(binary, total(lambda t, p: binary_crossentropy(t, sigmoid(p))), y_true, logits)


@keras.saving.register_keras_serializable("tests_predictions")
def cube(x):
    return x**3


def test_a_function_of_ones_own():
    loss = cl.CompositeLoss({"a": Activated("mse", cube)})
    y_pred = normal(4, 3, 2, seed=3)
    expected = np.mean((Y_TRUE - y_pred**3) ** 2)
    close(value(loss, Y_TRUE, y_pred), expected)
    close(value(cl.CompositeLoss.from_config(loss.get_config()), Y_TRUE, y_pred), expected)


@pytest.mark.parametrize("activation", ["softmax", keras.activations.softmax])
def test_an_activation_comes_back_from_the_config(activation):
    loss = Activated("mse", activation)
    loaded = Activated.from_config(loss.get_config())
    assert value(loaded, Y_TRUE, Y_PRED) == value(loss, Y_TRUE, Y_PRED)


def test_a_lambda_as_activation_trains_and_cannot_be_saved():
    loss = Activated("mse", lambda x: 2 * x)
    close(value(loss, Y_TRUE, Y_PRED), np.mean((Y_TRUE - 2 * Y_PRED) ** 2))
    with raises(ValueError, "lambda", "register", "(x): ..."):
        loss.get_config()


def test_an_activation_of_a_slice():
    """Two logits among numbers; the softmax is over the slice alone."""
    y_true, y_pred = normal(4, 5, seed=1), normal(4, 5, seed=2)
    inside = OnSlice(Activated("mse", "softmax"), np.s_[:, 3:])
    expected = total(lambda t, p: np.mean((t[:, 3:] - softmax(p[:, 3:])) ** 2, axis=-1))
    check(inside, expected, y_true, y_pred)
    outside = Activated(OnSlice("mse", np.s_[:, 3:]), "softmax")
    expected = total(lambda t, p: np.mean((t - softmax(p))[:, 3:] ** 2, axis=-1))
    check(outside, expected, y_true, y_pred)


def test_half_precision_is_activated_in_single():
    y_pred = normal(4, 3, 2, seed=3).astype("float16")
    loss = Activated("mse", "exponential")
    expected = np.mean((Y_TRUE - np.exp(y_pred.astype("float64"))) ** 2)
    close(value(loss, Y_TRUE, y_pred), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weights", "mask"])
@pytest.mark.parametrize("activation", ["softmax", "exponential", "sigmoid"])
def test_a_bad_prediction_that_does_not_count_does_no_harm(activation, where, bad):
    loss, y_pred = Activated("mse", activation), normal(4, 3, 2, seed=3)
    spoilt = y_pred.copy()
    spoilt[1] = bad

    def call(p):
        return (
            loss(Y_TRUE, p, WEIGHTS) if where == "weights" else loss(Y_TRUE, masked(p, WEIGHTS > 0))
        )

    close(keras.ops.convert_to_numpy(call(spoilt)), keras.ops.convert_to_numpy(call(y_pred)))
    close(gradient(call, spoilt), gradient(call, y_pred))


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["no_such_activation", 3])
def test_what_is_no_activation_is_an_error(bad):
    with raises(ValueError, "`activation` of Activated ('mse')", "'softmax'", f"Received: {bad!r}"):
        Activated("mse", bad)
