"""Outputs, inputs and terms of one model with numbers of rows of their own."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import OnInputs, OnOutput, PredictionOnly
from tests.messages import raises
from tests.processes import run_python
from tests.training.tiny import FROZEN, sgd

# The rows of each set of points in three batches: no ratio of two is the same in all.
SIZES = [
    {"pde": 8, "ic": 2, "bc": 4},
    {"pde": 6, "ic": 4, "bc": 1},
    {"pde": 2, "ic": 1, "bc": 5},
]
W = np.array([[0.5], [-1.0]], "float32")


def batches(weighted=False, sizes=SIZES):
    rng = np.random.default_rng(0)
    found = []
    for of in sizes:
        x = {name: rng.normal(size=(n, 2)).astype("float32") for name, n in of.items()}
        y = {f"u_{n}": rng.normal(size=(of[n], 1)).astype("float32") for n in ("ic", "bc")}
        weight = {name: rng.uniform(0.5, 2, len(y[name])).astype("float32") for name in y}
        found.append((x, y, weight) if weighted else (x, y))
    return found


def network():
    """One layer for all sets of points; the prediction is `x @ W`."""
    inputs = {name: keras.Input((2,), name=name) for name in ("pde", "ic", "bc")}
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(W))
    return cl.Model(inputs, {f"u_{name}": layer(x) for name, x in inputs.items()})


def residual(model, x, y, y_pred):
    return ops.square(y_pred["u_pde"] - 1.0)


def size_of(y_pred):
    return ops.mean(ops.square(y_pred), axis=-1)


def composite(**kwargs):
    parts = {
        "pde": OnInputs(residual),
        "ic": OnOutput("mse", "u_ic"),
        "bc": OnOutput("mae", "u_bc"),
        "size": OnOutput(size_of, "u_pde"),
    }
    return cl.CompositeLoss(parts, {"pde": 0.5, "bc": 2.0}, **kwargs)


def terms(x, y, weight=None):
    """The values of each row of each term, and their weights."""
    p = {name: points.astype("float64") @ W for name, points in x.items()}
    rows = {
        "pde": (p["pde"][:, 0] - 1) ** 2,
        "ic": (p["ic"] - y["u_ic"])[:, 0] ** 2,
        "bc": np.abs(p["bc"] - y["u_bc"])[:, 0],
        "size": p["pde"][:, 0] ** 2,
    }
    of = {} if weight is None else {"ic": weight["u_ic"], "bc": weight["u_bc"]}
    return {name: values * of.get(name, 1.0) for name, values in rows.items()}


def means(data):
    """The mean of each term over all of its rows in all batches."""
    found = [terms(*batch) for batch in data]
    return {name: np.concatenate([each[name] for each in found]).mean() for name in found[0]}


def compiled(loss=None, **kwargs):
    model = network()
    model.compile(sgd(FROZEN), loss=loss or composite(), **kwargs)
    return model


def step(model, batch):
    """The logs of one step; Keras 3.12 does not begin them anew by itself."""
    model.reset_metrics()
    return model.train_on_batch(*batch, return_dict=True)


def check(logs, data):
    for name, expected in means(data).items():
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_each_term_is_a_mean_over_its_own_rows(eager):
    data = batches()
    model = compiled(run_eagerly=eager)
    check(model.evaluate((each for each in data), steps=3, verbose=0, return_dict=True), data)
    history = model.fit(
        (each for each in data), steps_per_epoch=3, verbose=0, shuffle=False
    ).history
    check({key: values[0] for key, values in history.items()}, data)


def test_each_step_is_the_weighted_sum_of_its_terms():
    model = compiled()
    for batch in batches():
        logs = step(model, batch)
        check(logs, [batch])
        expected = {"pde": 0.5, "ic": 1.0, "bc": 2.0, "size": 1.0}
        total = sum(c * logs[f"{name}_loss"] for name, c in expected.items())
        assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_one_ratio_of_rows_in_all_batches_keeps_the_epoch_a_weighted_sum():
    sizes = [{"pde": 8, "ic": 2, "bc": 4}, {"pde": 4, "ic": 1, "bc": 2}]
    data = batches(sizes=sizes)
    logs = compiled().evaluate((each for each in data), steps=2, verbose=0, return_dict=True)
    parts = {"pde": 0.5, "ic": 1.0, "bc": 2.0, "size": 1.0}
    assert logs["loss"] == pytest.approx(
        sum(c * logs[f"{name}_loss"] for name, c in parts.items()), rel=1e-5
    )


@pytest.mark.filterwarnings("ignore:Component 'pde' counts unweighted")
def test_sample_weights_of_each_output():
    data = batches(weighted=True)
    logs = compiled().evaluate((each for each in data), steps=3, verbose=0, return_dict=True)
    check(logs, data)


def test_losses_of_each_output_are_means_over_their_own_rows():
    data = batches()
    model = network()
    of_output = {"u_ic": cl.CompositeLoss({"mse": "mse"}), "u_bc": "mae"}
    model.compile(sgd(FROZEN), loss=of_output)
    logs = model.evaluate((each for each in data), steps=3, verbose=0, return_dict=True)
    expected = means(data)
    assert logs["u_ic_mse_loss"] == pytest.approx(expected["ic"], rel=1e-5)
    assert logs["u_bc_loss"] == pytest.approx(expected["bc"], rel=1e-5)


def test_a_term_of_predictions_alone_may_have_rows_of_its_own():
    def pairs(y_pred):
        """One value for each pair of samples."""
        n = y_pred.shape[0]
        return ops.reshape(ops.square(y_pred - ops.transpose(y_pred)), (n * n,))

    p = np.arange(3.0, dtype="float32").reshape(3, 1)
    expected = np.mean((p - p.T) ** 2)
    loss = cl.CompositeLoss({"pairs": pairs, "alone": PredictionOnly("mse")})
    assert float(loss(None, p)) == pytest.approx(expected + np.mean(p**2), rel=1e-6)


def test_what_is_compared_must_agree():
    model = compiled()
    x, y = batches()[0]
    y["u_ic"] = np.zeros((5, 1), "float32")
    with raises(ValueError, "'ic'", "(5, 1)", "(2, 1)"):
        model.train_on_batch(x, y)


@pytest.mark.filterwarnings("ignore:UPGrad cannot see")  # these outputs do not meet
@pytest.mark.parametrize("place", ["output", "parameters"])
def test_a_gradient_rule_weighs_terms_of_several_sizes(place):
    parts = {"ic": OnOutput("mse", "u_ic"), "bc": OnOutput("mae", "u_bc")}
    if place == "parameters":
        parts["pde"] = OnInputs(residual)
    rule = cl.weightings.UPGrad(gradients=place)
    model = compiled(cl.CompositeLoss(parts, weighting=rule))
    with np.errstate(all="raise"):
        for batch in batches():
            logs = step(model, batch)
            assert all(np.isfinite(value) for value in logs.values())
            for name in parts:
                assert logs[f"{name}_loss"] == pytest.approx(means([batch])[name], rel=1e-5)


def test_a_part_without_rows_counts_not_at_all():
    data = batches(sizes=[{"pde": 4, "ic": 2, "bc": 3}, {"pde": 4, "ic": 0, "bc": 3}])
    model = compiled(run_eagerly=True)
    logs = model.evaluate((each for each in data), steps=2, verbose=0, return_dict=True)
    check(logs, data)


VALUE_RULES = [
    cl.weightings.DynamicWeightAverage,
    cl.weightings.FAMO,
    cl.weightings.ReLoBRaLo,
    cl.weightings.UncertaintyWeighting,
]


@pytest.mark.parametrize("rule", VALUE_RULES, ids=lambda rule: rule.__name__)
def test_a_value_rule_weighs_terms_of_several_sizes(rule):
    model = compiled(composite(weighting=rule()))
    for batch in batches():
        check(step(model, batch), [batch])


REPLICAS = """
import json

