"""`LossWeightScheduler` acts on the very next step, on every backend."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.messages import raises
from tests.training.tiny import FROZEN, arrays, line, mae, mse, predictions, sgd, two_heads

BATCH = 4  # three batches of the ten samples, the last one of two
SIZES = np.array([4, 4, 2])
Scheduler = cl.callbacks.LossWeightScheduler


def mse_and_mae(weights=None, **kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights, **kwargs)


def compiled(loss, model=None, learning_rate=FROZEN, **options):
    model = line() if model is None else model
    model.compile(sgd(learning_rate), loss=loss, **options)
    return model


def fit(model, *callbacks, **kwargs):
    x, y = arrays()
    kwargs = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=list(callbacks), **kwargs).history


def totals(model, weights):
    """The mean total of each epoch when the batches have these weights of `mae`, in order."""
    x, y = arrays()
    parts = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]
    values = [(y[rows], predictions(model, x[rows])) for rows in parts]
    of_mse, of_mae = (np.array([f(*pair) for pair in values]) for f in (mse, mae))
    per_epoch = np.reshape(weights, (-1, len(SIZES)))
    return [np.sum(SIZES * (of_mse + row * of_mae)) / len(x) for row in per_epoch]


MODES = {"auto": {}, "run_eagerly": {"run_eagerly": True}}
if keras.backend.backend() != "torch":  # there `jit_compile` needs a C++ compiler
    MODES |= {"jit": {"jit_compile": True}}


@pytest.mark.parametrize("mode", MODES)
def test_a_new_weight_for_every_epoch(mode):
    model = compiled(mse_and_mae(), **MODES[mode])
    history = fit(model, Scheduler("mae", lambda epoch, weight: 3.0 - epoch), epochs=4)
    assert history["mae_weight"] == [3.0, 2.0, 1.0, 0.0]
    expected = totals(model, np.repeat([3.0, 2.0, 1.0, 0.0], 3))
    assert history["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_new_weight_for_every_batch_counted_on_from_epoch_to_epoch(mode):
    model = compiled(mse_and_mae(), **MODES[mode])
    callback = Scheduler("mae", lambda batch, weight: 0.5 * batch, per="batch")
    for _ in range(2):  # and each `fit` begins anew
        history = fit(model, callback, epochs=2)
        assert history["loss"] == pytest.approx(totals(model, 0.5 * np.arange(6)), rel=1e-5)


def test_the_function_is_given_the_index_and_the_current_weight():
    seen = []

    def halve(index, weight):
        seen.append((index, weight))
        return weight / 2

    model = compiled(mse_and_mae({"mae": 8.0}))
    fit(model, Scheduler("mae", halve), epochs=2)
    fit(model, Scheduler("mae", halve, per="batch"))
    assert seen == [(0, 8.0), (1, 4.0), (0, 2.0), (1, 1.0), (2, 0.5)]
    assert model.loss.weights == {"mse": 1.0, "mae": 0.25}


def test_the_index_of_the_epoch_is_that_of_keras():
    seen = []
    callback = Scheduler("mae", lambda epoch, weight: seen.append(epoch) or weight)
    fit(compiled(mse_and_mae()), callback, initial_epoch=3, epochs=5)
    assert seen == [3, 4]


def test_it_trains_as_set_weight_does():
    weights = (2.0, 0.0, 5.0)
    one, other = (compiled(mse_and_mae(), learning_rate=0.05) for _ in range(2))
    fit(one, Scheduler("mae", lambda batch, weight: weights[batch], per="batch"))
    x, y = arrays()
    for index, weight in enumerate(weights):
        rows = slice(BATCH * index, BATCH * (index + 1))
        other.loss.set_weight("mae", weight)
        other.train_on_batch(x[rows], y[rows])
    for found, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_validation_has_the_weight_of_the_epoch():
    x, y = arrays()
    model = compiled(mse_and_mae())
    schedule = Scheduler("mae", lambda epoch, weight: 1.0 + epoch)
    history = fit(model, schedule, epochs=3, validation_data=(x[:5], y[:5]))
    assert history["val_mae_weight"] == [1.0, 2.0, 3.0]
    parts = np.array(history["val_mse_loss"]), np.array(history["val_mae_loss"])
    assert history["val_loss"] == pytest.approx(parts[0] + [1, 2, 3] * parts[1], rel=1e-6)


# Which component.


def test_a_part_of_a_nested_composite():
    loss = cl.CompositeLoss({"mse": "mse", "inner": mse_and_mae()}, {"inner": 2.0})
    model = compiled(loss)
    history = fit(model, Scheduler("inner/mae", lambda epoch, weight: 3.0 * epoch), epochs=2)
    assert history["inner/mae_weight"] == [0.0, 3.0]
    of_mse, of_mae = totals(model, np.zeros(3))[0], np.diff(totals(model, np.repeat([0, 1], 3)))[0]
    expected = [3 * of_mse, 3 * of_mse + 2 * 3 * of_mae]
    assert history["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_component_of_one_of_several_outputs():
    x, y = arrays()
    model = two_heads(structure=dict)
    model.compile(sgd(FROZEN), loss={"a": mse_and_mae(), "b": "mse"})
    schedule = Scheduler("mae", lambda epoch, weight: 2.0 + epoch)
    target = {"a": y, "b": y}
    logs = model.fit(x, target, epochs=2, callbacks=[schedule], verbose=0).history
    parts = {key: np.array(values) for key, values in logs.items()}
    expected = parts["a_mse_loss"] + [2, 3] * parts["a_mae_loss"] + parts["b_loss"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert logs["a_mae_weight"] == [2.0, 3.0]


def test_beside_a_rule_it_sets_the_fixed_factor():
    """Each component over its own mean counts 1, times its fixed weight."""
    rule = cl.weightings.MagnitudeBalance(momentum=0.0)
    model = compiled(mse_and_mae(weighting=rule))
    history = fit(model, Scheduler("mae", lambda epoch, weight: 1.0 + epoch), epochs=3)
    assert history["loss"] == pytest.approx([2.0, 3.0, 4.0], rel=1e-5)


def test_it_takes_over_from_a_schedule_at_its_current_weight():
    seen = []

    def keep(index, weight):
        seen.append(weight)
        return weight

    model = compiled(mse_and_mae({"mae": cl.weightings.LinearRamp(12)}))
    fit(model)
    history = fit(model, Scheduler("mae", keep), epochs=2)
    assert seen == pytest.approx([0.25, 0.25])
    assert history["mae_weight"] == pytest.approx([0.25, 0.25])
    assert history["loss"] == pytest.approx(totals(model, [0.25] * 6), rel=1e-5)


@pytest.mark.parametrize("name", ["mea", "inner", "mae_loss", ""])
def test_an_unknown_name_is_an_error_before_the_first_step(name):
    model = compiled(mse_and_mae())
    with raises(ValueError, "'mse'", "'mae'", repr(name)):
        fit(model, Scheduler(name, lambda epoch, weight: 1.0))


def test_a_name_that_two_outputs_have_is_an_error():
    x, y = arrays()
    model = two_heads(structure=dict)
    model.compile(sgd(FROZEN), loss={"a": mse_and_mae(), "b": mse_and_mae()})
    schedule = Scheduler("mae", lambda epoch, weight: 1.0)
    with raises(ValueError, "one component", "'mae'"):
        model.fit(x, {"a": y, "b": y}, callbacks=[schedule], verbose=0)


def test_a_model_without_a_composite_is_an_error():
    model = line()
    model.compile(sgd(FROZEN), loss="mse")
    with raises(ValueError, "none", "'mae'"):
        fit(model, Scheduler("mae", lambda epoch, weight: 1.0))


# Bad arguments and bad weights.


@pytest.mark.parametrize("per", ["epoch", "batch"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "much", [1.0, 2.0]])
def test_a_weight_that_is_no_finite_number_is_an_error(value, per):
    model = compiled(mse_and_mae())
    with raises(ValueError, "'mae'", "finite number", f"{per} 0", f"Received: {value!r}"):
        fit(model, Scheduler("mae", lambda index, weight: value, per=per))
    assert model.loss.weights["mae"] == 1.0


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), 1, True])
def test_what_float_takes_is_a_weight(value):
    model = compiled(mse_and_mae())
    history = fit(model, Scheduler("mae", lambda index, weight: value))
    assert history["mae_weight"] == [float(value)]


@pytest.mark.backend_free
def test_bad_arguments_are_errors():
    with raises(ValueError, "f(index, weight)", "0.5"):
        Scheduler("mae", 0.5)
    with raises(ValueError, "'epoch' or 'batch'", "'step'"):
        Scheduler("mae", lambda index, weight: weight, per="step")


def test_verbose_prints_a_line_for_each_new_weight(capsys):
    model = compiled(mse_and_mae())
    fit(model, Scheduler("mae", lambda epoch, weight: 0.5, verbose=1), epochs=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "mae" in line]
    assert len(lines) == 2 and all("0.5" in line for line in lines)
    fit(model, Scheduler("mae", lambda epoch, weight: 0.5))
    assert capsys.readouterr().out == ""
