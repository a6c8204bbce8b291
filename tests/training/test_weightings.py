"""Weights that move, in training: the rules replayed by hand, what is logged, what is trained.

The formulas of the rules are written once more below, in float64. A model whose learning rate is 0
tells them the values of every batch; where it trains, the values are those that it has logged.
"""

import csv
import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.messages import raises
from tests.processes import run_python
from tests.training.test_custom_steps import jax_step, tensorflow_step, torch_step
from tests.training.tiny import FROZEN, arrays, line, predictions, sgd, two_heads, weights_of

BACKEND = keras.backend.backend()
SAMPLES, BATCH = 17, 2  # nine batches, the last one of a single sample


def fourth_power(y_true, y_pred):
    return ops.mean((y_true - y_pred) ** 4, axis=-1)


CHILDREN = {"mse": "mse", "mae": "mae", "fourth": fourth_power}
FIXED = {"mse": 1.0, "mae": 0.5, "fourth": 0.25}
K = len(CHILDREN)


def values_of(y_true, y_pred):
    """The components in float64."""
    error = np.abs(y_true.astype("float64") - y_pred)
    return np.array([np.mean(error**2), np.mean(error), np.mean(error**4)])


def composite(weighting=None, weights=None):
    return cl.CompositeLoss(CHILDREN, FIXED if weights is None else weights, weighting=weighting)


def data(samples=SAMPLES):
    """Targets whose scale grows, so that the components move from batch to batch."""
    x, y = arrays(samples)
    return x, (y * np.linspace(0.5, 2.0, samples)[:, None]).astype("float32")


def batches(x, y, batch_size=BATCH):
    return [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, len(x), batch_size)]


def compiled(loss, optimizer=None, model=None, **options):
    model = line() if model is None else model
    model.compile(sgd(FROZEN) if optimizer is None else optimizer, loss=loss, **options)
    return model


def fit(model, x, y, *callbacks, **kwargs):
    kwargs = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=list(callbacks), **kwargs).history


def step(model, x, y):
    """The logs of one step of training."""
    model.reset_metrics()  # `train_on_batch` does it since Keras 3.13
    return model.train_on_batch(x, y, return_dict=True)


def state_of(loss):
    return [ops.convert_to_numpy(variable).copy() for variable in loss.variables]


def assert_same(states, others):
    for one, other in zip(states, others, strict=True):
        np.testing.assert_array_equal(one, other)


# The rules in NumPy: `step` gives the weights of a step.


class Replay:
    def step(self, values):
        raise NotImplementedError

    def end_epoch(self):
        pass


class Balance(Replay):
    def __init__(self, momentum):
        self.momentum, self.mean = momentum, None

    def step(self, values):
        kept = 0.0 if self.mean is None else self.momentum
        self.mean = kept * (0.0 if self.mean is None else self.mean) + (1 - kept) * np.abs(values)
        return 1 / self.mean


def softmax(x):
    powers = np.exp(x - np.max(x))
    return powers / powers.sum()


class Relobralo(Replay):
    def __init__(self, alpha, rho, temperature, seed):
        self.alpha, self.rho, self.temperature = alpha, rho, temperature
        self.draws = keras.random.SeedGenerator(seed)
        self.first = None

    def step(self, values):
        keep = float(keras.random.uniform((), seed=self.draws)) < self.rho
        if self.first is None:
            self.first, self.weights = values, np.ones(K)
        else:
            looked = self.weights if keep else self.balance(values, self.first)
            now = self.balance(values, self.before)
            self.weights = self.alpha * looked + (1 - self.alpha) * now
        self.before = values
        return self.weights

    def balance(self, values, past):
        return K * softmax(values / (self.temperature * past + 1e-8))


class Famo(Replay):
    def __init__(self, learning_rate, weight_decay):
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.logits, self.m, self.v, self.moves = np.zeros(K), np.zeros(K), np.zeros(K), 0
        self.before = None

    def step(self, values):
        distance = values + 1e-8
        if self.before is not None:
            share, fall = softmax(self.logits), np.log(self.before) - np.log(distance)
            self.descend(share * (fall - share @ fall) + self.weight_decay * self.logits)
        self.before = distance
        weights = softmax(self.logits) / distance
        return weights / weights.sum()

    def descend(self, slope):
        self.moves += 1
        self.m = 0.9 * self.m + 0.1 * slope
        self.v = 0.999 * self.v + 0.001 * slope**2
        m, v = self.m / (1 - 0.9**self.moves), self.v / (1 - 0.999**self.moves)
        self.logits = self.logits - self.learning_rate * m / (np.sqrt(v) + 1e-8)


class Average(Replay):
    """Dynamic weight average; a period is an epoch or a number of steps."""

    def __init__(self, period, temperature=2):
        self.period, self.temperature = period, temperature
        self.seen, self.means = [], []

    def step(self, values):
        if len(self.seen) == self.period:
            self.swap()
        self.seen.append(values)
        if len(self.means) < 2:
            return np.ones(K)
        return K * softmax(self.means[-1] / self.means[-2] / self.temperature)

    def swap(self):
        self.means.append(np.mean(self.seen, axis=0))
        self.seen = []

    def end_epoch(self):
        if self.period == "epoch":
            self.swap()


class Random(Replay):
    def __init__(self, seed):
        self.draws = keras.random.SeedGenerator(seed)

    def step(self, values):
        z = ops.convert_to_numpy(keras.random.normal((K,), seed=self.draws))
        return softmax(z.astype("float64"))


class Uncertain(Replay):
    def __init__(self, learning_rate):
        self.learning_rate, self.s = learning_rate, np.zeros(K)

    def step(self, values):
        weights = np.exp(-self.s) / 2
        self.s = np.clip(self.s - self.learning_rate * (0.5 - weights * values), -10, 10)
        return weights


