"""Keras's old format: a plain Keras model comes back, with the composite and the same numbers.

Training goes on only after another `compile`: Keras 3.15.1 builds the optimizer of such a file for
other variables, with losses of its own too.
"""

import warnings

import keras
import numpy as np
import pytest

import combined_losses as cl

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def sequential(**kwargs):
    dense = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))
    model = cl.Sequential([keras.Input((3,)), dense])
    model.compile("adam", **kwargs)
    return model


def functional(**kwargs):
    x = keras.Input((3,))
    dense = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))
    model = cl.Model(x, dense(x))
    model.compile("adam", **kwargs)
    return model


def tracked(**kwargs):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model = cl.track(plain)
    model.compile("adam", **kwargs)
    return model


every_model = pytest.mark.parametrize("make", [sequential, functional, tracked])


def composite():
    inner = cl.CompositeLoss({"huber": keras.losses.Huber(0.1)}, weights=[3.0])
    children = {"mse": "mse", "inner": inner, "own": cl.losses.Pinball(0.9)}
    return cl.CompositeLoss(children, {"mse": 0.5}, name="total")


def reloaded(model, tmp_path):
    path = tmp_path / "model.h5"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*legacy.*")
        model.save(path)
    return keras.models.load_model(path)


@pytest.mark.parametrize("loss_weights", [None, 0.25])
@every_model
def test_the_same_loss_comes_back(make, loss_weights, tmp_path):
    model = make(loss=composite(), loss_weights=loss_weights)
    model.fit(X, Y, verbose=0)
    model.loss.set_weight("mse", 0.125)
    model.loss.set_weight("inner/huber", 7.0)
    again = reloaded(model, tmp_path)
    assert not isinstance(again, cl.ComponentMetricsMixin)
    assert again.loss.weights == model.loss.weights
    assert again.loss.losses["inner"].weights == {"huber": 7.0}
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    found = again.evaluate(X, Y, verbose=0)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


def test_model_checkpoint(tmp_path):
    path = tmp_path / "best.h5"
    best = keras.callbacks.ModelCheckpoint(path, monitor="loss", mode="min", save_best_only=True)
    model = sequential(loss=composite())
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[best])
    again = keras.models.load_model(path)
    assert again.loss.names == ("mse", "inner", "own")


def test_losses_beside_a_composite(tmp_path):
    x = keras.Input((3,))
    model = cl.Model(x, [keras.layers.Dense(2, name=name)(x) for name in "ab"])
    loss = {"a": cl.CompositeLoss(["mse"]), "b": keras.losses.Huber(0.1)}
    model.compile("sgd", loss=loss, loss_weights={"a": 0.5, "b": 2.0})
    again = reloaded(model, tmp_path)
    y = {"a": Y, "b": Y}
    expected = model.evaluate(X, y, verbose=0, return_dict=True)["loss"]
    assert again.evaluate(X, y, verbose=0, return_dict=True)["loss"] == pytest.approx(
        expected, 1e-5
    )


def make():
    return cl.CompositeLoss({"mse": "mse", "h": keras.losses.Huber(0.3)}, {"h": 0.5})


SEVERAL = {
    "partial weights": lambda: (make(), {"a": 0.3}),
    "a list of weights": lambda: (make(), [0.3, 2.0]),
    "a dict of weights": lambda: (make(), {"a": 0.3, "b": 2.0}),
    "losses and partial weights": lambda: ({"a": make(), "b": make()}, {"b": 0.3}),
    "one loss": lambda: ({"a": make()}, None),
    "none": lambda: ([make(), None], None),
    "a string": lambda: ([make(), "mae"], None),
    "a list of losses": lambda: ({"a": make(), "b": ["mse", "mae"]}, {"b": 3.0}),
}


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("case", SEVERAL)
def test_losses_of_several_outputs(case, structure, tmp_path):
    """In the old format each output gets its loss and its weight written out."""
    x = keras.Input((3,))
    outputs = {name: keras.layers.Dense(2, name=name)(x) for name in "ba"}
    model = cl.Model(x, outputs if structure is dict else [outputs["a"], outputs["b"]])
    loss, loss_weights = SEVERAL[case]()
    if structure is dict and isinstance(loss, list):
        loss = dict(zip("ab", loss, strict=True))
    model.compile("sgd", loss=loss, loss_weights=loss_weights)
    y = {"a": Y, "b": -Y} if structure is dict else [Y, -Y]
    expected = model.evaluate(X, y, verbose=0, return_dict=True)["loss"]
    found = reloaded(model, tmp_path).evaluate(X, y, verbose=0)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_the_single_output(tmp_path):
    model = sequential(loss=[make()], loss_weights=[0.3])
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    found = reloaded(model, tmp_path).evaluate(X, Y, verbose=0)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


def test_what_is_lost_is_said(tmp_path):
    for loss in (
        cl.CompositeLoss(["mse"], weighting=cl.weightings.UncertaintyWeighting(), name="total"),
        cl.CompositeLoss(["mse"], weights=[cl.weightings.LinearRamp(5)], name="total"),
    ):
        model = sequential(loss=loss)
        with pytest.warns(UserWarning, match="does not keep all of 'total'.*the state.*'.keras'"):
            model.save(tmp_path / "model.h5")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.save(tmp_path / "model.keras")


def test_a_joint_composite_is_lost(tmp_path):
    x = keras.Input((3,))
    model = cl.Model(x, [keras.layers.Dense(2, name=name)(x) for name in "ab"])
    model.compile("sgd", loss=cl.CompositeLoss({"a": cl.wrappers.OnOutput("mse", "a")}))
    with pytest.warns(UserWarning, match="choice among the outputs.*'.keras'"):
        model.save(tmp_path / "model.h5")


def test_without_a_composite_nothing_changes(tmp_path):
    model = sequential(loss=keras.losses.MeanSquaredError())
    again = reloaded(model, tmp_path)
    expected = model.evaluate(X, Y, verbose=0)
    assert again.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-6)