import tensorflow as tf

from tests.two_replicas import strategy

STRATEGY = strategy()
from tests.training.test_several_sizes import batches, compiled

parts = batches()
parts = [parts[0], parts[1], parts[2], parts[0]]  # of two replicas in two steps


def dataset(context):
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), parts[0]
    )
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)


with STRATEGY.scope():
    model = compiled()
iterator = iter(STRATEGY.distribute_datasets_from_function(dataset))


@tf.function
def step(iterator):
    STRATEGY.run(model.test_step, args=(next(iterator),))


for _ in range(2):
    step(iterator)
print(json.dumps({key: float(value) for key, value in model.get_metrics_result().items()}))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas_with_rows_of_their_own(tmp_path):
    root = Path(__file__).parents[2]
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{REPLICAS}", tmp_path)
    check(json.loads(printed.splitlines()[-1]), [*batches(), batches()[0]])


DEVICES = """
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import keras

devices = ["cpu:0", "cpu:1"]
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
from tests.training.test_several_sizes import batches, check, compiled

sizes = [{"pde": 8, "ic": 2, "bc": 4}, {"pde": 6, "ic": 4, "bc": 2}, {"pde": 2, "ic": 2, "bc": 6}]
data = batches(sizes=sizes)
model = compiled()
check(model.evaluate((each for each in data), steps=3, verbose=0, return_dict=True), data)
history = model.fit((each for each in data), steps_per_epoch=3, verbose=0, shuffle=False).history
check({key: values[0] for key, values in history.items()}, data)
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras has its DataParallel on JAX")
def test_two_devices_with_rows_of_their_own(tmp_path):
    root = Path(__file__).parents[2]
    run_python(f"import sys; sys.path.append({str(root)!r})\n{DEVICES}", tmp_path)
