"""What `compile` warns of: a model that cannot be saved, and state that is another model's."""

import copy
import pickle
import textwrap
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.processes import run_python

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def model_of(loss):
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=loss)
    return model


@keras.saving.register_keras_serializable("tests_compile_warnings")
def named(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


LAMBDAS = {
    "an activation": lambda: cl.CompositeLoss(
        {"bad": cl.wrappers.Activated("mse", lambda x: ops.exp(x), name="bad")}
    ),
    "alone": lambda: cl.CompositeLoss({"bad": lambda t, p: named(t, p)}),
    "nested": lambda: cl.CompositeLoss({"in": cl.CompositeLoss({"bad": lambda t, p: named(t, p)})}),
    "in a wrapper": lambda: cl.CompositeLoss(
        {"bad": cl.wrappers.Scaled(lambda t, p: named(t, p), 2.0, name="bad")}
    ),
    "of the inputs": lambda: cl.CompositeLoss(
        {"bad": cl.wrappers.OnInputs(lambda model, x, y, p: ops.mean(p), name="bad")}
    ),
}


@pytest.mark.parametrize("make", LAMBDAS.values(), ids=LAMBDAS)
def test_a_lambda_cannot_be_saved(make):
    loss = make()
    with pytest.warns(
        UserWarning, match="cannot be saved.*ModelCheckpoint.*'(bad|lambda)' is a lam"
    ):
        model = model_of(loss)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.compile("sgd", loss=loss)  # once


def test_what_can_be_saved_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model_of(cl.CompositeLoss([named, "mse", keras.losses.Huber(), cl.losses.Expectile()]))


def test_compile_on_other_backends_does_not_import_tensorflow(tmp_path):
    """TensorFlow takes 480 MB and 1.5 s to import, and Keras imports it to make a config."""
    source = """
        import sys, keras
        import combined_losses as cl
        model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        loss = cl.CompositeLoss(["mse", keras.losses.Huber()])
        before = "tensorflow" in sys.modules
        model.compile("sgd", loss=loss)
        assert ("tensorflow" in sys.modules) == before == (keras.backend.backend() == "tensorflow")
    """
    run_python(textwrap.dedent(source), cwd=tmp_path)


def moving():
    return cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.UncertaintyWeighting())


def scheduled():
    return cl.CompositeLoss(["mse", "mae"], weights={"mae": cl.weightings.LinearRamp(5)})


@pytest.mark.parametrize("make", [moving, scheduled])
def test_a_second_model_begins_with_the_state_of_the_first(make):
    loss = make()
    first = model_of(loss)
    first.fit(X, Y, verbose=0)
    with pytest.warns(UserWarning, match="compiled in another model before.*from_config"):
        model_of(loss)


@pytest.mark.parametrize("make", [moving, scheduled])
def test_also_where_the_first_model_is_gone(make):
    loss = make()
    model_of(loss).fit(X, Y, verbose=0)
    with pytest.warns(UserWarning, match="compiled in another model before"):
        model_of(loss)


@pytest.mark.parametrize("make", [moving, scheduled])
def test_without_a_second_model_nothing_is_said(make):
    loss = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = model_of(loss)
        model.fit(X, Y, verbose=0)
        model.compile("sgd", loss=loss)  # the same model
        for other in (
            cl.CompositeLoss.from_config(loss.get_config()),
            copy.deepcopy(loss),
            pickle.loads(pickle.dumps(loss)),
        ):
            model_of(other)
        fixed = cl.CompositeLoss(["mse"])
        model_of(fixed)
        model_of(fixed)  # without state
