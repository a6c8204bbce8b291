"""What loggers that people use with Keras make of the components: MLflow and CSVLogger."""

import csv

import keras
import pytest

import combined_losses as cl
from tests.processes import run_python
from tests.training.tiny import arrays, line, sgd

PARTS = ["mse_loss", "mae_loss", "outer_loss", "outer/huber_loss", "outer/log_cosh_loss"]


def compiled():
    outer = cl.CompositeLoss(["huber", "log_cosh"])
    model = line()
    model.compile(sgd(0.01), loss=cl.CompositeLoss({"mse": "mse", "mae": "mae", "outer": outer}))
    return model


def set_at(epoch, model, value):
    """Sets the weight of `mae` in the middle of the training."""

    def begin(index, logs):
        if index == epoch:
            model.loss.set_weight("mae", value)

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin)


def fit(model, *callbacks, epochs=3, **kwargs):
    x, y = arrays()
    kwargs = {"epochs": epochs, "validation_data": (x[:4], y[:4]), "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=list(callbacks), **kwargs).history


# MLflow.


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow, which writes to a folder of files; newer releases do so only where it is allowed."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow
    mlflow.set_tracking_uri(before)


def plain(mlflow):
    """The callback that the README shows."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch)
    )


WAYS = {
    "plain": plain,
    "mlflow.keras": lambda mlflow: mlflow.keras.MlflowCallback(),
    "mlflow.tensorflow": lambda mlflow: mlflow.tensorflow.MlflowCallback(),
}


@pytest.mark.parametrize("way", WAYS)
def test_mlflow_gets_every_component_and_weight_of_every_epoch(mlflow, way):
    pytest.importorskip("tensorflow")
    model = compiled()
    with mlflow.start_run() as run:
        history = fit(model, set_at(1, model, 0.5), WAYS[way](mlflow))
    client = mlflow.MlflowClient()
    for key in [prefix + part for prefix in ("", "val_") for part in ("loss", *PARTS)]:
        # Its own callbacks write in threads, so the epochs may come in any order.
        logged = sorted(client.get_metric_history(run.info.run_id, key), key=lambda each: each.step)
        assert [each.step for each in logged] == [0, 1, 2]
        assert [each.value for each in logged] == pytest.approx(history[key], rel=1e-6)
    for key in ("mae_weight", "val_mae_weight"):
        logged = client.get_metric_history(run.info.run_id, key)
        assert sorted((each.step, each.value) for each in logged) == [(1, 0.5), (2, 0.5)]


def test_mlflow_autolog_gets_every_component(tmp_path):
    """In a process of its own, since it changes Keras."""
    pytest.importorskip("mlflow")
    source = """
import keras
import mlflow
import numpy as np
import combined_losses as cl
mlflow.set_tracking_uri("mlruns")
mlflow.keras.autolog(log_models=False)
model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
outer = cl.CompositeLoss(["huber"])
model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "outer": outer}))
x = np.ones((4, 1))
with mlflow.start_run() as run:
    model.fit(x, x, validation_data=(x, x), epochs=2, verbose=0)
print(*mlflow.MlflowClient().get_run(run.info.run_id).data.metrics)
"""
    switches = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    logged = run_python(source, tmp_path, **switches).splitlines()[-1].split()
    parts = ["mse_loss", "outer_loss", "outer/huber_loss"]
    assert {*parts, *(f"val_{part}" for part in parts)} <= set(logged)


# CSVLogger.


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_csv_logger_has_a_column_for_each_component(tmp_path):
    path = tmp_path / "log.csv"
    history = fit(compiled(), keras.callbacks.CSVLogger(path))
    assert rows(path)[0].keys() == {"epoch", *history}
    for key in [prefix + part for prefix in ("", "val_") for part in ("loss", *PARTS)]:
        assert [float(row[key]) for row in rows(path)] == pytest.approx(history[key], rel=1e-6)


def test_csv_logger_goes_on_where_training_is_resumed(tmp_path):
    path, model = tmp_path / "log.csv", compiled()
    first = fit(model, keras.callbacks.CSVLogger(path), epochs=2)
    again = keras.callbacks.CSVLogger(path, append=True)
    second = fit(model, again, epochs=4, initial_epoch=2)
    assert [row["epoch"] for row in rows(path)] == ["0", "1", "2", "3"]
    for key in PARTS:
        expected = pytest.approx([*first[key], *second[key]], rel=1e-6)
        assert [float(row[key]) for row in rows(path)] == expected


def test_csv_logger_has_the_columns_of_its_first_epoch_only(tmp_path):
    """So Keras's `CSVLogger` does: it drops later columns silently; the others stay right."""
    path, model = tmp_path / "log.csv", compiled()
    history = fit(model, set_at(1, model, 0.5), keras.callbacks.CSVLogger(path))
    assert history["mae_weight"] == [1.0, 0.5, 0.5]
    assert "mae_weight" not in rows(path)[0]
    for key in PARTS:
        assert [float(row[key]) for row in rows(path)] == pytest.approx(history[key], rel=1e-6)


def set_before(model):
    model.loss.set_weight("mae", model.loss.weights["mae"])
    return set_at(1, model, 0.5)


def scheduled(model):
    return cl.callbacks.LossWeightScheduler("mae", lambda epoch, weight: 0.5 if epoch else weight)


@pytest.mark.parametrize("way", [set_before, scheduled])
def test_csv_logger_has_a_weight_that_is_set_from_the_beginning(tmp_path, way):
    path, model = tmp_path / "log.csv", compiled()
    fit(model, way(model), keras.callbacks.CSVLogger(path))
    for key in ("mae_weight", "val_mae_weight"):
        assert [float(row[key]) for row in rows(path)] == [1.0, 0.5, 0.5]
