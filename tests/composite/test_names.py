"""Names of components: where they come from, which are refused, what they are called in logs."""

import functools

import keras
import pytest

import combined_losses as cl
from tests.composite.children import SquaredError, squared_error
from tests.messages import raises


def f_loss(y_true, y_pred):
    """A function that is called as many users call theirs."""
    return squared_error(y_true, y_pred)


def loss(y_true, y_pred):
    """A function with a name that is a log key of Keras's."""
    return squared_error(y_true, y_pred)


class Callable:
    def __call__(self, y_true, y_pred):
        return squared_error(y_true, y_pred)


class HoldsFunction(keras.losses.Loss):
    """A loss of a user with an attribute that our own function losses have too."""

    function = staticmethod(squared_error)

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


DERIVED = {
    "a string": ("mse", "mse"),
    "a class as a string": ("MeanSquaredError", "MeanSquaredError"),
    "a function": (squared_error, "squared_error"),
    "a function of Keras": (keras.losses.mean_absolute_error, "mean_absolute_error"),
    "a lambda": (lambda t, p: squared_error(t, p), "lambda"),
    "a partial": (functools.partial(squared_error, axis=1), "squared_error"),
    "a callable object": (Callable(), "callable"),
    "a loss of Keras": (keras.losses.KLDivergence(), "kl_divergence"),
    "a loss of Keras whose default name is not its class": (keras.losses.Huber(), "huber"),
    "a user's loss": (SquaredError(), "squared_error"),
    "a user's loss with a function": (HoldsFunction(), "holds_function"),
    "a loss of ours": (cl.losses.UnderestimationPenalty(), "underestimation_penalty"),
    "a function as a loss": (cl.as_loss(squared_error), "squared_error"),
    "a string as a loss": (cl.as_loss("mse"), "mse"),
    "a composite": (cl.CompositeLoss(["mse"]), "composite_loss"),
}
GIVEN = {
    "a loss with a name": (keras.losses.Huber(name="robust"), "robust"),
    "a loss of ours with a name": (cl.losses.AsymmetricError(name="cost"), "cost"),
    "a composite with a name": (cl.CompositeLoss(["mse"], name="inner"), "inner"),
}


@pytest.mark.parametrize(
    "child, name", [*DERIVED.values(), *GIVEN.values()], ids=[*DERIVED, *GIVEN]
)
def test_a_list_derives_names(child, name):
    assert cl.CompositeLoss([child]).names == (name,)


@pytest.mark.parametrize("child, name", DERIVED.values(), ids=DERIVED)
def test_a_second_one_is_numbered(child, name):
    assert cl.CompositeLoss([child, child, child]).names == (name, f"{name}_2", f"{name}_3")


def test_a_loss_that_keras_numbered_was_not_named():
    """Keras calls the second object of a class squared_error_1, in the order of construction."""
    children = [SquaredError(), SquaredError()]
    assert children[1].name != children[0].name
    assert cl.CompositeLoss(children).names == ("squared_error", "squared_error_2")


def test_a_numbered_name_steps_aside():
    children = ["mse", keras.losses.Huber(name="mse_2"), cl.as_loss("mse")]
    assert cl.CompositeLoss(children).names == ("mse", "mse_2", "mse_3")


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "make", [keras.losses.Huber, cl.losses.UnderestimationPenalty, SquaredError]
)
def test_the_same_name_given_twice_is_an_error(make):
    with raises(ValueError, "'total'", "same name", "rename", "Received: 'cost' twice"):
        cl.CompositeLoss([make(name="cost"), "mse", make(name="cost")], name="total")


def test_a_dict_gives_names_in_its_order():
    composite = cl.CompositeLoss({"z": "mse", "a": keras.losses.Huber(name="robust"), "m": "mae"})
    assert composite.names == composite.component_names == ("z", "a", "m")
    assert list(composite.weights) == ["z", "a", "m"]


def test_the_parts_of_nested_composites_stay_visible():
    innermost = cl.CompositeLoss({"d": "mse", "c": "mae"})
    inner = cl.CompositeLoss({"b": innermost, "a": "mse"})
    outer = cl.CompositeLoss({"y": inner, "x": "mae"})
    assert outer.names == ("y", "x")
    assert outer.component_names == ("y", "y/b", "y/b/d", "y/b/c", "y/a", "x")


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "names, key",
    [
        (["a", "a_loss"], "'a_loss'"),
        (["f_loss", "mse", "f"], "'f_loss'"),
    ],
)
def test_two_names_with_one_log_key_are_an_error(names, key):
    with raises(ValueError, "'total'", key, "rename", f"Received: {names[0]!r} and {names[-1]!r}"):
        cl.CompositeLoss(dict.fromkeys(names, "mse"), name="total")


@pytest.mark.backend_free
def test_two_functions_with_one_log_key_are_an_error():
    def f(y_true, y_pred):
        return squared_error(y_true, y_pred)

    with raises(ValueError, "'f_loss'", "Received: 'f' and 'f_loss'"):
        cl.CompositeLoss([f, f_loss])


def test_nested_and_outer_names_do_not_collide():
    inner = cl.CompositeLoss({"a": "mse"})
    assert len(cl.CompositeLoss({"a": inner, "b": inner}).component_names) == 4


REFUSED = {
    "loss": ("'loss'", "reserved"),
    "regularization": ("'regularization_loss'", "reserved"),
    "regularization_loss": ("'regularization_loss'", "reserved"),
    "weighting": ("'weighting_loss'", "reserved"),
    "weighting_loss": ("'weighting_loss'", "reserved"),
    "base": ("'base_loss'", "reserved"),
    "base_loss": ("'base_loss'", "reserved"),
    "val_mse": ("'val_'",),
    "a/b": ("/ ", "use '_'"),
    "a.b": (". ", "use '_'"),
    "a[b": ("[ ", "use '_'"),
    "a]b": ("] ", "use '_'"),
    "a{b": ("{ ", "use '_'"),
    "a}b": ("} ", "use '_'"),
    "": ("non-empty string",),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", REFUSED)
def test_a_name_is_refused(name):
    with raises(ValueError, "'total'", *REFUSED[name], f"Received: {name!r}"):
        cl.CompositeLoss({"mse": "mse", name: "mse"}, name="total")


@pytest.mark.backend_free
@pytest.mark.parametrize("name", [3, None, ("a", "b")])
def test_a_name_must_be_a_string(name):
    with raises(ValueError, "non-empty string", f"Received: {name!r}"):
        cl.CompositeLoss({name: "mse"})


@pytest.mark.backend_free
@pytest.mark.parametrize("child", [loss, keras.losses.Huber(name="val_huber")])
def test_a_derived_name_is_refused_too(child):
    with raises(ValueError, "must not", "Received: "):
        cl.CompositeLoss(["mse", child])


@pytest.mark.parametrize("name", ["lossy", "val", "weight", "base_2", "a-b", "a b", "é"])
def test_a_name_that_only_resembles_a_refused_one_is_allowed(name):
    assert cl.CompositeLoss({name: "mse"}).names == (name,)