w = cl.weightings
RULES = {
    "balance": (lambda: w.MagnitudeBalance(momentum=0.75), lambda: Balance(0.75)),
    "relobralo": (
        lambda: w.ReLoBRaLo(alpha=0.75, rho=0.5, temperature=2.0, seed=5),
        lambda: Relobralo(0.75, 0.5, 2.0, 5),
    ),
    "famo": (lambda: w.FAMO(learning_rate=0.2, weight_decay=0.01), lambda: Famo(0.2, 0.01)),
    "epochs": (w.DynamicWeightAverage, lambda: Average("epoch")),
    "periods": (lambda: w.DynamicWeightAverage(period=4), lambda: Average(4)),
    "random": (lambda: w.RandomWeighting(seed=7), lambda: Random(7)),
    "own": (lambda: w.UncertaintyWeighting(learning_rate=0.1), lambda: Uncertain(0.1)),
}


def all_rules():
    """One composite with a nested one for each rule: one model shows all of them."""
    return cl.CompositeLoss({name: composite(make()) for name, (make, _) in RULES.items()})


def replayed(replay, model, x, y, epochs):
    """The logs of every epoch when the rule acts on a model that does not learn."""
    c, logs = np.array(list(FIXED.values())), []
    for _ in range(epochs):
        sums = np.zeros(K + 1)
        for inputs, target in batches(x, y):
            values = values_of(target, predictions(model, inputs))
            weights = c * replay.step(values)
            sums += len(inputs) * np.array([*weights, c @ values])
        replay.end_epoch()
        logs.append(sums / len(x))
    return dict(
        zip(
            [*(f"{name}_weight" for name in CHILDREN), "base_loss"], np.transpose(logs), strict=True
        )
    )


# Every rule is replayed.


MODES = {"auto": {}, "run_eagerly": {"run_eagerly": True}}
if BACKEND != "torch":  # there `jit_compile` needs a C++ compiler
    MODES |= {"jit": {"jit_compile": True}, "four steps at once": {"steps_per_execution": 4}}


