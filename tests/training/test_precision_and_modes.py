"""Half precision, and the ways in which Keras runs a step."""

import functools

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.training.tiny import arrays, mse, sgd

BACKEND = keras.backend.backend()


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


half_precision = pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16"], indirect=True
)


def loss_of_three():
    children = {"mse": "mse", "under": cl.losses.UnderestimationPenalty(), "log_cosh": "log_cosh"}
    return cl.CompositeLoss(children, {"under": 0.5})


def sequence_model(**dense):
    """Masked steps, a regulariser, and a kernel that is exact in half precision."""
    layers = [keras.Input((3, 2)), keras.layers.Masking(0.0)]
    return cl.Sequential([*layers, keras.layers.Dense(2, kernel_initializer="identity", **dense)])


def sequences(scale=1.0):
    """Multiples of 1/8, which half precision holds exactly; the last steps are masked."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-16, 16, size=(2, 10, 3, 2)) / 8).astype("float32")
    x[:, :2][x[:, :2] == 0] = 0.125
    x[:, 2] = 0.0
    return x, (scale * y).astype("float32")


def assert_adds_up(logs):
    total = logs["mse_loss"] + 0.5 * logs["under_loss"] + logs["log_cosh_loss"]
    assert logs["loss"] == pytest.approx(total + logs.get("regularization_loss", 0.0), rel=1e-6)


# Half precision.


@half_precision
def test_half_precision_trains_and_adds_up(policy):
    model = sequence_model(kernel_regularizer="l2")
    model.compile(sgd(0.05), loss=loss_of_three())
    x, y = sequences()
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for epoch in range(3):
        assert_adds_up({key: values[epoch] for key, values in history.items()})
    assert_adds_up(model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True))


@half_precision
def test_half_precision_keeps_the_mask_and_the_numbers(policy):
    """Keras's own losses cast `y_pred` first, and a cast drops the mask."""
    model = sequence_model()
    model.compile(sgd(0.0), loss=loss_of_three())
    x, y = sequences()
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(mse(y[:, :2], x[:, :2]), rel=1e-6)
    under = 2 * np.mean(np.maximum(y[:, :2] - x[:, :2], 0))
    assert logs["under_loss"] == pytest.approx(under, rel=1e-6)


@half_precision
def test_the_loss_itself_is_not_computed_in_half_precision(policy):
    """An error of 2 000 has a square beyond the largest number of float16."""
    model = sequence_model()
    model.compile(sgd(0.0), loss=loss_of_three())
    x, y = sequences(scale=1024.0)
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(mse(y[:, :2], x[:, :2]), rel=1e-5)
    assert logs["mse_loss"] > float(np.finfo("float16").max)


@half_precision
def test_loss_scaling_does_not_reach_the_logs(policy):
    model, (x, y) = sequence_model(), sequences()
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(0.0), initial_scale=1024.0)
    model.compile(optimizer, loss=loss_of_three())
    history = model.fit(x, y, batch_size=10, verbose=0).history
    assert history["mse_loss"] == pytest.approx([mse(y[:, :2], x[:, :2])], rel=1e-6)
    assert_adds_up({key: values[0] for key, values in history.items()})


# The ways to run a step.

MODES = {"eager": {"run_eagerly": True}, "accumulated gradients": {"accumulate": 2}}
if BACKEND != "torch":
    MODES |= {"jit": {"jit_compile": True}, "four steps at once": {"steps_per_execution": 4}}


def compiled(accumulate=None, **options):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, "tanh", kernel_initializer="ones")(inputs)
    outputs = keras.layers.Dense(1, kernel_regularizer="l2", kernel_initializer="ones")(hidden)
    model = cl.Model(inputs, outputs)
    optimizer = keras.optimizers.SGD(0.02, gradient_accumulation_steps=accumulate)
    model.compile(optimizer, loss=loss_of_three(), metrics=["mae"], **options)
    return model


@functools.cache
def trained(mode=None):
    """Two epochs of nine batches, the last one of a single sample."""
    model = compiled(**MODES.get(mode, {}))
    x, y = arrays(samples=17)
    kwargs = {"batch_size": 2, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
    return model.fit(x, y, epochs=2, **kwargs).history, model.get_weights()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_adds_up(mode):
    history, _ = trained(mode)
    keys = ["loss", "mse_loss", "under_loss", "log_cosh_loss", "regularization_loss", "mae"]
    assert sorted(history) == sorted([*keys, *(f"val_{key}" for key in keys)])
    for epoch in range(2):
        assert_adds_up({key: history[key][epoch] for key in keys})
        assert_adds_up({key: history[f"val_{key}"][epoch] for key in keys})
    assert history["val_loss"][1] < history["val_loss"][0]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "accumulated gradients"])
def test_every_mode_does_the_same(mode):
    (history, weights), (expected_history, expected_weights) = trained(mode), trained()
    assert history.keys() == expected_history.keys()
    for key, values in expected_history.items():
        assert history[key] == pytest.approx(values, rel=1e-5), key
    for weight, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4)


def test_accumulated_gradients_are_those_of_the_larger_batch():
    x, y = arrays(samples=8)
    halves, whole = compiled(accumulate=2), compiled()
    halves.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    whole.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for half, expected in zip(halves.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(half, expected, rtol=1e-4, atol=1e-6)
