"""Gradients at the parameters of networks of every kind, against steps on one component alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import combined_losses as cl
from combined_losses.weightings import InverseGradientNorm, UPGrad

RATE = 0.5


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 6, 6, 2)).astype("float32"), rng.normal(size=(8, 3))


def texts():
    rng = np.random.default_rng(1)
    return rng.integers(0, 7, size=(8, 5)), rng.normal(size=(8, 3))


def convolutions():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="trunk")(inputs)
    x = layers.BatchNormalization()(x)
    return inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def recurrent():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(inputs)
    return inputs, layers.Dense(3)(layers.LSTM(4, name="trunk")(x))


def sequences():
    """Outputs of every time step, with a mask."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True, name="trunk")(inputs)
    return inputs, layers.Dense(3)(layers.GRU(4, return_sequences=True)(x))


def shared_twice():
    inputs = keras.Input((6, 6, 2))
    dense = layers.Dense(5, activation="tanh", name="trunk")
    flat = layers.Flatten()(inputs)
    left, right = dense(flat), dense(-flat)
    return inputs, layers.Dense(3)(layers.Add()([left, layers.Dense(5)(right)]))


def partly_frozen():
    inputs = keras.Input((6, 6, 2))
    frozen = layers.Dense(5, activation="tanh", name="trunk")
    frozen.trainable = False
    return inputs, layers.Dense(3)(frozen(layers.Flatten()(inputs)))


def nested():
    inner = keras.Sequential([layers.Flatten(), layers.Dense(5, activation="tanh")], name="trunk")
    inputs = keras.Input((6, 6, 2))
    return inputs, layers.Dense(3)(inner(inputs))


NETWORKS = {f.__name__: f for f in (convolutions, shared_twice, partly_frozen, nested)}
TEXTS = {f.__name__: f for f in (recurrent, sequences)}
every_network = pytest.mark.parametrize("name", [*NETWORKS, *TEXTS])


def step(name, weights=None, weighting=None, **kwargs):
    """What one step moved, and its logs."""
    keras.utils.set_random_seed(3)
    model = cl.Model(*{**NETWORKS, **TEXTS}[name]())
    x, y = images() if name in NETWORKS else texts()
    if name == "sequences":
        y = np.repeat(y[:, None], 5, axis=1)
    y = y.astype("float32")
    parts = {"mse": "mse", "mae": "mae", "third": cl.wrappers.OnSlice("mse", np.s_[..., :1])}
    loss = cl.CompositeLoss(parts, weights=weights, weighting=weighting)
    model.compile(keras.optimizers.SGD(RATE), loss=loss, **kwargs)
    before = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    logs = model.train_on_batch(x, y, return_dict=True)
    after = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    moved = [np.ravel(a - b) / RATE for a, b in zip(after, before, strict=True)]
    return np.concatenate(moved).astype("float64"), logs


def logged(logs):
    return np.array([float(logs[f"{name}_weight"]) for name in ("mse", "mae", "third")])


@every_network
def test_the_gradients_are_those_of_the_components_alone(name):
    rows = np.stack([step(name, weights=list(c))[0] for c in np.eye(3)])
    norms = np.linalg.norm(rows, axis=1)
    w = norms.mean() / norms
    moved, logs = step(name, weighting=InverseGradientNorm(gradients="parameters"))
    np.testing.assert_allclose(logged(logs), w, rtol=2e-4)
    np.testing.assert_allclose(moved, w @ rows, atol=2e-4 * np.abs(w @ rows).max())


@pytest.mark.parametrize("name", ["convolutions", "nested", "sequences"])
@pytest.mark.parametrize("place", ["output", "trunk", "parameters"])
def test_the_step_is_that_of_the_weights_that_are_logged(name, place):
    moved, logs = step(name, weighting=UPGrad(gradients=place))
    w = logged(logs)
    assert np.isfinite(w).all() and (w > 0).all()
    expected, fixed = step(name, weights=w.tolist())
    np.testing.assert_allclose(moved, expected, atol=2e-4 * np.abs(expected).max())
    assert float(logs["loss"]) == pytest.approx(float(fixed["loss"]), rel=1e-5)


@pytest.mark.parametrize(
    "name, place", [("recurrent", "parameters"), ("sequences", "trunk"), ("convolutions", "trunk")]
)
def test_conditions_around_the_gradients_change_nothing(name, place):
    """`update_every` puts them into a branch of the graph."""
    moved, logs = step(name, weighting=InverseGradientNorm(gradients=place))
    other, others = step(name, weighting=InverseGradientNorm(gradients=place, update_every=5))
    np.testing.assert_allclose(logged(others), logged(logs), rtol=1e-4)
    np.testing.assert_allclose(other, moved, atol=2e-4 * np.abs(moved).max())


@pytest.mark.parametrize(
    "name, place",
    [("convolutions", "output"), ("convolutions", "parameters"), ("recurrent", "trunk")],
)
def test_compiled_steps_are_eager_ones(name, place):
    moved, logs = step(name, weighting=UPGrad(gradients=place))
    other, others = step(name, weighting=UPGrad(gradients=place), run_eagerly=True)
    np.testing.assert_allclose(logged(others), logged(logs), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(other, moved, atol=2e-3 * np.abs(moved).max())


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("place", ["output", "head"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_cross_entropy_of_probabilities_has_a_gradient_at_the_output(activation, place, eager):
    """On TensorFlow Keras's cross-entropies read the logits behind the probabilities."""
    sigmoid = activation == "sigmoid"
    entropy = "binary_crossentropy" if sigmoid else "categorical_crossentropy"
    rule = InverseGradientNorm(gradients=place, total="k")
    loss = cl.CompositeLoss({"ce": entropy, "size": size_of}, weighting=rule)
    head = keras.layers.Dense(3, activation=activation, name="head")
    model = cl.Sequential([keras.Input((4,)), head])
    model.compile(keras.optimizers.SGD(0.0), loss=loss, run_eagerly=eager)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)), np.eye(3)[rng.integers(0, 3, 8)]
    p = model.predict(x, verbose=0).astype("float64")
    logs = model.train_on_batch(x, y, return_dict=True)

    # The mean is over 8 samples, and for the sigmoid over 3 outputs as well. For the softmax Keras
    # first divides the probabilities by their sum.
    ce = (p - y) / (p * (1 - p)) / 24 if sigmoid else (1 - y / p) / 8
    lengths = np.array([np.linalg.norm(ce), np.linalg.norm(2 * p / 24)])
    expected = 2 * (1 / lengths) / (1 / lengths).sum()
    np.testing.assert_allclose([logs["ce_weight"], logs["size_weight"]], expected, rtol=1e-4)
    total = expected[0] * logs["ce_loss"] + expected[1] * logs["size_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def size_of(y_true, y_pred):
    return ops.mean(ops.square(y_pred), axis=-1)
