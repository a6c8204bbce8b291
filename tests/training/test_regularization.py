"""The losses that layers and models add: as one sum, and by layers where several have some."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")
L2 = keras.regularizers.L2


class Balance(keras.layers.Layer):
    """Adds a loss of its own, as a mixture of experts does."""

    def call(self, x):
        self.add_loss(ops.mean(ops.square(ops.mean(x, axis=0))))
        return x


def square(weight, factor):
    return factor * np.sum(np.square(weight))


def logs_of(model, x=X, y=Y, **kwargs):
    model.compile(keras.optimizers.SGD(0.0), loss=cl.CompositeLoss({"a": "mse"}))
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, **kwargs).history
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    for found in (logs, {key: values[0] for key, values in history.items()}):
        parts = [v for key, v in found.items() if key.startswith("regularization/")]
        total = found["a_loss"] + found.get("regularization_loss", 0.0)
        assert found["loss"] == pytest.approx(total, rel=1e-5)
        assert not parts or sum(parts) == pytest.approx(found["regularization_loss"], rel=1e-5)
    assert logs == pytest.approx({key: values[0] for key, values in history.items()}, rel=1e-5)
    assert model.metrics_names == list(logs)
    return logs


def layers_of(kind):
    first = keras.layers.Dense(4, kernel_regularizer=L2(0.1), name="first")
    head = keras.layers.Dense(2, name="head", kernel_regularizer=L2(0.01))
    balance = Balance(name="balance")
    return {
        "one": [first, keras.layers.Dense(2)],
        "two": [first, head],
        "three": [first, balance, head],
    }[kind]


def sequential(kind):
    return cl.Sequential([keras.Input((3,)), *layers_of(kind)])


def functional(kind):
    x = y = keras.Input((3,))
    for layer in layers_of(kind):
        y = layer(y)
    return cl.Model(x, y)


class Subclassed(cl.Model):
    def __init__(self, kind):
        super().__init__()
        self.parts = layers_of(kind)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


every_model = pytest.mark.parametrize("build", [sequential, functional, Subclassed])


@every_model
def test_one_layer_has_no_name(build):
    logs = logs_of(build("one"))
    assert list(logs) == ["loss", "a_loss", "regularization_loss"]


@every_model
def test_several_layers_have_names(build):
    model = build("two")
    logs = logs_of(model)
    first, head = (model.get_layer(name).kernel for name in ("first", "head"))
    expected = {
        "regularization/first_loss": square(ops.convert_to_numpy(first), 0.1),
        "regularization/head_loss": square(ops.convert_to_numpy(head), 0.01),
    }
    assert {key: logs[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert list(logs) == ["loss", "a_loss", "regularization_loss", *expected]


@every_model
def test_what_a_layer_adds_is_seen(build):
    model = build("three")
    logs = logs_of(model)
    hidden = X @ ops.convert_to_numpy(model.get_layer("first").kernel)
    means = [np.mean(np.square(hidden[b].mean(axis=0))) for b in (slice(0, 4), slice(4, 8))]
    assert logs["regularization/balance_loss"] == pytest.approx(np.mean(means), rel=1e-5)


def test_an_activity_regulariser():
    dense = keras.layers.Dense(4, activity_regularizer=L2(0.1), name="active")
    head = keras.layers.Dense(2, kernel_regularizer=L2(0.01), name="head")
    logs = logs_of(cl.Sequential([keras.Input((3,)), dense, head]))
    assert logs["regularization/active_loss"] > 0.0
    assert logs["regularization/head_loss"] > 0.0


def test_what_the_model_adds_by_itself():
    class Own(cl.Model):
        def __init__(self):
            super().__init__(name="own")
            self.head = keras.layers.Dense(2, kernel_regularizer=L2(0.01), name="head")

        def call(self, x):
            self.add_loss(0.25 * ops.mean(ops.square(x)))
            return self.head(x)

    logs = logs_of(Own())
    assert logs["regularization/own_loss"] == pytest.approx(0.25 * np.mean(X**2), rel=1e-5)
    assert "regularization/head_loss" in logs


def test_a_model_inside_another_is_one():
    inner = keras.Sequential([keras.Input((3,)), *layers_of("three")[:2]], name="inner")
    head = keras.layers.Dense(2, kernel_regularizer=L2(0.01), name="head")
    x = keras.Input((3,))
    logs = logs_of(cl.Model(x, head(inner(x))))
    assert {"regularization/inner_loss", "regularization/head_loss"} <= set(logs)


def test_in_validation():
    model = sequential("two")
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert "val_regularization/first_loss" in history
    assert "val_regularization/head_loss" in history