@pytest.mark.parametrize("mode", MODES)
def test_the_weights_of_a_run_are_those_of_the_rules_replayed(mode):
    x, y = data()
    model = compiled(all_rules(), **MODES[mode])
    history = fit(model, x, y, epochs=3)
    for name, (_, make) in RULES.items():
        if mode == "jit" and BACKEND == "tensorflow" and name in ("relobralo", "random"):
            continue  # XLA draws other numbers from the same seed
        for key, expected in replayed(make(), model, x, y, 3).items():
            found = history[f"{name}/{key}"]
            np.testing.assert_allclose(found, expected, rtol=2e-4, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", RULES)
def test_in_a_model_that_learns_each_step_uses_the_rule_on_its_values(name):
    make, make_replay = RULES[name]
    model, replay = compiled(composite(make()), sgd(0.02)), make_replay()
    x, y = data()
    c = np.array(list(FIXED.values()))
    for inputs, target in batches(x, y, 4) * 2:
        logs = step(model, inputs, target)
        values = np.array([logs[f"{child}_loss"] for child in CHILDREN])
        weights = [logs[f"{child}_weight"] for child in CHILDREN]
        np.testing.assert_allclose(weights, c * replay.step(values), rtol=2e-4, atol=1e-7)


# What a rule gives is a constant of the step: gradients go through the components alone.


def test_the_weights_are_constants_of_the_gradient():
    """The kernel moves by the gradient of the weighted sum with the weights that are logged."""
    model = compiled(composite(w.MagnitudeBalance(momentum=0.75)), sgd(0.05))
    x, y = data(6)
    for _ in range(3):
        before = weights_of(model).astype("float64")
        inputs = np.c_[x, np.ones(len(x))].astype("float64")
        error = (inputs @ before)[:, None] - y
        logs = step(model, x, y)
        slope = 2 * error * logs["mse_weight"] + np.sign(error) * logs["mae_weight"]
        slope = slope + 4 * error**3 * logs["fourth_weight"]
        expected = before - 0.05 * (inputs.T @ slope)[:, 0] / len(x)
        np.testing.assert_allclose(weights_of(model), expected, rtol=1e-4, atol=1e-6)


# The invariant, in every step.


EVERY_RULE = {
    **{name: make for name, (make, _) in RULES.items()},
    "average": w.Average,
    "worst": w.Worst,
    "smooth_worst": lambda: w.Worst(temperature=0.5),
    "geometric": w.GeometricMean,
    "softadapt": lambda: w.SoftAdapt(normalized=True),
    "cov": w.CoVWeighting,
    "smoothed": lambda: w.Smoothed(w.RandomWeighting(seed=1), momentum=0.5),
    "learned": lambda: w.UncertaintyWeighting(["regression", "classification", "revised"]),
    "warm": lambda: w.MagnitudeBalance(warmup=2, update_every=2, max_weight=3.0, total="k"),
}
WITH_TERM = ("own", "worst", "smooth_worst", "learned")


def assert_adds_up(logs, prefix="", total="loss", has_term=False, penalty=0.0):
    parts = {name: logs[f"{prefix}{name}_loss"] for name in CHILDREN}
    summed = sum(logs[f"{prefix}{name}_weight"] * value for name, value in parts.items())
    term = logs[f"{prefix}weighting_loss"] if has_term else 0.0
    assert logs[total] == pytest.approx(summed + term + penalty, rel=2e-5, abs=1e-5), prefix
    base = sum(FIXED[name] * value for name, value in parts.items())
    assert logs[f"{prefix}base_loss"] == pytest.approx(base, rel=2e-5), prefix


def test_every_step_adds_up_with_every_rule():
    inner = {name: composite(make()) for name, make in EVERY_RULE.items()}
    inner["ramp"] = cl.CompositeLoss(CHILDREN, {"mae": w.LinearRamp(4)})
    model = compiled(cl.CompositeLoss(inner), sgd(1e-3), line(kernel_regularizer="l2"))
    x, y = data(20)
    seen = [step(model, *batch) for batch in batches(x, y, 5)]
    model.reset_metrics()  # `test_on_batch` does it since Keras 3.13
    seen.append(model.test_on_batch(x[:5], y[:5], return_dict=True))
    seen.append(model.evaluate(x[:5], y[:5], verbose=0, return_dict=True))
    for index, logs in enumerate(seen):
        for name in EVERY_RULE:
            assert_adds_up(logs, f"{name}/", f"{name}_loss", name in WITH_TERM)
        ramp = min(index, 4) / 4
        parts = [logs[f"ramp/{child}_loss"] for child in CHILDREN]
        assert logs["ramp_loss"] == pytest.approx(parts[0] + ramp * parts[1] + parts[2], rel=1e-5)
        assert logs["ramp/mae_weight"] == pytest.approx(ramp, rel=1e-6)
        total = sum(logs[f"{name}_loss"] for name in inner) + logs["regularization_loss"]
        assert logs["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ["balance", "learned", "smooth_worst"])
def test_every_batch_of_fit_adds_up(name):
    """Batches of one epoch each, so that logs are not means over several weights."""
    model = compiled(composite(EVERY_RULE[name]()), sgd(0.01), line(kernel_regularizer="l2"))
    x, y = data(6)
    history = fit(model, x, y, batch_size=6, epochs=4, validation_data=(x[:5], y[:5]))
    for epoch in range(4):
        for prefix in ("", "val_"):
            logs = {
                key.removeprefix(prefix): values[epoch]
                for key, values in history.items()
                if key.startswith("val_") == bool(prefix)
            }
            penalty = logs["regularization_loss"]
            assert_adds_up(logs, has_term=name in WITH_TERM, penalty=penalty)


# Log keys.

LOSSES = [f"{name}_loss" for name in CHILDREN]
WEIGHTS = [f"{name}_weight" for name in CHILDREN]
KEYS = {
    "a rule": (
        lambda: composite(w.MagnitudeBalance()),
        ["loss", *LOSSES, *WEIGHTS, "base_loss", "regularization_loss"],
    ),
    "a rule with a term": (
        lambda: composite(w.UncertaintyWeighting()),
        ["loss", *LOSSES, *WEIGHTS, "weighting_loss", "base_loss", "regularization_loss"],
    ),
    "a schedule": (
        lambda: composite(weights={"mae": w.LinearRamp(4)}),
        ["loss", *LOSSES, "mae_weight", "base_loss", "regularization_loss"],
    ),
    "a schedule and a rule": (
        lambda: composite(w.Average(), {"mae": w.LinearRamp(4)}),
        ["loss", *LOSSES, *WEIGHTS, "base_loss", "regularization_loss"],
    ),
    "nothing that moves": (composite, ["loss", *LOSSES, "regularization_loss"]),
}


@pytest.mark.parametrize("case", KEYS)
def test_log_keys_and_their_order(case):
    make, keys = KEYS[case]
    model = compiled(make(), model=line(kernel_regularizer="l2"), metrics=["mae"])
    assert model.metrics_names[: len(keys) - 1] == keys[:-1]  # the penalty shows in the first step
    x, y = data(4)
    assert list(step(model, x, y)) == [*keys, "mae"]
    history = fit(model, x, y, validation_data=(x, y))  # Keras sorts it
    assert sorted(history) == sorted([*keys, "mae", *(f"val_{key}" for key in [*keys, "mae"])])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == model.metrics_names == [*keys, "mae"]
    assert model.evaluate(x, y, verbose=0) == list(logs.values())


def test_a_csv_file_and_tensorboard_get_what_moves(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_ndarray = pytest.importorskip("tensorboard.util.tensor_util").make_ndarray
    pytest.importorskip("tensorflow")
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(str(tmp_path), write_graph=False),
    ]
    x, y = data(4)
    model = compiled(composite(w.UncertaintyWeighting()), sgd(0.01))
    history = fit(model, x, y, *callbacks, epochs=2, validation_data=(x, y))
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(rows[0]) == sorted(["epoch", *history])
    for key, values in history.items():
        assert [float(row[key]) for row in rows] == pytest.approx(values, rel=1e-6)
    for run, prefix in (("train", ""), ("validation", "val_")):
        events = reader.EventAccumulator(str(tmp_path / run))
        events.Reload()
        for key in [*WEIGHTS, "weighting_loss", "base_loss"]:
            found = [make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{key}")]
            assert np.ravel(found) == pytest.approx(history[prefix + key], rel=1e-6)


def test_early_stopping_watches_the_base_loss():
    """With this rule the total is always about 3, so only the base loss can show progress."""
    x, y = data(6)
    for rate, epochs in ((0.0, 3), (0.01, 5)):
        stop = keras.callbacks.EarlyStopping("val_base_loss", mode="min", patience=2)
        model = compiled(composite(w.MagnitudeBalance(momentum=0.0)), sgd(rate))
        history = fit(model, x, y, stop, batch_size=6, epochs=5, validation_data=(x, y))
        assert history["loss"] == pytest.approx([sum(FIXED.values())] * len(history["loss"]))
        assert len(history["loss"]) == epochs


@pytest.mark.parametrize("make", [composite, lambda: composite(w.DynamicWeightAverage())])
def test_fit_takes_a_list_of_callbacks_made_beforehand(make):
    model = compiled(make())
    x, y = data(4)
    callbacks = keras.callbacks.CallbackList([], add_history=True, model=model, epochs=3)
    for _ in range(2):
        history = model.fit(x, y, callbacks=callbacks, epochs=3, verbose=0).history
    assert len(history["loss"]) >= 3
    if model.loss.weighting is not None:  # the model stays as it is
        np.testing.assert_allclose(
            model.evaluate(x, y, verbose=0)[1 + K : 1 + 2 * K], [1, 0.5, 0.25]
        )


# Validation moves nothing.


def test_validation_never_changes_the_state_of_a_rule():
    x, y = data(8)
    loss = cl.CompositeLoss(
        {
            **{name: composite(make()) for name, make in EVERY_RULE.items()},
            "ramp": cl.CompositeLoss(CHILDREN, {"mae": w.LinearRamp(4)}),
        }
    )
    model = compiled(loss, sgd(1e-3))
    for inputs, target in batches(x, y, 4):
        step(model, inputs, target)
        before, learned = state_of(loss), weights_of(model)
        model.evaluate(x, -3 * y, batch_size=4, verbose=0)
        model.test_on_batch(x[:4], 5 * y[:4])
        model.predict(x, verbose=0)
        assert_same(state_of(loss), before)
        np.testing.assert_array_equal(weights_of(model), learned)


def test_a_run_with_validation_has_the_weights_of_one_without():
    x, y = data(6)
    states, logs = [], []
    for options in ({}, {"validation_data": (2 * x, y - 7)}):
        loss = all_rules()
        history = fit(compiled(loss, sgd(1e-3)), x, y, epochs=3, **options)
        states.append(state_of(loss))
        logs.append({key: v for key, v in history.items() if not key.startswith("val_")})
    assert logs[0] == logs[1]
    assert_same(*states)


def test_validation_uses_the_weights_that_training_has_left():
    """A rule that remembers or draws makes no new weights for validation data."""
    x, y = data(6)
    model = compiled(composite(w.RandomWeighting(seed=0)))
    trained = step(model, x, y)
    for target in (y, 3 * y):
        logs = model.test_on_batch(x, target, return_dict=True)
        assert [logs[key] for key in WEIGHTS] == pytest.approx([trained[key] for key in WEIGHTS])


class WithoutTraining(cl.Model):
    """A `compute_loss` as it was written before Keras added `training`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return super().compute_loss(x, y, y_pred, sample_weight)


def test_validation_moves_nothing_where_compute_loss_does_not_know_of_it():
    inputs = keras.Input((3,))
    model = WithoutTraining(inputs=inputs, outputs=keras.layers.Dense(1)(inputs))
    loss = composite(w.MagnitudeBalance(), {"mae": w.LinearRamp(4)})
    compiled(loss, model=model)
    x, y = data(4)
    step(model, x, y)
    before = state_of(loss)
    steps = loss._node.own_weights.steps
    assert float(steps.numpy() if BACKEND == "torch" else steps) == 1
    model.evaluate(x, 2 * y, verbose=0)
    assert_same(state_of(loss), before)


def test_a_loss_that_is_called_by_hand_does_not_move():
    """`components`, `as_metrics` and gradients of a loop of the user's are not training steps."""
    loss = composite(w.MagnitudeBalance())
    before = state_of(loss)
    x, y = data(4)
    loss.components(y, y + 1)
    compiled(loss).compute_loss(x, y, y + 1)
    assert_same(state_of(loss), before)


# Schedules.


def scheduled(schedule, name="mae"):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {name: schedule})


def test_a_schedule_follows_the_steps_of_training_across_epochs_and_fits():
    model = compiled(scheduled(w.LinearRamp(100, start=1.0, end=2.0)), sgd(0.01))
    x, y = data(10)
    sizes, done = np.array([4, 4, 2]), 0  # of three batches
    for epochs in (2, 1, 3):
        history = fit(model, x, y, batch_size=4, epochs=epochs, validation_data=(x, y))
        model.evaluate(x, y, verbose=0)
        for epoch in range(epochs):
            steps = done + 3 * epoch + np.arange(3)
            expected = np.sum(sizes * (1 + steps / 100)) / 10
            assert history["mae_weight"][epoch] == pytest.approx(expected, rel=1e-6)
            after = 1 + (steps[-1] + 1) / 100
            assert history["val_mae_weight"][epoch] == pytest.approx(after, rel=1e-6)
        done += 3 * epochs
    logs = step(model, x, y)
    assert logs["mae_weight"] == pytest.approx(1 + done / 100, rel=1e-6)
    assert model.loss.weights["mae"] == pytest.approx(1 + (done + 1) / 100, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_schedule_of_keras_in_every_mode(mode):
    schedule = keras.optimizers.schedules.ExponentialDecay(2.0, 10, 0.5)
    model = compiled(scheduled(schedule), **MODES[mode])
    x, y = data()
    history = fit(model, x, y, epochs=2)
    sizes = np.array([len(inputs) for inputs, _ in batches(x, y)] * 2)
    weights = 2.0 * 0.5 ** (np.arange(18) / 10)
    values = [values_of(t, predictions(model, i))[:2] for i, t in batches(x, y)] * 2
    totals = np.array([of_mse for of_mse, _ in values]) + weights * [v for _, v in values]
    for epoch, rows in enumerate((slice(0, 9), slice(9, 18))):
        for key, per_step in (("mae_weight", weights), ("loss", totals)):
            expected = np.sum((sizes * per_step)[rows]) / SAMPLES
            assert history[key][epoch] == pytest.approx(expected, rel=1e-5)


def test_a_component_that_begins_at_weight_0_trains_when_its_ramp_begins():
    """While its weight is 0 it is not finite, and neither value nor gradient may spoil a step."""

    def kl(y_true, y_pred):
        # Not finite in the first two batches, whose targets are above 3.
        return ops.mean(ops.abs(y_pred - y_true) + 0 * ops.log(3.0 - y_true), axis=-1)

    loss = cl.CompositeLoss({"mse": "mse", "kl": kl}, {"kl": w.LinearRamp(4, end=2.0, delay=1)})
    model = compiled(loss, sgd(0.05))
    x, y = data(12)
    y = np.clip(y, -1, 1)
    y[:4] += 5.0
    state = weights_of(model).astype("float64")
    for index, (inputs, target) in enumerate(batches(x, y)):
        weight = 2.0 * np.clip((index - 1) / 4, 0, 1)
        rows = np.c_[inputs, np.ones(len(inputs))].astype("float64")
        error = (rows @ state)[:, None] - target
        state = state - 0.05 * (rows.T @ (2 * error + weight * np.sign(error)))[:, 0] / len(inputs)
        logs = step(model, inputs, target)
        assert logs["kl_weight"] == pytest.approx(weight)
        assert np.isfinite(logs["loss"])
        assert np.isnan(logs["kl_loss"]) == (index < 2)
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-4)


@pytest.mark.parametrize("others", [{}, {"mse": w.LinearRamp(8)}], ids=["alone", "one of two"])
def test_set_weight_ends_a_schedule(others):
    loss = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": w.LinearRamp(4), **others})
    model = compiled(loss)
    x, y = data(4)
    seen = [step(model, x, y)["mae_weight"] for _ in range(2)]
    loss.set_weight("mae", 7.0)
    assert loss.weights["mae"] == 7.0
    for index in range(2, 4):
        logs = step(model, x, y)
        seen.append(logs["mae_weight"])
        of_mse = index / 8 if others else 1.0
        assert logs["loss"] == pytest.approx(of_mse * logs["mse_loss"] + 7 * logs["mae_loss"])
    assert seen == pytest.approx([0.0, 0.25, 7.0, 7.0])
    assert list(model.evaluate(x, y, verbose=0, return_dict=True)) == model.metrics_names


def test_set_weight_during_fit_ends_a_schedule_at_once():
    loss = scheduled(w.LinearRamp(4))
    model = compiled(loss)
    x, y = data(8)
    set_it = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batch == 1 and loss.set_weight("mae", 7.0)
    )
    history = fit(model, x, y, set_it, epochs=2)
    values = [values_of(t, predictions(model, i))[:2] for i, t in batches(x, y)]
    expected = [[0.0, 0.25, 7.0, 7.0], [7.0] * 4]
    for epoch, weights in enumerate(expected):
        totals = [of_mse + c * v for (of_mse, v), c in zip(values, weights, strict=True)]
        assert history["loss"][epoch] == pytest.approx(np.mean(totals), rel=1e-5)
    assert history["mae_weight"][-1] == 7.0


def test_set_weight_beside_a_rule_changes_the_fixed_factor():
    loss = composite(w.MagnitudeBalance(momentum=0.0))
    model = compiled(loss)
    x, y = data(4)
    for fixed in (0.5, 3.0, 0.0, 2.0):
        loss.set_weight("mae", fixed)
        logs = step(model, x, y)
        assert logs["mae_weight"] * logs["mae_loss"] == pytest.approx(fixed, abs=1e-6)
        assert logs["loss"] == pytest.approx(1.0 + fixed + 0.25, rel=1e-5)
        assert list(logs) == ["loss", *LOSSES, *WEIGHTS, "base_loss"]


# Learned weights.


def s_of(rule):
    return ops.convert_to_numpy(rule.trainable_variables[0]).astype("float64")


def slope(kinds, s, values, c=1.0):
    """The derivative of the total by s."""
    twice = np.array([1.0 if kind == "classification" else 0.5 for kind in kinds])
    of_term = [
        1 / (1 + np.exp(-x)) if kind == "revised" else 0.5 for kind, x in zip(kinds, s, strict=True)
    ]
    return -c * twice * np.exp(-s) * values + of_term


@pytest.mark.parametrize("mode", MODES)
def test_the_log_variances_take_the_steps_of_the_models_optimizer(mode):
    kinds = ["regression", "classification", "revised"]
    rule = w.UncertaintyWeighting(kinds, initial=0.5)
    model = compiled(composite(rule, {}), sgd(0.05), **MODES[mode])
    x, y = data(12)
    s = np.full(K, 0.5)
    for inputs, target in batches(x, y, 4) * 2:
        logs = step(model, inputs, target)
        weights = np.exp(-s) * [0.5, 1.0, 0.5]
        assert [logs[key] for key in WEIGHTS] == pytest.approx(weights, rel=1e-4)
        term = s[0] / 2 + s[1] / 2 + np.log1p(np.exp(s[2]))
        assert logs["weighting_loss"] == pytest.approx(term, rel=1e-4)
        s = s - 0.05 * slope(kinds, s, np.array([logs[key] for key in LOSSES]))
        np.testing.assert_allclose(s_of(rule), s, rtol=1e-4)


def test_the_log_variances_are_trainable_variables_of_the_model():
    rule = w.UncertaintyWeighting()
    model = compiled(composite(rule))
    (learned,) = rule.trainable_variables
    for variables in (model.trainable_variables, model.trainable_weights, model.variables):
        assert sum(variable is learned for variable in variables) == 1
    assert all(variable is not learned for variable in model.non_trainable_variables)
    own = w.UncertaintyWeighting(learning_rate=0.1)
    assert len(compiled(composite(own)).trainable_variables) == 2


def test_two_learned_rules_in_one_model_take_their_own_steps():
    rules = [w.UncertaintyWeighting(), w.UncertaintyWeighting(initial=0.5)]
    children = {name: composite(rule, {}) for name, rule in zip("ab", rules, strict=True)}
    model = compiled(cl.CompositeLoss(children), sgd(0.05))
    x, y = data(12)
    s = [np.zeros(K), np.full(K, 0.5)]
    for inputs, target in batches(x, y, 4):
        logs = step(model, inputs, target)
        for index, name in enumerate("ab"):
            values = np.array([logs[f"{name}/{key}"] for key in LOSSES])
            s[index] = s[index] - 0.05 * slope(["regression"] * K, s[index], values)
            np.testing.assert_allclose(s_of(rules[index]), s[index], rtol=1e-4)


def test_steps_of_its_own_are_those_of_plain_gradient_descent():
    """The same run, once with the model's optimizer and once with `learning_rate`."""
    x, y = data(12)
    rules = [w.UncertaintyWeighting(), w.UncertaintyWeighting(learning_rate=0.05)]
    histories = [fit(compiled(composite(r, {}), sgd(0.05)), x, y, epochs=2) for r in rules]
    for key, values in histories[0].items():
        np.testing.assert_allclose(histories[1][key], values, rtol=1e-4, err_msg=key)


EXCLUSIONS = {
    "nothing": lambda optimizer, model: None,
    "a list": lambda optimizer, model: optimizer.exclude_from_weight_decay(
        var_list=[model.layers[-1].kernel]
    ),
    "names": lambda optimizer, model: optimizer.exclude_from_weight_decay(var_names=["bias"]),
}


@pytest.mark.parametrize("excluded", EXCLUSIONS)
@pytest.mark.parametrize("scaled", [False, True], ids=["AdamW", "in a loss scaler"])
def test_log_variances_have_no_weight_decay_and_the_users_exclusions_stay(excluded, scaled):
    x, y = data(4)
    found = []
    for decay in (None, 0.5):
        rule = w.UncertaintyWeighting(initial=1.0)
        model = line(bias_initializer="ones")
        optimizer = keras.optimizers.Adam(0.01)
        if decay:
            optimizer = keras.optimizers.AdamW(0.01, weight_decay=decay)
            EXCLUSIONS[excluded](optimizer, model)
        whole = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0)
        compiled(composite(rule), whole if scaled else optimizer, model)
        step(model, x, y)
        kernel, bias = (ops.convert_to_numpy(v) for v in model.layers[-1].weights)
        found.append((s_of(rule), kernel, bias))
    (s, kernel, bias), (other_s, other_kernel, other_bias) = found
    np.testing.assert_array_equal(s, other_s)
    assert np.array_equal(kernel, other_kernel) == (excluded == "a list")
    assert np.array_equal(bias, other_bias) == (excluded == "names")


