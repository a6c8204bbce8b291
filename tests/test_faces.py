"""What `dir()`, and with it completion, shows of public packages and of a composite."""

import inspect

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.public import PACKAGES


def without_dunders(names):
    return [name for name in names if not (name.startswith("__") and name.endswith("__"))]


@pytest.mark.backend_free
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_dir_shows_the_public_names_alone(package):
    assert without_dunders(dir(package)) == without_dunders(sorted(package.__all__))


# What Keras's saver calls.
OF_FILES = {"load_own_variables", "save_own_variables"}
OF_COMPOSITES = {
    "names",
    "component_names",
    "components",
    "component",
    "weights",
    "settable_names",
    "weight_of",
    "set_weight",
    "training_step",
    "end_epoch",
    "as_metrics",
    "variables",
    "trainable_variables",
    "non_trainable_variables",
}


def own_names(thing, of_keras):
    return {name for name in set(dir(thing)) - set(dir(of_keras)) if not name.startswith("_")}


def test_a_composite_shows_its_arguments_and_these_names_alone():
    loss = cl.CompositeLoss(["mse", "mae"])
    arguments = set(inspect.signature(cl.CompositeLoss).parameters)
    expected = OF_COMPOSITES | OF_FILES | arguments - set(dir(keras.losses.MeanSquaredError()))
    assert own_names(loss, keras.losses.Loss(name="keras")) == expected
    # On the instance alone: what is stored as it was given.
    of_class = expected - {"weighting"}
    assert own_names(cl.CompositeLoss, keras.losses.Loss) == of_class


def test_a_composite_that_was_called_and_saved_shows_no_more(tmp_path):
    """Attributes that are made late would be seen here."""
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.MagnitudeBalance())
    before = own_names(loss, keras.losses.Loss)
    model.compile("sgd", loss=loss)
    model.train_on_batch(np.ones((1, 2)), np.ones((1, 1)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert own_names(loss, keras.losses.Loss) == before == own_names(loaded.loss, keras.losses.Loss)
