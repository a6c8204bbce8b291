"""Mistakes in `compile` beside a composite: objects that are no losses, and weights of outputs."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.messages import raises

X, Y = np.ones((6, 3), "float32"), np.ones((6, 2), "float32")


class OfTensor(cl.Model):
    """A model without a name for its output."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, kernel_initializer="zeros")

    def call(self, x):
        return self.dense(x)


class OfDict(OfTensor):
    def call(self, x):
        return {"o": self.dense(x)}


def sequential():
    return cl.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])


def functional():
    x = keras.Input((3,))
    return cl.Model(x, keras.layers.Dense(2, name="head")(x))


def tracked():
    return cl.track(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")]))


every_model = pytest.mark.parametrize("make", [sequential, functional, tracked, OfTensor, OfDict])
named_model = pytest.mark.parametrize("make", [sequential, functional, tracked])


@pytest.mark.parametrize("loss", [[], {}, ()], ids=repr)
@every_model
def test_no_loss(make, loss):
    with raises(ValueError, "`loss` must not be empty", "CompositeLoss", f"loss={loss!r}"):
        make().compile("sgd", loss=loss)


@pytest.mark.parametrize("cls", [cl.CompositeLoss, cl.wrappers.Masked])
@every_model
def test_a_class_of_ours_instead_of_a_loss(make, cls):
    for loss in (cls, [cls], {"head": cls}):
        with raises(ValueError, "not a class", f"create it first: {cls.__name__}(...)"):
            make().compile("sgd", loss=loss)


@every_model
def test_a_class_of_keras_is_taken_as_keras_takes_it(make):
    model = make()
    model.compile("sgd", loss=keras.losses.MeanSquaredError)
    assert model.evaluate(X, {"o": Y} if make is OfDict else Y, verbose=0) >= 0.0


@named_model
def test_a_loss_weight_for_an_output_that_is_none(make):
    said = ("`loss_weights` must name the output of the model, 'head'", "Received: 'typo'")
    with raises(ValueError, *said):
        make().compile("sgd", loss=cl.CompositeLoss(["mse"]), loss_weights={"typo": 0.0})
    with raises(ValueError, *said):
        weights = {"head": 1.0, "typo": 0.0}
        make().compile("sgd", loss=cl.CompositeLoss(["mse"]), loss_weights=weights)


NAMED = [
    (sequential, {"head": 2.0}),
    (functional, {"head": 2.0}),
    (tracked, {"head": 2.0}),
    (OfDict, {"o": 2.0}),
    (OfTensor, {"output_1": 2.0}),  # any name: the model tells none
]


@pytest.mark.parametrize("make, weights", NAMED)
def test_a_loss_weight_for_the_one_output(make, weights):
    model = make()
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]), loss_weights=weights)
    y = {"o": Y} if make is OfDict else Y
    model.fit(X, y, verbose=0)
    logs = model.evaluate(X, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(2 * logs["mse_loss"], rel=1e-6)


def test_loss_weights_of_components():
    """Weights of components belong into the composite, so `loss_weights` may not hold them."""
    with raises(ValueError, "`loss_weights`", "finite number"):
        weights = {"head": {"mse": 1.0, "mae": "half"}}
        sequential().compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]), loss_weights=weights)
    with raises(ValueError, "`loss_weights`", "finite number", "Received: {'mse': 1.0}"):
        weights = {"head": {"mse": 1.0}}
        sequential().compile("sgd", loss=cl.CompositeLoss(["mse"]), loss_weights=weights)


def test_what_is_no_loss_beside_a_composite():
    x = keras.Input((3,))
    outputs = [keras.layers.Dense(2, name=name)(x) for name in "ab"]
    model = cl.Model(x, outputs)
    for bad in (keras.metrics.MeanSquaredError(), lambda a, b, c: a, keras.layers.Dense(1)):
        with raises(ValueError, "Component 'b' of 'loss'", "Received: "):
            model.compile("sgd", loss={"a": cl.CompositeLoss(["mse"]), "b": bad})


def test_without_a_composite_loss_weights_are_the_affair_of_keras():
    model = sequential()
    model.compile("sgd", loss="mse", loss_weights=float("nan"))
    assert np.isnan(model.evaluate(X, Y, verbose=0))
