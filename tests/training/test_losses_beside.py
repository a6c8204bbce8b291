"""A loss of Keras beside a composite keeps its arguments, however the model is saved or copied."""

import copy
import pickle

import keras
import numpy as np
import pytest

import combined_losses as cl

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")
CLASSES = np.eye(2, dtype="float32")[np.arange(8) % 2]
IDS = np.where(np.arange(8) < 3, 1, np.arange(8) % 2)
L = keras.losses

# Each with an argument that matters, off its default; two of them have labels as targets.
LOSSES = {
    "Huber": (lambda: L.Huber(0.1), Y),
    "reduction": (lambda: L.MeanSquaredError(reduction="sum"), Y),
    "BinaryCrossentropy": (
        lambda: L.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
        CLASSES,
    ),
    "BinaryFocalCrossentropy": (
        lambda: L.BinaryFocalCrossentropy(
            apply_class_balancing=True, alpha=0.7, gamma=3.0, from_logits=True
        ),
        CLASSES,
    ),
    "CategoricalCrossentropy": (
        lambda: L.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
        CLASSES,
    ),
    "CategoricalFocalCrossentropy": (
        lambda: L.CategoricalFocalCrossentropy(alpha=0.7, gamma=3.0, from_logits=True),
        CLASSES,
    ),
    "SparseCategoricalCrossentropy": (
        lambda: L.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1),
        IDS,
    ),
    "CosineSimilarity": (lambda: L.CosineSimilarity(axis=1, reduction="sum"), Y),
    "Dice": (lambda: L.Dice(axis=1), CLASSES),
    "Tversky": (lambda: L.Tversky(alpha=0.9, beta=0.1, axis=1), CLASSES),
    "dtype": (lambda: L.MeanSquaredError(dtype="float16"), Y),
    "ours": (lambda: cl.losses.Pinball(0.9), Y),
    "string": (lambda: "mae", Y),
}
STRUCTURES = {
    "dict": lambda composite, other: {"a": composite, "b": other},
    "list": lambda composite, other: [composite, other],
    "tuple": lambda composite, other: (composite, other),
    "lists of one": lambda composite, other: {"a": [composite], "b": [other]},
    "lists of two": lambda composite, other: {"a": composite, "b": [other, "mse"]},
}


def two_heads(loss):
    x = keras.Input((3,))
    heads = [keras.layers.Dense(2, name=name)(x) for name in "ab"]
    model = cl.Model(x, heads)
    model.compile("sgd", loss=loss)
    return model


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def from_config(model, folder):
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    loaded.set_weights(model.get_weights())
    return loaded


def pickled(model, folder):
    return pickle.loads(pickle.dumps(model))


def copied(model, folder):
    return copy.deepcopy(model)


WAYS = [saved, from_config, pickled, copied]


def check(model, again, y_b):
    y = {"a": Y, "b": y_b}
    before = model.evaluate(X, y, verbose=0, return_dict=True)
    after = again.evaluate(X, y, verbose=0, return_dict=True)
    assert after == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_comes_back(name, tmp_path):
    make, y_b = LOSSES[name]
    model = two_heads({"a": cl.CompositeLoss(["mse"]), "b": make()})
    check(model, saved(model, tmp_path), y_b)


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("way", WAYS)
def test_in_every_structure_and_way(structure, way, tmp_path):
    model = two_heads(structure(cl.CompositeLoss(["mse"]), L.Huber(0.1)))
    check(model, way(model, tmp_path), Y)


def test_the_issue():
    """The case of the issue: Huber(0.1) came back as Huber(1.0)."""
    model = two_heads({"a": cl.CompositeLoss(["mse"]), "b": L.Huber(0.1)})
    error = np.abs(model.predict(X, verbose=0)[1] - Y)
    expected = np.where(error <= 0.1, error**2 / 2, 0.1 * error - 0.005).mean()
    again = copy.deepcopy(model).evaluate(X, {"a": Y, "b": Y}, verbose=0, return_dict=True)
    assert again["b_loss"] == pytest.approx(expected, rel=1e-5)
