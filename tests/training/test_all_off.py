"""A model whose parts all have weight 0 takes a step with gradient 0."""

import keras
import numpy as np
import pytest

import combined_losses as cl

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")

OFF = {
    "one": lambda: cl.CompositeLoss(["mse"], weights=[0.0]),
    "two": lambda: cl.CompositeLoss(["mse", "mae"], weights=[0.0, 0.0]),
    "nested": lambda: cl.CompositeLoss({"in": cl.CompositeLoss(["mse"], weights=[0.0])}),
    "outer": lambda: cl.CompositeLoss({"in": cl.CompositeLoss(["mse"])}, weights=[0.0]),
    "in a wrapper": lambda: cl.CompositeLoss(
        [cl.wrappers.Scaled(cl.CompositeLoss(["mse"], weights=[0.0]), 2.0)]
    ),
    "imposed": lambda: cl.CompositeLoss(["mse"], weights=[0.0], reduction="sum"),
}


def model_of(loss, build=cl.Sequential, **kwargs):
    model = build([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.5), loss=loss, **kwargs)
    return model


@pytest.mark.parametrize("build", [cl.Sequential, keras.Sequential])
@pytest.mark.parametrize("make", OFF.values(), ids=OFF)
def test_a_step_changes_nothing(make, build):
    model = model_of(make(), build)
    before = model.get_weights()
    history = model.fit(X, Y, batch_size=4, verbose=0).history
    assert history["loss"] == [0.0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_the_parts_are_seen():
    model = model_of(cl.CompositeLoss({"a": "mse"}, weights=[0.0]))
    expected = np.mean(np.square(model.predict(X, verbose=0) - Y))
    history = model.fit(X, Y, verbose=0).history
    assert history["a_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_regulariser_is_trained_alone():
    dense = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))
    model = cl.Sequential([keras.Input((3,)), dense])
    model.compile(keras.optimizers.SGD(0.5), loss=cl.CompositeLoss(["mse"], weights=[0.0]))
    before = model.get_weights()[0]
    model.fit(X, Y, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.9 * before, rtol=1e-5)


def test_parts_are_switched_on_in_a_second_phase():
    model = model_of(cl.CompositeLoss({"a": "mse"}, weights=[0.0]))
    model.fit(X, Y, verbose=0)
    model.loss.set_weight("a", 1.0)
    before = model.get_weights()[0]
    model.fit(X, Y, verbose=0)
    assert np.any(model.get_weights()[0] != before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_do_no_harm(bad):
    x = X.copy()
    x[0, 0] = bad
    model = model_of(cl.CompositeLoss(["mse"], weights=[0.0]))
    assert model.fit(x, Y, verbose=0).history["loss"] == [0.0]


def test_several_outputs():
    x = keras.Input((3,))
    model = cl.Model(x, [keras.layers.Dense(2, name=name)(x) for name in "ab"])
    off = {name: cl.CompositeLoss(["mse"], weights=[0.0]) for name in "ab"}
    model.compile("sgd", loss=off)
    assert model.fit(X, {"a": Y, "b": Y}, verbose=0).history["loss"] == [0.0]
    joint = cl.CompositeLoss({"a": cl.wrappers.OnOutput("mse", "a")}, weights=[0.0])
    model.compile("sgd", loss=joint)
    assert model.fit(X, {"a": Y, "b": Y}, verbose=0).history["loss"] == [0.0]
