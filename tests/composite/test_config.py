"""`get_config` and back: nothing is lost, and what cannot be saved says so."""

import copy
import functools
import json
import pickle

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import (
    CHILDREN,
    KERAS_CHILDREN,
    KERAS_CLASSES,
    WEIGHTS,
    Y_PRED,
    Y_TRUE,
    SquaredError,
    log_ratio,
    squared_error,
    value,
)
from tests.messages import raises

pytestmark = [
    pytest.mark.depends_on_version,
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64"),  # JAX
]


def reload(loss):
    """`loss` as a model file brings it back: through the text of a config."""
    return keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    )


def check(loss, *data):
    """`loss` comes back as it is: names in order, weights, dtypes, reductions, numbers."""
    loaded = reload(loss)
    assert type(loaded) is type(loss)
    for attribute in ("name", "dtype", "reduction", "component_names", "weights"):
        assert getattr(loaded, attribute) == getattr(loss, attribute)
    assert list(loaded.weights) == list(loss.weights)
    for name, child in loss.losses.items():
        assert (loaded.losses[name].dtype, loaded.losses[name].name) == (child.dtype, child.name)
        assert loaded.losses[name].reduction == child.reduction
    np.testing.assert_array_equal(value(loaded, *data), value(loss, *data))
    assert json.dumps(reload(loaded).get_config()) == json.dumps(loss.get_config())
    return loaded


def test_a_nested_composite_keeps_names_order_and_weights():
    inner = cl.CompositeLoss({"b": "mse", "a": log_ratio}, [2.0, 0.25], reduction="sum", name="i")
    loss = cl.CompositeLoss({"z": inner, "m": "mae", "a": SquaredError()}, {"m": 0.1}, name="total")
    loaded = check(loss, Y_TRUE, Y_PRED, WEIGHTS)
    assert loaded.component_names == ("z", "z/b", "z/a", "m", "a")


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
def test_every_kind_of_component_comes_back(child):
    check(cl.CompositeLoss({"child": child()}), Y_TRUE, Y_PRED, WEIGHTS)
    check(cl.CompositeLoss([child()]), Y_TRUE, Y_PRED, WEIGHTS)


@pytest.mark.parametrize("child", KERAS_CHILDREN.values(), ids=KERAS_CHILDREN)
def test_every_loss_of_keras_comes_back(child):
    loss = cl.CompositeLoss([child.make(reduction="sum", name="renamed")])
    check(loss, child.y_true, child.y_pred)


def arguments(name, y_true=None, y_pred=None, **kwargs):
    data = KERAS_CHILDREN[name]
    y_true, y_pred = (data.y_true, data.y_pred) if y_true is None else (y_true, y_pred)
    label = f"{name}({', '.join(kwargs)})"
    return pytest.param(KERAS_CLASSES[name], kwargs, y_true, y_pred, id=label)


ARGUMENTS = [
    arguments("BinaryCrossentropy", label_smoothing=0.2),
    arguments("BinaryCrossentropy", from_logits=True),
    arguments("BinaryCrossentropy", Y_TRUE, Y_PRED[..., ::-1], axis=1),
    arguments("BinaryFocalCrossentropy", apply_class_balancing=True, alpha=0.7, gamma=1.5),
    arguments("CategoricalCrossentropy", label_smoothing=0.2),
    arguments("CategoricalCrossentropy", Y_TRUE, Y_PRED, axis=1),
    arguments("CategoricalFocalCrossentropy", alpha=0.7, gamma=1.5, from_logits=True),
    arguments("CategoricalGeneralizedCrossEntropy", q=0.3),
    arguments("Circle", gamma=8.0, margin=0.2, remove_diagonal=False),
    arguments("CosineSimilarity", Y_TRUE, Y_PRED, axis=1),
    arguments("Dice", axis=1),
    arguments("Huber", delta=0.2),
    arguments("SparseCategoricalCrossentropy", ignore_class=2),
    arguments("Tversky", alpha=0.2, beta=0.9, axis=1),
]


