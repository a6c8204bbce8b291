"""`base_loss`: what early stopping can watch while schedules or rules move the weights."""

import warnings

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses import weightings as w
from tests.training.tiny import FROZEN, arrays, line, sgd, two_heads

LOSSES = ["mse_loss", "mae_loss"]


@keras.saving.register_keras_serializable("tests")
class Table(keras.optimizers.schedules.LearningRateSchedule):
    """A user's schedule that raises an error at a step that is not in its table."""

    def __init__(self, values=(0.5, 0.25, 0.125)):
        self.values = list(values)

    def __call__(self, step):
        if isinstance(step, int) and step >= len(self.values):
            raise IndexError(step)
        return keras.ops.take(keras.ops.convert_to_tensor(self.values), keras.ops.mod(step, 3))

    def get_config(self):
        return {"values": self.values}


@keras.saving.register_keras_serializable("tests")
class TableWithAnEnd(Table):
    final_weight = 0.75


class Growing(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that grows without end."""

    def __call__(self, step):
        return 0.5 * 1.1 ** keras.ops.cast(step, "float32")


schedules = keras.optimizers.schedules
# The weight at the end of each schedule.
ENDS = {
    "ramp": (lambda: w.LinearRamp(1000, start=0.0, end=2.0), 2.0),
    "sigmoid": (lambda: w.Sigmoid(1000, start=1.0, end=-0.5), -0.5),
    "cyclical": (lambda: w.Cyclical(7, end=3.0), 3.0),
    "cyclical that ends": (lambda: w.Cyclical(7, end=3.0, cycles=2), 3.0),
    "pieces": (lambda: schedules.PiecewiseConstantDecay([500, 900], [1.0, 0.5, 0.1]), 0.1),
    "cosine": (lambda: schedules.CosineDecay(1.0, 1000, alpha=0.3), 0.3),
    "polynomial": (lambda: schedules.PolynomialDecay(1.0, 1000, 0.4), 0.4),
    "to nothing": (lambda: schedules.ExponentialDecay(1.0, 10, 0.9), 0.0),
    "own": (TableWithAnEnd, 0.75),
}


def compiled(loss, optimizer=None, model=None):
    model = line() if model is None else model
    model.compile(sgd(FROZEN) if optimizer is None else optimizer, loss=loss)
    return model


def scheduled(schedule, weighting=None):
    return cl.CompositeLoss(["mse", "mae"], {"mse": 0.5, "mae": schedule}, weighting)


def fit(model, samples=8, **kwargs):
    x, y = arrays(samples)
    kwargs = {"batch_size": 4, "epochs": 2, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(x, y, validation_data=(x[:4], y[:4]), **kwargs).history


@pytest.mark.parametrize("name", ENDS)
def test_it_is_the_sum_with_the_weights_at_the_end_of_the_schedule(name):
    make, end = ENDS[name]
    model = compiled(scheduled(make()))
    x, y = arrays(4)
    for _ in range(2):
        logs = model.train_on_batch(x, y, return_dict=True)
        assert list(logs) == ["loss", *LOSSES, "mae_weight", "base_loss"]
        expected = 0.5 * logs["mse_loss"] + end * logs["mae_loss"]
        assert logs["base_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weighting", [None, w.MagnitudeBalance], ids=["alone", "with a rule"])
def test_fit_logs_it_of_training_and_validation(weighting):
    rule = None if weighting is None else weighting()
    history = fit(compiled(scheduled(w.LinearRamp(1000, end=2.0), rule), sgd(0.05)))
    for prefix in ("", "val_"):
        for epoch in range(2):
            mse, mae, base = (history[prefix + k][epoch] for k in [*LOSSES, "base_loss"])
            assert base == pytest.approx(0.5 * mse + 2.0 * mae, rel=1e-5)
    assert history["val_base_loss"][1] < history["val_base_loss"][0]


def test_without_weights_that_move_there_is_none():
    assert "base_loss" not in fit(compiled(cl.CompositeLoss(["mse", "mae"], {"mae": 0.5})))


def test_a_weight_that_was_set_ends_the_schedule_there_too():
    loss = scheduled(w.LinearRamp(1000, end=2.0))
    model = compiled(loss)
    x, y = arrays(4)
    model.train_on_batch(x, y)
    loss.set_weight("mae", 0.25)
    model.reset_metrics()
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["base_loss"] == pytest.approx(0.5 * logs["mse_loss"] + 0.25 * logs["mae_loss"])


def test_of_several_outputs_and_of_inner_composites_there_is_one_each():
    inner = cl.CompositeLoss({"in": scheduled(w.LinearRamp(10)), "mae": "mae"}, name="outer")
    model = compiled({"a": inner, "b": scheduled(w.LinearRamp(10))}, model=two_heads())
    x, y = arrays(4, outputs=2)
    logs = model.train_on_batch(x, [y[:, :1], y[:, 1:]], return_dict=True)
    for prefix in ("a_in/", "b_"):
        mse, mae = (logs[prefix + key] for key in LOSSES)
        assert logs[f"{prefix}base_loss"] == pytest.approx(0.5 * mse + mae, rel=1e-5)
    assert "a_base_loss" not in logs


def test_early_stopping_goes_on_while_a_ramp_raises_the_total():
    """The total rises with the ramp although every component falls."""

    def epochs(monitor):
        stop = keras.callbacks.EarlyStopping(monitor, mode="min", patience=1)
        loss = cl.CompositeLoss(["mse", "mae"], {"mse": 0.5, "mae": w.LinearRamp(10, end=20.0)})
        model = compiled(loss, sgd(0.001))
        return len(fit(model, epochs=5, callbacks=[stop])["loss"])

    assert epochs("val_base_loss") == 5
    assert epochs("val_loss") == 2


@pytest.mark.parametrize("schedule", [Table, Growing])
def test_a_schedule_without_an_end_has_its_first_weight_there(schedule):
    with pytest.warns(UserWarning, match=r"'mae'.*`final_weight`.*Received: "):
        loss = scheduled(schedule())
    model = compiled(loss)
    x, y = arrays(4)
    for _ in range(2):
        logs = model.train_on_batch(x, y, return_dict=True)
        expected = 0.5 * logs["mse_loss"] + 0.5 * logs["mae_loss"]
        assert logs["base_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["ramp", "own"])
def test_it_comes_back_from_a_config(name):
    loss = scheduled(ENDS[name][0]())
    x, y = arrays(4)
    expected, found = (
        compiled(each).train_on_batch(x, y, return_dict=True)
        for each in (loss, cl.CompositeLoss.from_config(loss.get_config()))
    )
    assert found["base_loss"] == pytest.approx(expected["base_loss"], rel=1e-5)


def test_a_loop_of_the_users_and_a_sum_for_each_sample_need_none():
    loss = cl.CompositeLoss(
        ["mse", "mae"], {"mae": w.LinearRamp(2, start=1.0, end=2.0)}, reduction="none"
    )
    y_true, y_pred = np.ones((3, 1)), np.zeros((3, 1))
    for expected in (2.0, 2.5, 3.0):
        with loss.training_step(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert loss(y_true, y_pred).shape == (3,)
            total = keras.ops.convert_to_numpy(loss(y_true, y_pred))
        np.testing.assert_allclose(total, np.full(3, expected))
