"""`as_metrics()`: the components in a plain `keras.Model`."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import log_ratio, uniform

X, Y, WEIGHT = uniform(10, 3), uniform(10, 2, seed=1), uniform(10, seed=2)
# Batches of 4: the last has 2 samples.
BATCHES = [slice(0, 4), slice(4, 8), slice(8, 10)]


def composite():
    inner = cl.CompositeLoss({"ratio": log_ratio, "mae": "mae"}, weights=[0.5, 2.0])
    return cl.CompositeLoss({"z": inner, "mse": "mse"}, weights={"mse": 0.25})


def compiled(loss):
    dense = keras.layers.Dense(2, activation="sigmoid", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile("sgd", loss=loss, weighted_metrics=loss.as_metrics())
    return model


def expected_logs(weight):
    """Float64 means over the batches, weighted by their sizes."""
    y_pred = 1 / (1 + np.exp(-X.astype("float64").sum(axis=1, keepdims=True))) * np.ones((1, 2))
    error = Y - y_pred
    parts = {
        "z/ratio_loss": np.abs(np.log(y_pred / Y)).mean(axis=1),
        "z/mae_loss": np.abs(error).mean(axis=1),
        "mse_loss": np.square(error).mean(axis=1),
    }
    logs = {name: np.mean(values * weight) for name, values in parts.items()}
    logs["z_loss"] = 0.5 * logs["z/ratio_loss"] + 2 * logs["z/mae_loss"]
    return {**logs, "loss": logs["z_loss"] + 0.25 * logs["mse_loss"]}


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_metrics_are_the_components(weight):
    """Each mean is over samples, so means of batches weighted by their sizes equal those of all."""
    model = compiled(composite())
    logs = model.evaluate(X, Y, batch_size=4, sample_weight=weight, verbose=0, return_dict=True)
    expected = expected_logs(1.0 if weight is None else WEIGHT)
    assert logs == pytest.approx(expected, rel=1e-5)


def test_partial_batches_are_weighted_by_their_size():
    """A reduction with a divisor of its own: the mean of the batches is not that of all."""
    loss = cl.CompositeLoss(["mse"], reduction="mean_with_sample_weight")
    model = compiled(loss)
    logs = model.evaluate(X, Y, batch_size=4, sample_weight=WEIGHT, verbose=0, return_dict=True)
    y_pred = model.predict(X, verbose=0)
    squared = np.square(Y - y_pred).mean(axis=1)
    of_batches = [np.average(squared[b], weights=WEIGHT[b]) for b in BATCHES]
    expected = np.average(of_batches, weights=[4, 4, 2])
    assert logs == pytest.approx({"loss": expected, "mse_loss": expected}, rel=1e-5)


def test_metrics_start_over():
    model = compiled(composite())
    first = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert model.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(first, rel=1e-6)


def test_metrics_see_the_mask():
    x = np.where(np.arange(3)[:, None] < 2, uniform(4, 3, 2), 0).astype("float32")
    y = uniform(4, 3, 2, seed=1)
    identity = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.Masking(), identity])
    loss = cl.CompositeLoss({"mse": "mse", "own": cl.losses.AsymmetricError(3.0, 1.0, 1.0)})
    model.compile("sgd", loss=loss, weighted_metrics=loss.as_metrics())
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    error = (y - x)[:, :2].astype("float64")
    mse, own = np.mean(error**2), np.mean(3 * np.maximum(error, 0) + np.maximum(-error, 0))
    assert logs == pytest.approx({"loss": mse + own, "mse_loss": mse, "own_loss": own}, rel=1e-5)


def test_a_saved_model_evaluates_to_the_same(tmp_path):
    model = compiled(composite())
    logs = model.evaluate(X, Y, sample_weight=WEIGHT, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(X, Y, sample_weight=WEIGHT, verbose=0, return_dict=True)
    assert again == pytest.approx(logs, rel=1e-6)


def test_names_are_log_keys():
    loss = cl.CompositeLoss({"mse": "mse", "own_loss": "mae", "inner": cl.CompositeLoss(["mse"])})
    names = [metric.name for metric in loss.as_metrics()]
    assert names == ["mse_loss", "own_loss", "inner_loss", "inner/mse_loss"]