def test_an_exclusion_after_compiling_leaves_the_log_variances_alone():
    rule, optimizer = w.UncertaintyWeighting(), keras.optimizers.AdamW(0.01, weight_decay=0.5)
    model = line(bias_initializer="ones")
    compiled(composite(rule, {}), optimizer, model)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.optimizer.learning_rate = 0.0
    x, y = data(4)
    step(model, x, y)
    assert not optimizer._use_weight_decay(rule.trainable_variables[0])


def test_log_variances_stay_within_their_limits_and_come_back():
    """In a frozen network; the values are 4, 2 and 16, then all below 1e-3."""
    model = line(kernel_initializer="zeros")
    model.layers[-1].trainable = False
    rule = w.UncertaintyWeighting()
    compiled(composite(rule, {}), sgd(1e3), model)
    x = np.ones((4, 3), "float32")
    step(model, x, np.full((4, 1), 2.0, "float32"))
    assert list(s_of(rule)) == [10.0] * K
    model.optimizer.learning_rate = 0.5
    small = np.full((4, 1), 1e-6, "float32")
    logs = step(model, x, small)
    assert logs["mae_weight"] == pytest.approx(np.exp(-10) / 2, rel=1e-5)
    np.testing.assert_allclose(s_of(rule), 9.75, rtol=1e-6)
    model.optimizer.learning_rate = 1e3
    step(model, x, small)
    assert list(s_of(rule)) == [-10.0] * K
    assert np.isfinite(step(model, x, small)["loss"])


