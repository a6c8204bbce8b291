"""Keras's own callbacks on the keys of the components."""

import csv

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.training.tiny import arrays, line, sgd

WATCHED = "val_mse_loss"


def compiled(learning_rate=0.1):
    model = line()
    model.compile(sgd(learning_rate), loss=cl.CompositeLoss({"mse": "mse", "mae": "mae"}))
    return model


def fitted(model, *callbacks, epochs=4):
    x, y = arrays()
    kwargs = {"epochs": epochs, "validation_data": (x[:4], y[:4]), "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=list(callbacks), **kwargs).history


def test_early_stopping_stops_where_the_component_stops_improving():
    """With learning rate 0 nothing improves after the first epoch, which Keras compares with."""
    stop = keras.callbacks.EarlyStopping(WATCHED, mode="min", patience=2)
    assert len(fitted(compiled(0.0), stop, epochs=9)["loss"]) == 3
    assert len(fitted(compiled(0.01), stop)["loss"]) == 4


def test_a_list_of_callbacks_serves_several_trainings():
    """`fit` must take out again what it adds to the list: else epochs would end twice for rules."""
    model, (x, y) = line(), arrays()
    loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.DynamicWeightAverage())
    model.compile(sgd(), loss=loss)
    users = keras.callbacks.CallbackList([], add_history=True, model=model)
    before = list(users.callbacks)
    for _ in range(2):
        model.fit(x, y, verbose=0, callbacks=users)
        assert users.callbacks == before


def test_early_stopping_restores_the_best_weights():
    model = compiled(1.5)  # diverges
    stop = keras.callbacks.EarlyStopping(WATCHED, mode="min", patience=2, restore_best_weights=True)
    history = fitted(model, stop)
    x, y = arrays()
    logs = model.evaluate(x[:4], y[:4], verbose=0, return_dict=True)
    assert history[WATCHED][-1] > min(history[WATCHED])
    assert logs["mse_loss"] == pytest.approx(min(history[WATCHED]), rel=1e-6)


def test_model_checkpoint_keeps_the_best_and_names_it_by_the_component(tmp_path):
    path = str(tmp_path / "{epoch}-{val_mse_loss:.3f}.keras")
    save = keras.callbacks.ModelCheckpoint(path, monitor=WATCHED, mode="min", save_best_only=True)
    history = fitted(compiled(0.5), save)[WATCHED]
    better = [i for i, value in enumerate(history) if value == min(history[: i + 1])]
    assert len(better) < len(history)
    expected = {f"{i + 1}-{history[i]:.3f}.keras" for i in better}
    assert {file.name for file in tmp_path.iterdir()} == expected
    x, y = arrays()
    best = keras.saving.load_model(tmp_path / f"{better[-1] + 1}-{min(history):.3f}.keras")
    logs = best.evaluate(x[:4], y[:4], verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(min(history), rel=1e-6)


def test_reduce_lr_on_plateau_watches_a_component():
    model = compiled(1e-30)
    reduce = keras.callbacks.ReduceLROnPlateau(WATCHED, mode="min", patience=1, factor=0.5)
    fitted(model, reduce, epochs=3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.25e-30)


def test_csv_logger_writes_every_component(tmp_path):
    path = tmp_path / "log.csv"
    history = fitted(compiled(), keras.callbacks.CSVLogger(path))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    keys = ["loss", "mse_loss", "mae_loss", "val_loss", "val_mse_loss", "val_mae_loss"]
    assert sorted(rows[0]) == sorted(["epoch", *keys])
    for key in keys:
        assert [float(row[key]) for row in rows] == pytest.approx(history[key], rel=1e-6)


def test_callbacks_see_numbers_after_every_batch():
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs))
    fitted(compiled(), watch, epochs=1)
    assert seen and set(seen[0]) == {"loss", "mse_loss", "mae_loss"}
    assert all(isinstance(value, float) for value in seen[0].values())


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_terminate_on_nan_stops_on_a_component_that_is_not_finite():
    model = line()
    broken = {"mse": "mse", "log": lambda y_true, y_pred: keras.ops.log(-keras.ops.abs(y_pred))}
    model.compile(sgd(), loss=cl.CompositeLoss(broken))
    history = fitted(model, keras.callbacks.TerminateOnNaN())
    assert len(history["loss"]) <= 1


def test_tensorboard_holds_every_component_for_training_and_validation(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_ndarray = pytest.importorskip("tensorboard.util.tensor_util").make_ndarray
    pytest.importorskip("tensorflow")
    board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
    history = fitted(compiled(), board, epochs=3)
    for run, prefix in (("train", ""), ("validation", "val_")):
        events = reader.EventAccumulator(str(tmp_path / run))
        events.Reload()
        for key in ("loss", "mse_loss", "mae_loss"):
            values = [make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{key}")]
            assert np.ravel(values) == pytest.approx(history[prefix + key], rel=1e-6)


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_the_history_is_the_same_whether_or_not_somebody_reads_the_logs_of_steps(
    steps_per_execution,
):
    """If nobody does, they get their names at the end of the epoch, not in each step."""
    x, y = arrays()
    seen, found, on_torch = [], [], keras.backend.backend() == "torch"
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs))
    for callbacks in ([], [watch]):
        model, rule = line(), cl.weightings.DynamicWeightAverage()
        model.compile(
            sgd(0.1),
            loss=cl.CompositeLoss(["mse", "mae"], {"mse": 2.0}, rule),
            metrics=["mape"],
            steps_per_execution=1 if on_torch else steps_per_execution,
        )
        fit = {"epochs": 2, "batch_size": 5, "validation_data": (x, y), "verbose": 0}
        found.append(model.fit(x, y, callbacks=callbacks, shuffle=False, **fit).history)
    assert list(found[0]) == list(found[1]) and "val_mae_weight" in found[0]
    for key, values in found[0].items():
        np.testing.assert_allclose(values, found[1][key], rtol=1e-6, err_msg=key)
    assert {*seen[0]} == {key for key in found[0] if not key.startswith("val_")}
    assert all(type(number) is float for number in seen[0].values())
    logs = model.train_on_batch(x, y, return_dict=True)
    assert {*logs} == {*seen[0]} and logs["loss"] > 0
