"""`callbacks.GradientConflict`: the cosines of a training, and where they go."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.training.for_callbacks import last_batch
from tests.messages import raises
from tests.training.tiny import FROZEN, arrays, line, predictions, sgd


def upwards(y_true, y_pred):
    return -ops.mean(y_pred, axis=-1)


def downwards(y_true, y_pred):
    return ops.mean(y_pred, axis=-1)


def tracked(losses, rate=FROZEN, cls=cl.Sequential, **kwargs):
    model = line(cls)
    model.compile(sgd(rate), loss=cl.CompositeLoss(losses, **kwargs))
    return model


def fit(model, x, y, *callbacks, **kwargs):
    how = {"batch_size": 5, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=list(callbacks), **how).history


@pytest.mark.parametrize("place", ["output", "parameters"])
def test_cosines_are_those_of_the_batches(place):
    x, y = arrays(20)
    model = tracked({"mse": "mse", "up": upwards})
    conflict = cl.callbacks.GradientConflict(every=2, at=place)
    history = fit(model, x, y, conflict)
    assert conflict.names == ("mse", "up")
    assert conflict.steps == [1, 3]
    expected = []
    for start in (0, 10):
        batch = slice(start, start + 5)
        rows = [predictions(model, x[batch]) - y[batch], -np.ones((5, 1))]
        if place == "parameters":
            features = np.hstack([x[batch], np.ones((5, 1))]).astype("float64")
            rows = [features.T @ row for row in rows]
        lengths = [np.linalg.norm(row) for row in rows]
        expected.append(np.sum(rows[0] * rows[1]) / np.prod(lengths))
    np.testing.assert_allclose([c[0, 1] for c in conflict.history], expected, rtol=1e-5)
    np.testing.assert_allclose(conflict.cosines[0, 1], np.mean(expected), rtol=1e-5)
    assert history["min_cosine"] == [pytest.approx(np.mean(expected), rel=1e-5)]
    assert cl.plots.conflicts(conflict).get_xlabel() == ""


def test_counts_on_over_epochs_and_starts_over():
    x, y = arrays(20)
    model = tracked({"up": upwards, "down": downwards, "mse": "mse"})
    conflict = cl.callbacks.GradientConflict(every=3)
    for _ in range(2):
        history = fit(model, x, y, conflict, epochs=3)
        assert conflict.steps == [1, 4, 7, 10]
        assert history["min_cosine"] == [pytest.approx(-1.0, abs=1e-5)] * 3


def test_data_of_ones_own_are_the_same_in_every_measurement():
    x, y = arrays(20)
    x, y = x.astype("float64"), y.astype("float64")
    weights = np.linspace(0, 1, 20)
    model = tracked({"mse": "mse", "up": upwards})
    conflict = cl.callbacks.GradientConflict(every=1, data=(x, y, weights))
    fit(model, x, y, conflict, epochs=1)
    np.testing.assert_array_equal(conflict.history[0], conflict.history[-1])
    alone = cl.diagnose(model, x, y, weights, batch_size=20)
    np.testing.assert_allclose(conflict.cosines, alone.cosines, rtol=1e-6)


def test_a_plain_model_with_data():
    x, y = arrays(20)
    model = tracked({"up": upwards, "down": downwards}, cls=keras.Sequential)
    conflict = cl.callbacks.GradientConflict(data=(x, y))
    assert fit(model, x, y, conflict)["min_cosine"] == [pytest.approx(-1.0, abs=1e-5)]
    with raises(ValueError, "tracked models only", "cl.track(model)"):
        fit(model, x, y, cl.callbacks.GradientConflict())


def test_looking_changes_no_number():
    x, y = arrays(23)
    histories = []
    for callbacks in ([], [cl.callbacks.GradientConflict(every=1)]):
        keras.utils.set_random_seed(0)
        dropout = [keras.layers.Dense(4), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(1)]
        model = cl.Sequential([keras.Input((3,)), *dropout])
        model.compile("adam", loss=cl.CompositeLoss({"mse": "mse", "up": upwards}))
        histories.append(fit(model, x, y, *callbacks, epochs=3, validation_data=(x, y)))
    histories[1].pop("min_cosine")
    assert histories[0].keys() == histories[1].keys()
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_no_pair_with_a_gradient():
    x, y = arrays(20)
    model = tracked({"mse": "mse", "still": lambda t, p: 0.0 * p[:, 0]})
    conflict = cl.callbacks.GradientConflict(every=1)
    assert np.isnan(fit(model, x, y, conflict)["min_cosine"]).all()
    assert np.isnan(conflict.cosines[0, 1]) and conflict.cosines[0, 0] == pytest.approx(1.0)
    assert cl.callbacks.GradientConflict().cosines is None


def test_a_rule_that_logs_the_key_keeps_it():
    x, y = arrays(20)
    rule = cl.weightings.UPGrad(log_conflict=True)
    model = tracked({"mse": "mse", "up": upwards}, weighting=rule)
    alone = fit(model, x, y)["min_cosine"]
    conflict = cl.callbacks.GradientConflict(every=3)
    assert fit(model, x, y, conflict)["min_cosine"] == pytest.approx(alone)


def test_with_another_callback_that_keeps_batches(tmp_path):
    x, y = arrays(20)
    model = tracked({"mse": "mse", "up": upwards})
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    conflict = cl.callbacks.GradientConflict(every=1)
    fit(model, x, y, stop, conflict, epochs=2)
    assert len(conflict.history) == 8
    with raises(ValueError, "not available"):  # nothing is kept after training
        last_batch(model)


def test_batches_are_asked_for_once():
    """The step that returns them is compiled for the first training; without the callback its logs
    are those of before."""
    x, y = arrays(20)
    model = tracked({"mse": "mse", "up": upwards})
    keys = fit(model, x, y).keys()
    functions = [model.train_function]
    for callbacks in ([cl.callbacks.GradientConflict()], [cl.callbacks.GradientConflict()], []):
        history = fit(model, x, y, *callbacks)
        functions.append(model.train_function)
    assert history.keys() == keys
    assert functions[0] is not functions[1] is functions[2] is functions[3]
    assert model.train_on_batch(x, y, return_dict=True).keys() == keys


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras on torch takes steps one by one"
)
def test_several_steps_in_one_call():
    x, y = arrays(20)
    model = line()
    loss = cl.CompositeLoss({"mse": "mse", "up": upwards})
    model.compile(sgd(), loss=loss, steps_per_execution=2)
    with raises(ValueError, "one batch a step", "steps_per_execution=2"):
        fit(model, x, y, cl.callbacks.GradientConflict())
    conflict = cl.callbacks.GradientConflict(every=2, data=(x, y))
    fit(model, x, y, conflict)
    assert conflict.steps == [2, 4]


def test_errors():
    for every in (0, 1.5, True):
        with raises(ValueError, "`every` must be", f"Received: {every!r}"):
            cl.callbacks.GradientConflict(every)
    with raises(ValueError, "`data` must be", "Received: list"):
        cl.callbacks.GradientConflict(data=[1, 2])
    x, y = arrays(8)
    with raises(ValueError, "`at` must be", "Received: 'layer'"):
        fit(tracked(["mse"]), x, y, cl.callbacks.GradientConflict(at="layer"))
    plain = line()
    plain.compile("sgd", loss="mse")
    with raises(ValueError, "GradientConflict needs a model whose loss", "Received: loss='mse'"):
        fit(plain, x, y, cl.callbacks.GradientConflict())