def test_half_precision_trains_the_log_variances_in_float32(half_precision):
    rule = w.UncertaintyWeighting()
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(0.05), initial_scale=8.0)
    model = compiled(composite(rule, {}), optimizer)
    assert rule.trainable_variables[0].dtype == "float32"
    x, y = data(8)
    s = np.zeros(K)
    for inputs, target in batches(x, y, 4):
        logs = step(model, inputs, target)
        assert [logs[key] for key in WEIGHTS] == pytest.approx(np.exp(-s) / 2, rel=1e-4)
        assert logs["base_loss"] == pytest.approx(sum(logs[key] for key in LOSSES), rel=1e-5)
        s = s - 0.05 * slope(["regression"] * K, s, np.array([logs[key] for key in LOSSES]))
        np.testing.assert_allclose(s_of(rule), s, rtol=1e-4)


def test_half_precision_keeps_the_state_of_a_rule_in_float32(half_precision):
    loss = composite(w.MagnitudeBalance(momentum=0.75), {})
    model, replay = compiled(loss, sgd(0.01)), Balance(0.75)
    x, y = data(8)
    for inputs, target in batches(x, y):
        logs = step(model, inputs, target)
        expected = replay.step(np.array([logs[key] for key in LOSSES]))
        assert [logs[key] for key in WEIGHTS] == pytest.approx(expected, rel=1e-4)


