"""What moves is saved: training goes on from a file as if it had not stopped, to the last bit."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.processes import run_python
from tests.training.tiny import arrays, line, sgd, two_heads

w = cl.weightings
OPTIONS = {"batch_size": 4, "shuffle": False, "verbose": 0}


def of_two(weighting=None, weights=None):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights, weighting=weighting)


def everything(seed=0):
    """Every rule that has a state, in a composite of its own; `seed` for the draws."""
    rules = {
        "balance": w.MagnitudeBalance(momentum=0.75, update_every=2, warmup=1),
        "epochs": w.DynamicWeightAverage(),
        "random": w.RandomWeighting(seed=seed),
        "lookback": w.ReLoBRaLo(alpha=0.5, rho=0.5, seed=seed),
        "famo": w.FAMO(),
        "learned": w.UncertaintyWeighting(),
        "own": w.UncertaintyWeighting(learning_rate=0.1),
        "smoothed": w.Smoothed(w.RandomWeighting(seed=seed), momentum=0.5),
    }
    inner = {name: of_two(rule, [1.0, 0.5]) for name, rule in rules.items()}
    inner["ramp"] = of_two(w.Average(), {"mae": w.LinearRamp(20)})
    return cl.CompositeLoss(inner)


def compiled(loss, seed=0, model=None):
    model = line(seed=seed) if model is None else model
    model.compile(keras.optimizers.AdamW(0.01), loss=loss)
    model.optimizer.build(model.trainable_variables)  # else Keras cannot load its variables
    return model


def variables_of(model):
    """All that a model knows, of its losses and its optimizer too."""
    found = [*model.variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(variable).copy() for variable in found]


def assert_same(model, other):
    for one, two in zip(variables_of(model), variables_of(other), strict=True):
        np.testing.assert_array_equal(one, two)


def assert_go_on_alike(*models, epochs=2):
    x, y = arrays(8)
    histories = [model.fit(x, y, epochs=epochs, **OPTIONS).history for model in models]
    for model, history in zip(models, histories, strict=True):
        assert model.metrics_names == models[0].metrics_names
        assert history == histories[0]
        assert_same(model, models[0])


def trained(loss, seed=0, epochs=3):
    """A model after whole epochs and a single step."""
    x, y = arrays(8)
    model = compiled(loss, seed)
    model.fit(x, y, epochs=epochs, **OPTIONS)
    model.train_on_batch(x[:4], y[:4])
    return model


def test_a_saved_model_goes_on_as_the_one_that_was_not_saved(tmp_path):
    model = trained(everything())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(model, loaded)
    assert_go_on_alike(model, loaded)


def test_a_file_of_weights_restores_state_step_and_draws(tmp_path):
    """The file is loaded into a model with other seeds that has been trained, and into its own."""
    model, other = trained(everything()), trained(everything(seed=9), seed=1, epochs=1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(model, other)
    assert_go_on_alike(model, other)
    expected = variables_of(model)
    model.load_weights(tmp_path / "model.weights.h5")
    x, y = arrays(8)
    model.fit(x, y, epochs=2, **OPTIONS)
    for found, value in zip(variables_of(model), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_checkpoint_of_a_running_fit_goes_on_as_that_fit(tmp_path):
    x, y = arrays(8)
    path = str(tmp_path / "{epoch}.weights.h5")
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    model, other = compiled(everything()), compiled(everything(seed=9), seed=1)
    whole = model.fit(x, y, epochs=5, callbacks=[save], **OPTIONS).history
    other.load_weights(path.format(epoch=3))
    rest = other.fit(x, y, initial_epoch=3, epochs=5, **OPTIONS).history
    assert rest == {key: values[3:] for key, values in whole.items()}
    assert_same(other, model)


COMPOSITES = {
    "draws without a seed": lambda: of_two(w.RandomWeighting()),
    "learned": lambda: of_two(w.UncertaintyWeighting(["regression", "revised"])),
    "a schedule of Keras": lambda: of_two(
        weights={"mae": keras.optimizers.schedules.CosineDecay(2.0, 12)}
    ),
}


@pytest.mark.parametrize("case", COMPOSITES)
def test_a_composite_alone_is_restored_from_both_kinds_of_files(case, tmp_path):
    model = trained(COMPOSITES[case](), epochs=1)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = compiled(COMPOSITES[case](), seed=1)
    other.load_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_go_on_alike(model, other, loaded)


def test_composites_of_several_outputs_are_restored(tmp_path):
    def fresh():
        loss = {
            "a": of_two(w.MagnitudeBalance(momentum=0.75)),
            "b": cl.CompositeLoss(
                {"inner": of_two(w.RandomWeighting(seed=1)), "mae": "mae"},
                {"mae": w.LinearRamp(9)},
            ),
        }
        return compiled(loss, model=two_heads(structure=dict))

    x, y = arrays(8)
    target = {"a": y, "b": 2 * y}
    model = fresh()
    model.fit(x, target, epochs=2, **OPTIONS)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = fresh()
    other.load_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    histories = [m.fit(x, target, epochs=2, **OPTIONS).history for m in (model, other, loaded)]
    assert histories[0] == histories[1] == histories[2]


def test_early_stopping_restores_log_variances_with_the_best_weights():
    """Log-variances are weights of the model; other state of a rule is not restored."""
    rule = w.UncertaintyWeighting()
    model = line()
    model.compile(sgd(1.2), loss=of_two(rule))  # diverges
    x, y = arrays(8)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append([v.copy() for v in model.get_weights()])
    )
    stop = keras.callbacks.EarlyStopping(
        "val_base_loss", mode="min", patience=2, restore_best_weights=True
    )
    callbacks = [watch, stop]
    kwargs = {**OPTIONS, "validation_data": (x[:4], y[:4]), "callbacks": callbacks}
    history = model.fit(x, y, epochs=9, **kwargs).history
    best = int(np.argmin(history["val_base_loss"]))
    assert best < len(seen) - 1
    assert len(seen[best]) == 3  # kernel, bias, log-variances
    for found, expected in zip(model.get_weights(), seen[best], strict=True):
        np.testing.assert_array_equal(found, expected)
    learned = ops.convert_to_numpy(rule.trainable_variables[0])
    np.testing.assert_array_equal(learned, seen[best][2])


# Schedules that `set_weight` has ended.


def test_a_file_brings_a_schedule_back_that_was_ended_since(tmp_path):
    x, y = arrays(8)
    loss = of_two(weights={"mae": w.LinearRamp(8)})
    model = compiled(loss)
    model.fit(x, y, **OPTIONS)
    model.save_weights(tmp_path / "model.weights.h5")
    expected = model.fit(x, y, **OPTIONS).history
    loss.set_weight("mae", 7.0)
    model.fit(x, y, **OPTIONS)
    model.load_weights(tmp_path / "model.weights.h5")
    assert loss.weights["mae"] == 0.25
    assert model.fit(x, y, **OPTIONS).history == expected


@pytest.mark.parametrize("kind", ["model.keras", "model.weights.h5"])
def test_a_schedule_that_was_ended_stays_so_in_a_file(kind, tmp_path):
    x, y = arrays(8)
    schedules = {"mae": w.LinearRamp(8), "mse": w.LinearRamp(4, start=2.0, end=1.0)}
    model = compiled(of_two(weights=schedules))
    model.fit(x, y, **OPTIONS)
    model.loss.set_weight("mae", 7.0)
    if kind == "model.keras":
        model.save(tmp_path / kind)
        other = keras.saving.load_model(tmp_path / kind)
    else:
        model.save_weights(tmp_path / kind)
        other = compiled(of_two(weights=schedules), seed=1)
        other.load_weights(tmp_path / kind)
    assert other.loss.weights == model.loss.weights == {"mse": 1.5, "mae": 7.0}
    histories = [m.fit(x, y, **OPTIONS).history for m in (model, other)]
    assert histories[0] == histories[1]


# Starting over.


def test_reset_starts_a_rule_over():
    """The same weights again from a model that does not learn."""
    for rule in (w.FAMO(), w.RandomWeighting(seed=4), w.Smoothed(w.RandomWeighting(seed=4))):
        model = line()
        model.compile(sgd(0.0), loss=of_two(rule))
        x, y = arrays(8)
        histories = []
        for _ in range(2):
            rule.reset()
            histories.append(model.fit(x, y, epochs=2, **OPTIONS).history)
        assert histories[0] == histories[1]
        assert model.fit(x, y, epochs=2, **OPTIONS).history != histories[0]


# A process that is killed.

SCRIPT = '''
import json
import os
import signal

import keras
import numpy as np
from keras import ops

import combined_losses as cl

w = cl.weightings
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(12, 3)).astype("float32"), rng.normal(size=(12, 1)).astype("float32")


def of_two(weighting=None, weights=None):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights, weighting=weighting)


class Kill(keras.callbacks.Callback):
    """Kills the process in the middle of the fourth epoch."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 3 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, *callbacks):
    keras.utils.set_random_seed(1)
    loss = cl.CompositeLoss({
        "balance": of_two(w.MagnitudeBalance(momentum=0.75)),
        "epochs": of_two(w.DynamicWeightAverage()),
        "random": of_two(w.RandomWeighting(seed=7), [1.0, 0.5]),
        "ramp": of_two(weights={"mae": w.LinearRamp(17)}),
        "learned": of_two(w.UncertaintyWeighting()),
    })
    layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    model = cl.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    saving = [
        keras.callbacks.CSVLogger(f"{folder}.csv", append=True),
        keras.callbacks.BackupAndRestore(folder),
    ]
    history = model.fit(
        X, Y, batch_size=4, epochs=6, shuffle=False, validation_data=(X[:4], Y[:4]), verbose=0,
        callbacks=[*saving, *callbacks],
    ).history
    logs = {key: [float(value) for value in values] for key, values in history.items()}
    variables = [*model.variables, *model.optimizer.variables]
    variables = [ops.convert_to_numpy(variable).tolist() for variable in variables]
    return {"logs": logs, "variables": variables}


if "KILL" in os.environ:
    run("killed", Kill())
else:
    resumed = run("killed")
    print(json.dumps({"resumed": resumed, "whole": run("whole")}))
'''


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path):
    """Killed in its fourth epoch of six, and started again."""
    with pytest.raises(AssertionError, match="exit code -9"):
        run_python(SCRIPT, tmp_path, KILL="1")
    printed = run_python(SCRIPT, tmp_path)
    found = json.loads(printed.splitlines()[-1])
    resumed, whole = found["resumed"], found["whole"]
    assert resumed["variables"] == whole["variables"]
    assert len(whole["logs"]["loss"]) == 6
    assert resumed["logs"] == {key: values[3:] for key, values in whole["logs"].items()}
    files = []
    for name in ("killed", "whole"):
        with (tmp_path / f"{name}.csv").open() as file:
            files.append(list(csv.DictReader(file)))
    assert files[0] == files[1]
    # The weights move before and after the kill, so that the comparison shows something.
    for key in ("balance/mae_weight", "epochs/mae_weight", "random/mae_weight", "ramp/mae_weight"):
        assert len({row[key] for row in files[0][2:]}) == 4, key