@pytest.mark.parametrize("cls, kwargs, y_true, y_pred", ARGUMENTS)
def test_a_loss_of_keras_keeps_its_arguments(cls, kwargs, y_true, y_pred):
    """`Huber(delta)` and others lose theirs in Keras's own `get_config`."""
    default, loss = cl.CompositeLoss([cls()]), cl.CompositeLoss([cls(**kwargs)])
    check(loss, y_true, y_pred)
    assert value(loss, y_true, y_pred) != value(default, y_true, y_pred), "no difference to lose"


def test_an_axis_that_this_backend_does_not_support_comes_back():
    """TensorFlow computes this loss along the last axis only."""
    loss = cl.CompositeLoss({"a": keras.losses.SparseCategoricalCrossentropy(axis=1)})
    for stored in (loss, reload(loss)):
        ((name, child),) = stored.get_config()["losses"]
        assert (name, child["config"]["axis"]) == ("a", 1)


class WithKwargs(SquaredError):
    """A user's loss that hands what it does not know to the base class."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * super().call(y_true, y_pred)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class OwnWithKwargs(cl.losses.Loss):
    """A user's loss on our base class: no `get_config` needed."""

    def __init__(self, factor=1.0, *, power=2.0, shift=(0.0, 0.0), **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.power = power
        self.shift = shift

    def call(self, y_true, y_pred):
        error = ops.abs(y_true - y_pred + ops.cast(self.shift, y_pred.dtype))
        return self.factor * ops.mean(ops.power(error, self.power), axis=-1)


keras.saving.register_keras_serializable("tests")(WithKwargs)
keras.saving.register_keras_serializable("tests")(OwnWithKwargs)


DTYPES = {
    "Keras": keras.losses.MeanSquaredError,
    "subclass": SquaredError,
    "subclass with kwargs": WithKwargs,
    "own": cl.losses.AsymmetricError,
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("make", DTYPES.values(), ids=DTYPES)
def test_a_dtype_comes_back(make, dtype):
    loaded = check(cl.CompositeLoss({"a": make(dtype=dtype)}, dtype="float64"), Y_TRUE, Y_PRED)
    assert loaded.losses["a"].dtype == dtype


@pytest.mark.parametrize("reduction", ["per_component", "sum", "none", None])
def test_the_reduction_and_dtype_of_the_composite_come_back(reduction):
    loss = cl.CompositeLoss(["mse"], reduction=reduction, dtype="float64", name="total")
    check(loss, Y_TRUE, Y_PRED)


def test_a_users_losses_come_back_with_their_arguments():
    children = {
        "keras": WithKwargs(3.0, reduction="sum"),
        "own": OwnWithKwargs(2.0, power=1.5, shift=(0.5, -0.5), reduction="mean", name="named"),
    }
    loaded = check(cl.CompositeLoss(children), Y_TRUE, Y_PRED, WEIGHTS)
    assert tuple(loaded.losses["own"].shift) == (0.5, -0.5)
    assert loaded.losses["keras"].factor == 3.0


def test_the_config_has_the_weights_of_the_moment():
    inner = cl.CompositeLoss({"ratio": log_ratio})
    loss = cl.CompositeLoss({"mse": "mse", "inner": inner}, weights={"mse": 0.3})
    loss.set_weight("mse", 0.7)
    loss.set_weight("inner/ratio", 0.0)
    loaded = check(loss, Y_TRUE, Y_PRED)
    assert loaded.weights == {"mse": 0.7, "inner": 1.0}
    assert loaded.losses["inner"].weights == {"ratio": 0.0}


def pickled(loss):
    return pickle.loads(pickle.dumps(loss))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_has_the_weights_and_shares_nothing(copied):
    """Also of a composite that trains in a model: the copy trains in none."""
    loss = cl.CompositeLoss({"a": "mse", "under": cl.losses.UnderestimationPenalty(3.0)})
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=loss)
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    loss.set_weight("under", 0.5)
    other = copied(loss)
    y_true, y_pred = np.array([[3.0], [1.0]]), np.array([[1.0], [2.0]])
    for each in (loss, other):  # the squares 4 and 1, and 3 times the 2 that one is below
        assert value(each, y_true, y_pred) == pytest.approx((4 + 1) / 2 + 0.5 * 3 * 2 / 2)
    other.set_weight("under", 7.0)
    assert loss.weights["under"] == 0.5 and other.weights["under"] == 7.0


def test_a_loaded_composite_is_a_new_one():
    loss = cl.CompositeLoss(["mse"])
    loaded = reload(loss)
    loaded.set_weight("mse", 3.0)
    assert loss.weights == {"mse": 1.0}


FUNCTIONS = {
    "alias": "mse",
    "class as a string": "MeanSquaredError",
    "function of Keras": keras.losses.mean_absolute_error,
    "registered function": log_ratio,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_string_or_registered_function_comes_back(function):
    loss = check(cl.CompositeLoss({"a": function}), Y_TRUE, Y_PRED)
    np.testing.assert_array_equal(
        value(reload(cl.as_loss(function)), Y_TRUE, Y_PRED), value(loss, Y_TRUE, Y_PRED)
    )


# What cannot be saved or loaded.

LAMBDA = lambda y_true, y_pred: squared_error(y_true, y_pred)  # noqa: E731
NAMELESS = {"lambda": LAMBDA, "loss of a lambda": cl.as_loss(LAMBDA)}


@pytest.mark.parametrize("child", NAMELESS.values(), ids=NAMELESS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_lambda_trains_but_cannot_be_saved(child, nested):
    loss = cl.CompositeLoss({"shape": child})
    if nested:
        loss = cl.CompositeLoss({"inner": loss})
    assert np.isfinite(value(loss, Y_TRUE, Y_PRED))
    said = (
        "Component 'shape'",
        "lambda",
        "@keras.saving.register_keras_serializable",
        "def shape(",
    )
    with raises(ValueError, *said, "Received: "):
        keras.saving.serialize_keras_object(loss)


class Callable:
    def __call__(self, y_true, y_pred):
        return squared_error(y_true, y_pred)


NOT_SAVED = {"partial": functools.partial(squared_error, axis=1), "object": Callable()}


@pytest.mark.parametrize("child", NOT_SAVED.values(), ids=NOT_SAVED)
def test_what_keras_cannot_serialise_names_the_component(child):
    with raises(ValueError, "Component 'part'", "register_keras_serializable", "Received: "):
        keras.saving.serialize_keras_object(cl.CompositeLoss({"part": child}))


class Unregistered(SquaredError):
    pass


def unregistered(y_true, y_pred):
    return squared_error(y_true, y_pred)


class UnregisteredOwn(cl.losses.Loss):
    def call(self, y_true, y_pred):
        return squared_error(y_true, y_pred)


UNREGISTERED = {"class": Unregistered(), "function": unregistered, "own": UnregisteredOwn()}


@pytest.mark.parametrize("child", UNREGISTERED.values(), ids=UNREGISTERED)
def test_what_was_not_registered_names_the_component_when_loading(child):
    """As in another process, where the module is not imported."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(cl.CompositeLoss([child]))))
    (name,) = cl.CompositeLoss([child]).names
    text = json.dumps(config).replace(__name__, "a_module_that_is_not_there")
    with raises((TypeError, ValueError), f"Component '{name}'", "register_keras_serializable"):
        keras.saving.deserialize_keras_object(json.loads(text))


class Forgetful(cl.losses.Loss):
    def __init__(self, cost=2.0, **kwargs):
        super().__init__(**kwargs)
        self.price = cost

    def call(self, y_true, y_pred):
        return self.price * squared_error(y_true, y_pred)


@pytest.mark.backend_free
def test_an_argument_that_is_not_stored_is_said_when_saving():
    said = ("Forgetful cannot be saved", "self.cost = cost", "Received: no attribute for cost")
    with raises(ValueError, *said):
        Forgetful().get_config()