def test_accumulated_gradients_move_the_log_variances_by_their_mean():
    rule = w.UncertaintyWeighting()
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    model = compiled(composite(rule, {}), optimizer)
    x, y = data(16)
    s, slopes = np.zeros(K), []
    for inputs, target in batches(x, y, 4):
        logs = step(model, inputs, target)
        values = np.array([logs[key] for key in LOSSES])
        slopes.append(slope(["regression"] * K, s, values))
        if len(slopes) == 2:
            s, slopes = s - 0.05 * np.mean(slopes, axis=0), []
        np.testing.assert_allclose(s_of(rule), s, rtol=1e-4, atol=1e-7)


# Steps that the user writes.


def test_a_whole_training_step_of_the_user_moves_and_trains_the_weights():
    own_step = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}[BACKEND]
    own = type("Own", (cl.ComponentMetricsMixin, keras.Sequential), {"train_step": own_step})
    x, y = data(8)
    seen = []
    for cls in (own, cl.Sequential):
        loss = cl.CompositeLoss(
            {
                "balance": composite(w.MagnitudeBalance(momentum=0.75)),
                "random": composite(w.RandomWeighting(seed=3)),
                "learned": composite(w.UncertaintyWeighting()),
                "ramp": cl.CompositeLoss(CHILDREN, {"mae": w.LinearRamp(10)}),
            }
        )
        model = compiled(loss, sgd(0.01), line(cls))
        history = fit(model, x, y, batch_size=4, epochs=2)
        seen.append((history, weights_of(model), state_of(loss)))
    (history, weights, states), (expected, expected_weights, expected_states) = seen
    assert set(history) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(history[key], values, rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4)
    for one, other in zip(states, expected_states, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# Composites in composites, outputs, models.


def test_a_rule_inside_a_rule():
    inner = composite(w.MagnitudeBalance(momentum=0.5))
    loss = cl.CompositeLoss(
        {"mae": "mae", "inner": inner}, {"inner": 2.0}, weighting=w.MagnitudeBalance(momentum=0.0)
    )
    model = compiled(loss, sgd(0.01))
    inside = [f"inner/{key}" for key in [*WEIGHTS, "base_loss"]]
    outside = ["mae_weight", "inner_weight", "base_loss"]
    parts = [f"inner/{key}" for key in LOSSES]
    replay = Balance(0.5)
    x, y = data(8)
    for inputs, target in batches(x, y, 4):
        logs = step(model, inputs, target)
        assert list(logs) == ["loss", "mae_loss", "inner_loss", *parts, *inside, *outside]
        assert logs["loss"] == pytest.approx(3.0, rel=1e-5)  # each part, over itself
        assert logs["inner_weight"] == pytest.approx(2 / logs["inner_loss"], rel=1e-5)
        assert_adds_up(logs, "inner/", "inner_loss")
        expected = replay.step(np.array([logs[key] for key in parts])) * list(FIXED.values())
        assert [logs[key] for key in inside[:K]] == pytest.approx(expected, rel=1e-4)
        base = logs["mae_loss"] + 2 * logs["inner_loss"]
        assert logs["base_loss"] == pytest.approx(base, rel=1e-5)


def test_a_joint_composite_balances_outputs():
    children = {"a": cl.wrappers.OnOutput("mse", "a"), "b": cl.wrappers.OnOutput("mae", "b")}
    loss = cl.CompositeLoss(children, {"b": 0.5}, weighting=w.MagnitudeBalance(momentum=0.75))
    model = two_heads(structure=dict)
    compiled(loss, sgd(0.01), model)
    x, y = data(8)
    replay = Balance(0.75)
    for inputs, target in batches(x, y, 4) * 2:
        logs = step(model, inputs, {"a": target, "b": 3 * target})
        keys = ["loss", "a_loss", "b_loss", "a_weight", "b_weight", "base_loss"]
        assert list(logs) == keys
        weights = replay.step(np.array([logs["a_loss"], logs["b_loss"]])) * [1, 0.5]
        assert [logs["a_weight"], logs["b_weight"]] == pytest.approx(weights, rel=1e-4)
        total = weights @ [logs["a_loss"], logs["b_loss"]]
        assert logs["loss"] == pytest.approx(total, rel=1e-4)


def test_a_rule_on_one_of_several_outputs():
    loss = {"a": composite(w.MagnitudeBalance(momentum=0.0)), "b": "mse"}
    model = two_heads(structure=dict)
    compiled(loss, sgd(0.01), model, loss_weights={"b": 0.5})
    keys = [f"a_{key}" for key in [*LOSSES, *WEIGHTS, "base_loss"]]
    x, y = data(8)
    history = fit(model, x, {"a": y, "b": y}, batch_size=8, validation_data=(x, {"a": y, "b": y}))
    both = ["loss", *keys, "b_loss"]
    assert sorted(history) == sorted([*both, *(f"val_{key}" for key in both)])
    logs = step(model, x, {"a": y, "b": y})
    assert list(logs) == both == model.metrics_names
    assert logs["loss"] == pytest.approx(1.75 + 0.5 * logs["b_loss"], rel=1e-5)


def test_two_outputs_have_rules_of_their_own():
    loss = {"a": composite(w.MagnitudeBalance(momentum=0.5)), "b": composite(w.RandomWeighting(1))}
    model = two_heads(structure=dict)
    compiled(loss, sgd(0.01), model)
    x, y = data(8)
    replays = {"a": Balance(0.5), "b": Random(1)}
    for inputs, target in batches(x, y, 4):
        logs = step(model, inputs, {"a": target, "b": 3 * target})
        for output, replay in replays.items():
            values = np.array([logs[f"{output}_{key}"] for key in LOSSES])
            expected = replay.step(values) * list(FIXED.values())
            found = [logs[f"{output}_{key}"] for key in WEIGHTS]
            assert found == pytest.approx(expected, rel=1e-4)


MOVING = {
    "a rule": lambda: composite(w.MagnitudeBalance()),
    "a schedule": lambda: composite(weights={"mae": w.LinearRamp(3)}),
    "inside": lambda: cl.CompositeLoss({"inner": composite(w.Average())}),
}


@pytest.mark.parametrize("case", MOVING)
def test_one_moving_composite_for_several_outputs_is_an_error(case):
    one = MOVING[case]()
    for loss in (one, [one, one], {"a": one, "b": one}):
        with raises(ValueError, "weights that move", "'a'", "'b'", "of its own"):
            compiled(loss, model=two_heads(structure=dict))
    compiled({"a": MOVING[case](), "b": MOVING[case]()}, model=two_heads(structure=dict))


@pytest.mark.filterwarnings("ignore:.* was compiled in another model before")
def test_two_models_that_share_a_composite_move_one_state():
    loss, replay = composite(w.MagnitudeBalance(momentum=0.75), {}), Balance(0.75)
    models = [compiled(loss, sgd(0.01), line(seed=seed)) for seed in range(2)]
    x, y = data(12)
    for index, (inputs, target) in enumerate(batches(x, y)):
        logs = step(models[index % 2], inputs, target)
        expected = replay.step(np.array([logs[key] for key in LOSSES]))
        assert [logs[key] for key in WEIGHTS] == pytest.approx(expected, rel=1e-4)
    for model in models:  # and fit goes on from there
        before = state_of(loss)
        fit(model, x, y)
        assert state_of(loss)[1] != before[1]


def test_a_tracked_model_moves_and_a_plain_one_says_that_it_does_not():
    x, y = data(6)
    loss = scheduled(w.LinearRamp(3, start=1.0, end=2.0))
    plain = line(keras.Sequential)
    plain.compile(sgd(0.01), loss=loss)
    with pytest.warns(UserWarning, match="cl.track"):
        plain.fit(x, y, batch_size=2, verbose=0)
    assert loss.weights["mae"] == 1.0
    tracked = cl.track(plain)
    compiled(loss, sgd(0.01), tracked)
    history = fit(tracked, x, y)
    assert history["mae_weight"] == pytest.approx([(1 + 4 / 3 + 5 / 3) / 3])
    assert loss.weights["mae"] == 2.0


def test_a_rule_belongs_to_one_composite():
    rule = w.MagnitudeBalance()
    composite(rule)
    with raises(ValueError, "a rule of its own"):
        composite(rule)


@pytest.mark.backend_free
def test_a_rule_where_weights_belong_names_the_argument():
    with raises(ValueError, "weighting="):
        cl.CompositeLoss(["mse", "mae"], weights=w.MagnitudeBalance())
    with raises(ValueError, "weighting="):
        cl.CompositeLoss(["mse", "mae"], weights={"mae": w.MagnitudeBalance()})


# What is not finite.


def test_a_component_that_is_not_finite_for_a_step_does_not_poison_the_state():
    """In that step the loss is not finite and the weight stays; the next steps are as usual."""

    def breaks(y_true, y_pred):
        return ops.mean(ops.abs(y_pred - y_true) + 0 * ops.log(3.0 - y_true), axis=-1)

    children = {"mse": "mse", "mae": breaks}
    names = [name for name in EVERY_RULE if name != "learned"]  # whose gradient is not finite
    inner = {name: cl.CompositeLoss(children, weighting=EVERY_RULE[name]()) for name in names}
    loss = cl.CompositeLoss(inner)
    model = compiled(loss)
    x, y = data(8)
    y = np.clip(y, -2, 2)
    broken = y + 9.0
    step(model, x, y)
    logs = step(model, x, broken)
    assert np.isnan(logs["loss"])
    for name in names:
        assert logs[f"{name}/mae_weight"] > 0, name
        assert np.isfinite(logs[f"{name}/mse_weight"]), name
    assert all(np.isfinite(variable).all() for variable in state_of(loss))
    logs = step(model, x, y)
    assert all(np.isfinite(value) for value in logs.values())


# Two replicas.

SCRIPT = """
import json

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
import numpy as np

import combined_losses as cl

w = cl.weightings
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(2, 10, 3)).astype("float32")
Y = Y[:, :1] * np.linspace(0.5, 2.0, 10, dtype="float32")[:, None]


def of_two(weighting=None, weights=None):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights, weighting=weighting)


def every_rule():
    return cl.CompositeLoss({
        "balance": of_two(w.MagnitudeBalance(momentum=0.75), [1.0, 0.5]),
        "random": of_two(w.RandomWeighting(seed=7)),
        "ramp": of_two(weights={"mae": w.LinearRamp(7)}),
        "learned": of_two(w.UncertaintyWeighting()),
        "epochs": of_two(w.DynamicWeightAverage()),
    })


def size(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_pred), axis=-1)


# No label in the first batch, and in the second only on the second replica.
SOME = np.where(np.arange(10)[:, None] < 6, np.nan, Y).astype("float32")

LOSSES = {
    "every rule": every_rule,
    "absent": lambda: cl.CompositeLoss(
        {"labels": cl.wrappers.Masked("mse"), "size": size}, weighting=w.SoftAdapt(5.0)
    ),
    "learned": lambda: of_two(w.UncertaintyWeighting()),
    "random": lambda: of_two(w.RandomWeighting(seed=7), {"mae": w.LinearRamp(7)}),
}


def run(loss, samples, inside):
    loss = LOSSES[loss]() if inside else OUTSIDE
    kernel = keras.initializers.Constant(0.5)
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer=kernel)])
    # Eager steps on one device, an independent way to the same numbers.
    eager = not tf.distribute.has_strategy()
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss=loss, run_eagerly=eager)
    x, y = X[:samples], (SOME if "labels" in loss.names else Y)[:samples]
    kwargs = dict(batch_size=4, verbose=0)
    logs = model.fit(
        x, y, epochs=3, shuffle=False, validation_data=(x[:6], y[:6]), **kwargs
    ).history
    found = {f"{key} {epoch}": logs[key][epoch] for key in logs for epoch in range(3)}
    state = [variable.numpy() for variable in model.variables + loss.variables]
    state = np.concatenate([np.ravel(value).astype("float64") for value in state])
    return found | {f"variable {index}": value for index, value in enumerate(state)}


found = []
for case in json.load(open("cases.json")):
    OUTSIDE = None if case["inside"] else LOSSES[case["loss"]]()
    alone = run(**case)
    OUTSIDE = None if case["inside"] else LOSSES[case["loss"]]()
    with STRATEGY.scope():
        together = run(**case)
    found.append([alone, together])
print(json.dumps(found))
"""

# Batches of 4; the last one has two samples, three (uneven), one (a replica gets nothing).
CASES = [
    {"loss": "every rule", "samples": 7, "inside": True},
    {"loss": "learned", "samples": 10, "inside": True},
    {"loss": "random", "samples": 9, "inside": True},
    {"loss": "absent", "samples": 10, "inside": True},
]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas_move_the_weights_as_one_device_does(tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    printed = run_python(SCRIPT, tmp_path)
    for case, (alone, together) in zip(CASES, json.loads(printed.splitlines()[-1]), strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-6), case


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_a_composite_made_outside_the_scope_moves_as_one_or_says_that_it_cannot(tmp_path):
    cases = [{"loss": "random", "samples": 9, "inside": False}]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    try:
        printed = run_python(SCRIPT, tmp_path)
    except AssertionError as error:
        assert "ValueError" in str(error) and "scope" in str(error)
        return
    ((alone, together),) = json.loads(printed.splitlines()[-1])
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
