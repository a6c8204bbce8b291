"""Gradients by the kernels of Dense layers that are kept as factors: those that are kept whole."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import combined_losses as cl
from combined_losses._backend import backend, capture, factors
from combined_losses._backend.factors import Factors

ROWS, SIZE = 3, 24

has_float64 = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 by default"
)


class Tied(layers.Layer):
    """Multiplies by the transposed kernel of another layer."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.other.kernel))


def chain(inputs):
    hidden = layers.Dense(SIZE, activation="tanh")(inputs)
    hidden = layers.Dense(SIZE, use_bias=False)(hidden)
    return layers.Dense(SIZE, activation=layers.LeakyReLU())(hidden)


def shared(inputs):
    layer = layers.Dense(SIZE, activation="tanh")
    return layer(layer(inputs))


def tied(inputs):
    layer = layers.Dense(SIZE, activation="tanh")
    return Tied(layer)(layers.Dense(SIZE)(layer(inputs)))


def sequences(inputs):
    steps = layers.Reshape((2, SIZE // 2))(inputs)
    return layers.Flatten()(layers.Dense(SIZE // 2, activation="tanh")(steps))


def nested(inputs):
    within = keras.Input((SIZE,))
    inner = keras.Model(within, layers.BatchNormalization()(layers.Dense(SIZE)(within)))
    return layers.Dense(SIZE, kernel_regularizer="l2")(inner(inputs))


def rematerialised(inputs):
    """A layer that is computed again in the backward pass, and one that is not."""
    with keras.RematScope(mode="full"):
        again = layers.Dense(SIZE, activation="tanh")
    return layers.Dense(SIZE)(again(inputs))


def beside(inputs):
    """A layer that does not act on what the losses see."""
    first = layers.Dense(SIZE, activation="tanh")
    unused = layers.Dense(SIZE)(first(inputs))
    return first(inputs) + 0.0 * ops.stop_gradient(unused)


class Decoded(layers.Layer):
    """Adds what a layer makes of the kernel of another one."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other
        self.decoder = layers.Dense(SIZE)

    def build(self, shape):
        self.decoder.build(shape)

    def call(self, x):
        return x + ops.mean(self.decoder(self.other.kernel), axis=0)


class Constant(layers.Layer):
    """Adds what another layer makes of the inputs, without a gradient."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        if keras.backend.backend() != "torch":
            return x + ops.stop_gradient(self.other(2 * x))
        import torch

        with torch.no_grad():
            constant = self.other(2 * x)
        return x + constant


class Repeated(layers.Layer):
    """Calls another layer in a loop that is compiled."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return ops.scan(lambda state, _: (self.other(state), None), x, length=2)[0]


def decoded(inputs):
    layer = layers.Dense(SIZE, activation="tanh")
    return Decoded(layer)(layer(inputs))


def constant(inputs):
    layer = layers.Dense(SIZE, activation="tanh")
    return Constant(layer)(layer(inputs))


def repeated(inputs):
    layer = layers.Dense(SIZE, activation="tanh")
    return layers.Dense(SIZE)(Repeated(layer)(layer(inputs)))


NETWORKS = {
    f.__name__: f for f in (chain, shared, tied, sequences, nested, beside, constant, repeated)
}
if keras.backend.backend() != "tensorflow":  # where Keras 3.15.1 cannot train such a layer
    NETWORKS["rematerialised"] = rematerialised


def trained(network, monkeypatch, cheaper, **compiled):
    """The parameters after two steps, and how many kernels were factored in each measurement."""
    found = []
    monkeypatch.setattr(capture, "are_cheaper", lambda products, k: cheaper)
    monkeypatch.setattr(
        factors.Factors, "combine", lambda self, w: found.append(1) or COMBINE(self, w)
    )
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE,))
    model = cl.Model(inputs, NETWORKS[network](inputs))
    kernel = model.trainable_variables[0]

    def small(y_true, y_pred):
        return ops.mean(ops.square(y_pred), axis=-1)

    def penalty(y_true, y_pred):
        return ops.mean(ops.abs(y_pred - y_true), axis=-1) + ops.sum(ops.square(kernel)) / 100

    last = penalty if compiled.pop("penalised", False) else "mae"
    if "dtype_of_last" in compiled:
        last = keras.losses.MeanAbsoluteError(dtype=compiled.pop("dtype_of_last"))
    loss = cl.CompositeLoss(
        {"mse": "mse", "small": small, "last": last},
        weighting=cl.weightings.UPGrad(gradients="parameters"),
        dtype=compiled.pop("dtype_of_total", None),
    )
    model.compile(keras.optimizers.SGD(0.5), loss=loss, **compiled)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, ROWS, SIZE)).astype("float32")
    for _ in range(2):
        model.train_on_batch(x, y)
    return [ops.convert_to_numpy(v) for v in model.trainable_variables], len(found)


COMBINE = Factors.combine


def assert_factors_change_nothing(network, monkeypatch, **compiled):
    """Returns whether there were factors."""
    found, factored = trained(network, monkeypatch, True, **compiled)
    expected, none = trained(network, monkeypatch, False, **compiled)
    assert not none
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, wanted, rtol=2e-4, atol=2e-6)
    return factored > 0


@pytest.mark.parametrize("network", [*NETWORKS])
def test_factors_give_the_steps_of_whole_gradients(network, monkeypatch):
    assert assert_factors_change_nothing(network, monkeypatch)


def test_a_kernel_that_another_layer_reads_is_kept_whole(monkeypatch):
    monkeypatch.setitem(NETWORKS, "decoded", decoded)
    assert_factors_change_nothing("decoded", monkeypatch)


@has_float64
def test_components_may_have_several_dtypes(monkeypatch):
    assert assert_factors_change_nothing("chain", monkeypatch, dtype_of_last="float64")


@has_float64
def test_a_composite_may_compute_in_float64(monkeypatch):
    assert assert_factors_change_nothing("chain", monkeypatch, dtype_of_total="float64")


def test_a_kernel_in_a_component_is_kept_whole(monkeypatch):
    assert not assert_factors_change_nothing("sequences", monkeypatch, penalised=True)


def test_eager_steps_are_the_same(monkeypatch):
    assert_factors_change_nothing("chain", monkeypatch, run_eagerly=True)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e15])
def test_the_products_are_those_of_the_gradients_also_where_rows_cancel(scale):
    rng = np.random.default_rng(0)
    inputs = np.repeat(rng.normal(size=(4, 30)), 2, axis=0) * scale
    slopes = np.repeat(rng.normal(size=(3, 4, 20)), 2, axis=1)
    slopes[:, 1::2] *= -1 + 1e-4  # each row nearly takes back the one before it
    inputs, slopes = inputs.astype("float32"), slopes.astype("float32")
    rows = np.einsum("rn,krm->knm", np.float64(inputs), np.float64(slopes)).reshape(3, -1)
    kept = Factors(ops.convert_to_tensor(inputs), ops.convert_to_tensor(slopes))
    largest = ops.convert_to_numpy(kept.largest())
    scales = np.exp2(np.floor(np.log2(largest))).astype("float32")
    with backend.in_float64():
        found = ops.convert_to_numpy(kept.gramian(ops.convert_to_tensor(scales)))
    rows = rows / scales[:, None]
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-5)


@pytest.mark.parametrize(("rows", "cheaper"), [(64, True), (4096, False), (None, False)])
def test_factors_are_for_batches_smaller_than_layers(rows, cheaper):
    kernel, x = (np.broadcast_to(0.0, shape) for shape in ((2048, 2048), (rows or 1, 2048)))
    x = keras.KerasTensor((rows, 2048)) if rows is None else x
    assert factors.are_cheaper([factors.Product(kernel, x, x)], 8) is cheaper
