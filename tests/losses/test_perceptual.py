"""`Perceptual`: what it compares, what it leaves alone, and how it trains, is saved and logged."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.reference import made, read_cases
from tests.gradients import compiled, gradient, value_and_gradient
from tests.masks import masked
from tests.messages import raises

Perceptual = cl.losses.Perceptual
RNG = np.random.default_rng(0)
Y, P = RNG.random((2, 5, 6, 6, 2)).astype("float32")
PARTS = ("one", "two")


def close(actual, expected, rtol=1e-5, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def network(cls=keras.Sequential, **kwargs):
    """Two convolutions, with weights that are the same on every backend."""
    model = cls(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="tanh", name="one"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.Conv2D(3, 1, name="two"),
        ],
        **kwargs,
    )
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            rng.uniform(0.2, 1, w.shape) * np.sign(rng.random(w.shape) - 0.3)
            if "variance" not in w.path
            else rng.uniform(0.5, 2, w.shape)
            for w in model.weights
        ]
    )
    return model


def student(cls=cl.Sequential):
    model = cls([keras.Input((6, 6, 2)), layers.Conv2D(2, 1, name="out")])
    model.layers[-1].set_weights([np.float32(np.eye(2))[None, None] * 0.7, np.float32([0.1, 0])])
    return model


def features(images):
    """Those of the layers `one` and `two`, by NumPy."""
    net = network()
    kernel, bias, gamma, beta, mean, variance, last, last_bias = map(np.float64, net.get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(np.float64(images), (3, 3), axis=(1, 2))
    one = np.tanh(np.einsum("nhwcij,ijcd->nhwd", windows, kernel) + bias)
    normed = gamma * (one - mean) / np.sqrt(variance + net.get_layer("norm").epsilon) + beta
    return one, normed @ last[0, 0] + last_bias


def gram(f):
    flat = f.reshape(len(f), -1, f.shape[-1])
    return np.einsum("nac,nad->ncd", flat, flat) / flat[0].size


def expected(y, p, style=False):
    """The value of each layer for each sample."""
    pairs = zip(features(y), features(p), strict=True)
    if style:
        return [np.sum((gram(b) - gram(a)) ** 2, axis=(1, 2)) for a, b in pairs]
    return [np.mean((b - a) ** 2, axis=(1, 2, 3)) for a, b in pairs]


both = pytest.mark.parametrize("style", [False, True], ids=["features", "style"])


# Numbers.


@pytest.mark.parametrize("entry", read_cases("special_cases"), ids=lambda entry: entry["id"])
def test_values_and_gradients_are_those_of_the_reference(entry):
    loss = made(entry, reduction="none")
    data = entry["y_true"], entry["y_pred"]
    values, slope = value_and_gradient(loss, *data)
    for found in (values, value(compiled(lambda *data: loss(*data)), *data)):
        close(found, entry["values"], entry["value_rtol"], entry["value_atol"])
    assert np.all(np.isfinite(slope))
    if entry["compare_gradient"]:
        close(slope, entry["grad"], entry["grad_rtol"], entry["grad_atol"])


@both
def test_it_is_the_error_of_the_features_in_inference(style):
    one, two = expected(Y, P, style)
    loss = Perceptual(network(), PARTS, weights=[1.0, 0.5], style=style, reduction="none")
    close(value(loss, Y, P), one + 0.5 * two, rtol=1e-4)
    by_name = Perceptual(network(), PARTS, weights={"two": 3.0}, style=style, reduction="none")
    close(value(by_name, Y, P), one + 3 * two, rtol=1e-4)
    alone = Perceptual(network(), ["two"], style=style)
    close(value(alone, Y, P), two.mean(), rtol=1e-4)
    assert loss.component_names == PARTS
    found, _ = value_and_gradient(loss, Y, Y)
    close(found, 0, atol=1e-9)  # a compiler may order the sums of both images differently
    close(gradient(lambda p: loss(Y, p), Y), 0, atol=1e-7)


@both
def test_any_rank(style):
    net = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="dense")])
    y, p = RNG.normal(size=(2, 5, 3)).astype("float32")
    a, b = (value(net, each) for each in (y, p))
    loss = Perceptual(net, ["dense"], style=style, reduction="none")
    grams = [np.einsum("nc,nd->ncd", f, f) / 4 for f in (a, b)]
    of_style = np.sum((grams[0] - grams[1]) ** 2, axis=(1, 2))
    close(value(loss, y, p), of_style if style else np.mean((a - b) ** 2, axis=-1), rtol=1e-4)


def test_style_does_not_see_places():
    net = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(5, 1, name="points")])
    moved = np.roll(P, (2, 3), axis=(1, 2))
    style = Perceptual(net, ["points"], style=True)
    close(value(style, Y, moved), value(style, Y, P), rtol=1e-4)
    assert value(Perceptual(net, ["points"]), P, moved) > 0.01


def test_images_are_prepared():
    shifted = layers.Rescaling(2.0, offset=-0.3)
    of_layer = Perceptual(network(), PARTS, preprocessing=shifted)
    of_function = Perceptual(network(), PARTS, preprocessing=doubled)
    plain = value(Perceptual(network(), PARTS), 2 * Y - 0.3, 2 * P - 0.3)
    for loss in (of_layer, of_function):
        close(value(loss, Y, P), plain)
    slope = gradient(lambda p: of_layer(Y, p), P)
    own = gradient(lambda p: Perceptual(network(), PARTS)(2 * Y - 0.3, 2 * p - 0.3), P)
    close(slope, own, rtol=1e-4)


@keras.saving.register_keras_serializable("tests_perceptual")
def doubled(images):
    return 2 * images - 0.3


# What it leaves alone.


@both
def test_no_gradient_goes_into_the_truth(style):
    loss = Perceptual(network(), PARTS, style=style)
    close(gradient(lambda y: loss(y, P), Y), 0, atol=0)


def test_sample_weights_and_masks_are_those_of_images():
    weight = np.float32([1, 0, 2, 0.5, 0])
    values = sum(expected(Y, P))
    loss = Perceptual(network(), PARTS)
    close(value(loss, Y, P, weight), (values * weight).mean(), rtol=1e-4)
    there = weight > 0
    close(value(loss, Y, masked(P, there)), values[there].mean(), rtol=1e-4)
    bad_y, bad_p = (np.where(there[:, None, None, None], a, np.nan) for a in (Y, P))
    bad_y, bad_p = bad_y.astype("float32"), bad_p.astype("float32")
    found, slope = value_and_gradient(lambda y, p: loss(y, p, weight), bad_y, bad_p)
    close(found, (values * weight).mean(), rtol=1e-4)
    close(slope, gradient(lambda p: loss(Y, p, weight), P), rtol=1e-4)
    for style in (False, True):
        none = cl.CompositeLoss([Perceptual(network(), PARTS, style=style)])
        assert value(none, Y[:0], P[:0]) == 0
    with raises(ValueError, "weight", "(5, 6, 6)"):
        loss(Y, P, np.ones((5, 6, 6), "float32"))


@pytest.mark.parametrize("cls", [cl.Sequential, keras.Sequential], ids=["tracked", "plain"])
def test_it_trains_and_the_network_stays_as_it_is(cls):
    net, model = network(), student(cls)
    before = [ops.convert_to_numpy(w).copy() for w in net.weights]
    loss = 0.1 * cl.as_loss("mse") + Perceptual(net, PARTS, name="seen")
    model.compile(keras.optimizers.SGD(0.05), loss=loss)
    assert len(model.trainable_variables) == 2
    history = model.fit(P, Y, batch_size=3, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for weight, old in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)
        if keras.backend.backend() == "torch":
            assert weight.value.grad is None
    assert net.trainable_weights, "the network of the user is not marked"


def test_each_layer_has_a_curve_and_a_weight():
    model = student()
    loss = cl.CompositeLoss({"seen": Perceptual(network(), PARTS, weights=[1.0, 0.5])})
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    logs = model.evaluate(P, Y, batch_size=3, verbose=0, return_dict=True)
    images = ops.convert_to_numpy(model(P))
    one, two = (each.mean() for each in expected(Y, images))
    found = [logs[f"seen/{part}_loss"] for part in PARTS]
    close(found, [one, two], rtol=1e-4)
    close(logs["loss"], one + 0.5 * two, rtol=1e-4)
    fitted = model.fit(P, Y, batch_size=3, shuffle=False, verbose=0).history
    close(fitted["seen/two_loss"], two, rtol=1e-4)
    loss.set_weight("seen/two", 2.0)
    close(model.evaluate(P, Y, verbose=0, return_dict=True)["loss"], one + 2 * two, rtol=1e-4)
    loss.set_weight("seen/two", 0.0)
    close(model.evaluate(P, Y, verbose=0, return_dict=True)["loss"], one, rtol=1e-4)


def test_who_trains_the_network_elsewhere_changes_the_loss():
    """On JAX a compiled step is given its variables."""
    net, model = network(), student()
    model.compile("sgd", loss=Perceptual(net, PARTS))
    assert model.evaluate(P, Y, verbose=0, return_dict=True)["loss"] > 0
    net.set_weights([0 * w for w in net.get_weights()])
    assert model.evaluate(P, Y, verbose=0, return_dict=True)["loss"] == 0


def test_rules_that_read_gradients_see_it():
    model = student()
    losses = {"mse": "mse", "seen": Perceptual(network(), PARTS)}
    model.compile("sgd", loss=cl.CompositeLoss(losses, weighting=cl.weightings.PCGrad()))
    history = model.fit(P, Y, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    model = cl.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(2, 1, dtype=policy)])
    model.compile(keras.optimizers.SGD(0.01), loss=Perceptual(network(), PARTS))
    history = model.fit(P, Y, epochs=3, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))


# Files.


def test_it_comes_back_from_its_config():
    loss = Perceptual(
        network(), ["two"], weights=[0.3], style=True, preprocessing=doubled, name="n"
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    assert config["registered_name"] == "combined_losses>Perceptual"
    again = keras.saving.deserialize_keras_object(config)
    assert (again.layers, again.weights, again.style) == (["two"], [0.3], True)
    assert (again.preprocessing, again.name) == (doubled, "n")
    (again.model[0]).set_weights(loss.model[0].get_weights())
    close(value(again, Y, P), value(loss, Y, P))


@pytest.mark.parametrize("weights", [None, {"two": 0.5}], ids=["default", "given"])
def test_a_config_has_the_weights_that_were_set(weights):
    loss = cl.CompositeLoss({"seen": Perceptual(network(), PARTS, weights=weights)})
    assert loss.losses["seen"].get_config()["weights"] == weights
    loss.set_weight("seen/two", 0.25)
    again = cl.CompositeLoss.from_config(loss.get_config())
    assert [again.weight_of(f"seen/{part}") for part in PARTS] == [1.0, 0.25]


@pytest.mark.parametrize("cls", [cl.Sequential, keras.Sequential], ids=["tracked", "plain"])
def test_a_saved_model_has_the_network_once(cls, tmp_path):
    model = student(cls)
    seen = Perceptual(network(), PARTS, preprocessing=layers.Rescaling(2.0, offset=-0.3))
    model.compile(keras.optimizers.SGD(0.05), loss=cl.CompositeLoss({"mse": "mse", "seen": seen}))
    model.fit(P, Y, batch_size=3, verbose=0)
    wanted = model.evaluate(P, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    close(loaded.evaluate(P, Y, verbose=0), wanted)
    model.save_weights(tmp_path / "model.weights.h5")
    own = network()
    own.set_weights([0 * w for w in own.get_weights()])
    other = student(cls)
    other.compile(
        "sgd",
        loss=cl.CompositeLoss(
            {
                "mse": "mse",
                "seen": Perceptual(own, PARTS, preprocessing=layers.Rescaling(2.0, -0.3)),
            }
        ),
    )
    other.load_weights(tmp_path / "model.weights.h5")
    close(other.evaluate(P, Y, verbose=0), wanted)
    assert kernels_in(tmp_path / "model.weights.h5", (3, 3, 2, 4)) == 1


def kernels_in(path, shape):
    """How many arrays of a shape a file of weights has."""
    import h5py

    found = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: found.append(getattr(item, "shape", None)))
    return found.count(shape)


def test_networks_of_keras_come_with_their_preprocessing():
    net = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, include_top=False, name="mobile"
    )
    y, p = RNG.uniform(0, 255, (2, 2, 32, 32, 3)).astype("float32")
    names = ["conv_pw_1_relu", "conv_pw_3_relu"]
    by_name = Perceptual(net, names, preprocessing="mobilenet")
    function = keras.applications.mobilenet.preprocess_input
    by_function = Perceptual(net, names, preprocessing=function)
    plain = Perceptual(net, names)
    wanted = value(plain, y / 127.5 - 1, p / 127.5 - 1)
    assert wanted > 0
    for loss in (by_name, by_function):
        close(value(loss, y, p), wanted, rtol=1e-4)
        config = json.loads(json.dumps(loss.get_config()))
        again = Perceptual.from_config(config)
        assert again.preprocessing == "mobilenet"
        again.model[0].set_weights(net.get_weights())
        close(value(again, y, p), wanted, rtol=1e-4)


# Errors.


def test_arguments_outside_their_range():
    net = network()
    for bad in (None, "vgg", keras.Sequential([layers.Dense(2)])):
        with raises(ValueError, "`model` of Perceptual", "built", "Received: "):
            Perceptual(bad, ["one"])
    for bad in ([], "one", ["one", "one"], ["three"]):
        with raises(ValueError, "`layers` of Perceptual", "'one', 'norm'", f"Received: {bad!r}"):
            Perceptual(net, bad)
    for bad in ([1.0], 0.5):
        with raises(ValueError, "`weights` of Perceptual", "2 layers", f"Received: {bad!r}"):
            Perceptual(net, PARTS, weights=bad)
    with raises(ValueError, "`style` of Perceptual", "Received: 1"):
        Perceptual(net, PARTS, style=1)
    for bad in ("no_such", 3.0):
        with raises(ValueError, "`preprocessing` of Perceptual", "'vgg16'", f"Received: {bad!r}"):
            Perceptual(net, PARTS, preprocessing=bad)
    with raises(ValueError, "Received: y_true of shape (5, 6, 1, 2)"):
        Perceptual(net, PARTS)(Y[:, :, :1], P)


def test_a_lambda_cannot_be_saved():
    loss = Perceptual(network(), PARTS, preprocessing=lambda images: images)
    with raises(ValueError, "lambda", "images"):
        loss.get_config()
