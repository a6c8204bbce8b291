"""`cl.diagnose`: its numbers against formulas, its flags against planted faults."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.batches import Batches
from tests.messages import raises
from tests.training.tiny import arrays, line, predictions, two_heads

pytestmark = pytest.mark.depends_on_version

# Losses with faults, and healthy ones beside them.


def detached(y_true, y_pred):
    return ops.mean(ops.square(y_true - ops.stop_gradient(y_pred)), axis=-1)


def rounded(y_true, y_pred):
    return ops.mean(ops.abs(y_true - ops.round(3 * y_pred)), axis=-1)


def of_targets(y_true, y_pred):
    return 1.0 + ops.mean(ops.square(y_true), axis=-1)


def nothing(y_true, y_pred):
    return 0.0 * ops.mean(y_pred, axis=-1)


def wrong_unit(y_true, y_pred):
    return ops.mean(ops.abs(1e6 * (y_true - y_pred)), axis=-1)


def scalar(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


def upwards(y_true, y_pred):
    return -ops.mean(y_pred, axis=-1)


def downwards(y_true, y_pred):
    return ops.mean(y_pred, axis=-1)


def logarithm(y_true, y_pred):
    """NaN for targets of class 2."""
    return ops.log(1.5 - ops.cast(y_true[:, 0], "float32")) * ops.mean(y_pred, axis=-1)


def steep(y_true, y_pred):
    """A finite value whose gradient is not, for targets of class 2."""
    distance = ops.where(y_true[:, :1] == 2, 0.0, 1.0) * y_pred
    return ops.mean(ops.sqrt(ops.square(distance)), axis=-1)


def outer(y_true, y_pred):
    return ops.square(y_true - ops.transpose(y_pred))


def error(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def size(y_true, y_pred):
    return ops.mean(ops.square(y_pred), axis=-1)


def compiled(losses, outputs=1, activation=None, **kwargs):
    model = line(outputs=outputs, activation=activation)
    model.compile("sgd", loss=cl.CompositeLoss(losses, **kwargs))
    return model


# Numbers.


def test_values_are_those_of_evaluate():
    x, y = arrays(50)
    weights = np.linspace(0.2, 2.0, 50)
    model = compiled({"mse": "mse", "mae": "mae"}, weights={"mae": 0.3})
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    found = cl.diagnose(model, x, y, weights)
    assert found.names == ("mse", "mae")
    assert (found.samples, found.batches) == (50, 2)
    assert found.loss == pytest.approx(logs["loss"], rel=1e-6)
    for name in found.names:
        assert found[name].value == pytest.approx(logs[f"{name}_loss"], rel=1e-6)
    assert [found[name].weight for name in found.names] == [1.0, pytest.approx(0.3)]
    parts = np.array([found["mse"].value, 0.3 * found["mae"].value])
    np.testing.assert_allclose([part.share for part in found], parts / parts.sum(), rtol=1e-6)


def by_hand(model, x, y, place):
    """The gradients of MSE and MAE of one batch, as rows."""
    x, y = x.astype("float64"), y.astype("float64")
    error = predictions(model, x) - y
    rows = [2 * error / error.size, np.sign(error) / error.size]
    if place == "output":
        return np.array([row.ravel() for row in rows])
    return np.array([np.concatenate([(x.T @ row).ravel(), row.sum(axis=0)]) for row in rows])


@pytest.mark.parametrize("place", ["output", "parameters"])
def test_gradients_are_those_of_formulas(place):
    x, y = arrays(12, outputs=2)
    model = compiled({"mse": "mse", "mae": "mae"}, outputs=2, weights={"mae": -0.5})
    found = cl.diagnose(model, x, y, at=place, batch_size=4)
    batches = [by_hand(model, x[i : i + 4], y[i : i + 4], place) for i in (0, 4, 8)]
    gramian = np.mean([rows @ rows.T for rows in batches], axis=0)
    lengths = np.sqrt(np.diagonal(gramian))
    np.testing.assert_allclose([part.gradient_norm for part in found], lengths, rtol=1e-5)
    shares = lengths * [1.0, 0.5]
    np.testing.assert_allclose(
        [part.gradient_share for part in found], shares / shares.sum(), rtol=1e-5
    )
    cosine = -gramian[0, 1] / lengths.prod()  # of the weighted gradients: one is turned around
    np.testing.assert_allclose(found.cosines, [[1, cosine], [cosine, 1]], rtol=1e-5)
    assert found["mse"].min_cosine == found["mse"].mean_cosine == pytest.approx(cosine, rel=1e-5)
    assert found["mae"].proposed_weight == pytest.approx(-lengths[0] / lengths[1], rel=5e-3)


@pytest.mark.parametrize("entropy", ["categorical_crossentropy", "binary_crossentropy"])
def test_cross_entropy_of_probabilities(entropy):
    """Keras goes to the logits behind them on TensorFlow, past the place of the gradient."""
    binary = entropy.startswith("binary")
    model = compiled(
        {"ce": entropy, "size": size}, outputs=3, activation="sigmoid" if binary else "softmax"
    )
    x, _ = arrays(8)
    y = np.eye(3)[np.arange(8) % 3]
    found = cl.diagnose(model, x, y)
    assert found["ce"].value == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True)["ce_loss"], rel=1e-6
    )
    p = model.predict(x, verbose=0).astype("float64")
    rows = (p - y) / (p * (1 - p)) / 24 if binary else (1 - y / p) / 8
    assert found["ce"].gradient_norm == pytest.approx(np.linalg.norm(rows), rel=1e-4)
    assert not found.flags


def test_proposed_weights_make_the_gradients_equally_long():
    x, y = arrays(32, outputs=2)
    losses = {"mse": "mse", "mae": "mae", "size": size}
    proposed = cl.diagnose(compiled(losses, outputs=2), x, y).proposed_weights
    found = cl.diagnose(compiled(losses, outputs=2, weights=proposed), x, y)
    np.testing.assert_allclose([part.gradient_share for part in found], 1 / 3, rtol=0.01)
    assert proposed["mse"] == 1.0


def test_parts_of_nested_composites_are_compared_among_themselves():
    x, y = arrays(16, outputs=2)
    inner = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights={"mae": 3.0})
    channels = cl.wrappers.PerChannel("mse", names=["left", "right"])
    model = compiled({"size": size, "inner": inner, "channels": channels}, 2, weights=[1, 0.5, 2])
    found = cl.diagnose(model, x, y)
    assert found.names == (
        *("size", "inner", "inner/mse", "inner/mae"),
        *("channels", "channels/left", "channels/right"),
    )
    assert found["inner"].weight == 0.5
    assert found["inner/mae"].weight == 3.0
    assert found["channels/left"].weight == 1.0
    whole = found["inner/mse"].value + 3 * found["inner/mae"].value
    assert found["inner"].value == pytest.approx(whole, rel=1e-6)
    for parts in (("size", "inner", "channels"), ("inner/mse", "inner/mae")):
        assert sum(found[name].share for name in parts) == pytest.approx(1.0)
        assert sum(found[name].gradient_share for name in parts) == pytest.approx(1.0)
    assert found["channels/left"].mean_cosine == pytest.approx(0.0, abs=1e-6)
    assert set(found.proposed_weights) == {"size", "inner", "channels"}


def test_several_outputs_with_losses_of_their_own():
    x, y = arrays(10)
    model = two_heads()
    model.compile(
        "sgd",
        loss={"a": cl.CompositeLoss(["mse", "mae"], weights=[1, 0.5]), "b": "mse"},
        loss_weights={"b": 4.0},
    )
    found = cl.diagnose(model, x, {"a": y, "b": y})
    assert found.names == ("a_mse", "a_mae", "b")
    assert [part.weight for part in found] == [1.0, 0.5, 4.0]
    assert found["a_mse"].min_cosine == pytest.approx(0.0, abs=1e-6)  # against b, another output
    logs = model.evaluate(x, {"a": y, "b": y}, verbose=0, return_dict=True)
    assert found["b"].value == pytest.approx(logs["b_loss"], rel=1e-6)
    assert found.loss == pytest.approx(logs["loss"], rel=1e-6)
    assert not found.flags


def test_a_plain_model_is_diagnosed_alike():
    x, y = arrays(10)
    loss = cl.CompositeLoss(["mse", "mae"])
    tracked, plain = line(), line(keras.Sequential)
    for model in (tracked, plain):
        model.compile("sgd", loss=loss)
    assert (
        str(cl.diagnose(plain, x, y)).split("\n")[1:]
        == (str(cl.diagnose(tracked, x, y)).split("\n")[1:])
    )


def test_a_plain_model_with_loss_weights_and_a_lambda():
    x, y = arrays(10)
    model = two_heads(keras.Model)
    loss = cl.CompositeLoss({"mse": "mse", "own": lambda t, p: ops.abs(t - p)[:, 0]})
    model.compile("sgd", loss=[loss, loss], loss_weights=[1.0, 0.5])
    found = cl.diagnose(model, x, [y, y])
    assert [part.weight for part in found] == [1.0, 1.0, 0.5, 0.5]
    assert found.loss == pytest.approx(model.evaluate(x, [y, y], verbose=0)[0], rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX differentiates no NumPy")
def test_what_can_only_run_eagerly():
    def numpy(y_true, y_pred):
        return ops.convert_to_tensor(np.abs(ops.convert_to_numpy(y_true - y_pred))[:, 0])

    x, y = arrays(40)
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "numpy": numpy}), run_eagerly=True)
    assert cl.diagnose(model, x, y).flags == {"numpy": ("no gradient",)}


def test_weights_that_a_rule_moves():
    x, y = arrays(32)
    rule = cl.weightings.MagnitudeBalance()
    model = compiled({"mse": "mse", "mae": "mae"}, weights={"mae": 2.0}, weighting=rule)
    model.fit(x, y, epochs=2, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    found = cl.diagnose(model, x, y)
    for name in found.names:
        assert found[name].weight == pytest.approx(logs[f"{name}_weight"], rel=1e-5)


def test_nothing_of_the_model_changes():
    x, y = arrays(40)
    rule = cl.weightings.UncertaintyWeighting()
    model = cl.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"], weighting=rule))
    model.fit(x, y, verbose=0)
    before = [ops.convert_to_numpy(v) for v in (*model.variables, *model.metrics_variables)]
    for place in ("output", "parameters"):
        cl.diagnose(model, x, y, at=place)
    after = [ops.convert_to_numpy(v) for v in (*model.variables, *model.metrics_variables)]
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(was, now)


def agrees_with_evaluate(model, x, y):
    found = cl.diagnose(model, x, y)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found.loss == pytest.approx(logs["loss"], rel=1e-6)
    for name in found.names:
        assert found[name].value == pytest.approx(logs[f"{name}_loss"], rel=1e-6)
    return found


@pytest.mark.parametrize("loss", ["mse", cl.wrappers.Masked("mse")], ids=["a string", "a wrapper"])
def test_a_loss_without_parts_is_refused(loss):
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=loss)
    with pytest.raises(ValueError, match="whose loss is a CompositeLoss"):
        cl.diagnose(model, np.zeros((4, 3)), np.zeros((4, 1)))


def test_what_is_compiled_does_not_grow_stale():
    """A tracked model keeps it from one diagnosis to the next."""
    x, y = arrays(40)
    ramp = cl.weightings.LinearRamp(4)
    model = compiled({"mse": "mse", "mae": "mae", "size": size}, weights={"size": ramp})
    assert agrees_with_evaluate(model, x, y)["size"].weight == 0.0
    model.fit(x, y, batch_size=20, verbose=0)
    assert agrees_with_evaluate(model, x, y)["size"].weight == 0.5
    for weight in (2.0, 0.0, 3.0):
        model.loss.set_weight("mae", weight)
        assert agrees_with_evaluate(model, x, y)["mae"].weight == weight
    model.loss.set_weight("size", 7.0)  # the end of its schedule
    assert agrees_with_evaluate(model, x, y)["size"].weight == 7.0
    model.compile("sgd", loss=cl.CompositeLoss({"only": "mse"}))
    assert agrees_with_evaluate(model, x, y).names == ("only",)


def test_shapes_are_those_of_the_batch_not_of_the_last_trace():
    x, y = arrays(64, outputs=2)
    model = compiled({"error": error, "size": size}, outputs=2)
    for _ in range(2):
        assert not cl.diagnose(model, x, y).flags
        assert cl.diagnose(model, x, y[:, :1]).flags == {"error": ("shape unusual",)}
        found = cl.diagnose(model, x[:50], y[:50, :1], batch_size=20).faults[0].message
        assert "y_true of shape (20, 1) is broadcast against y_pred, (20, 2)" in found


def test_frozen_layers_have_no_gradient_at_the_parameters():
    x, y = arrays(16)
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "mae": "mae"}))
    whole = cl.diagnose(model, x, y, at="parameters")["mse"].gradient_norm
    model.layers[0].trainable = False
    assert 0 < cl.diagnose(model, x, y, at="parameters")["mse"].gradient_norm < whole


class Late(cl.Model):
    """A model of a class, which has no variables before its first call and no `training`."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_regularizer="l2")

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("place", ["output", "parameters"])
@pytest.mark.parametrize("make", [Late, lambda: cl.Sequential([keras.layers.Dense(1)])])
def test_models_that_are_not_built_yet(make, place):
    x, y = arrays(16)
    model = make()
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    assert cl.diagnose(model, x, y, at=place)["mse"].gradient_norm > 0
    agrees_with_evaluate(model, x, y)


def test_regularisation_is_part_of_the_loss():
    x, y = arrays(16)
    model = line(kernel_regularizer="l2", activity_regularizer="l1")
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    found = agrees_with_evaluate(model, x, y)
    assert found.loss > found["mse"].value + found["mae"].value


def test_a_later_training_is_the_same():
    x, y = arrays(32)
    histories = []
    for look in (False, True):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        model = cl.Sequential([keras.Input((3,)), *layers])
        model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
        for place in ("output", "parameters") if look else ():
            cl.diagnose(model, x, y, at=place)
        histories.append(model.fit(x, y, epochs=2, verbose=0).history)
    assert histories[0] == histories[1]


def test_float16_keeps_its_gradients():
    x, y = arrays(64)
    single = compiled(["mse", "mae"])
    half = line(dtype="mixed_float16")
    half.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "tiny": tiny}))
    found = cl.diagnose(half, x, y)
    assert found["mse"].gradient_norm == pytest.approx(
        cl.diagnose(single, x, y)["mse"].gradient_norm, rel=0.01
    )
    assert found["tiny"].gradient_norm > 0
    assert "no gradient" not in found.flags.get("tiny", ())


def tiny(y_true, y_pred):
    return 1e-9 * ops.mean(ops.square(y_true - y_pred), axis=-1)


# What acts on the model by more than its output.


@keras.saving.register_keras_serializable("tests")
def slope(model, x, y, y_pred):
    return ops.square(cl.input_gradients(model, x))


def test_components_beyond_the_output_show_at_the_parameters():
    x, y = arrays(16, features=1)
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    model.compile(
        "sgd", loss=cl.CompositeLoss({"mse": "mse", "slope": cl.wrappers.OnInputs(slope)})
    )
    at_output = cl.diagnose(model, x, y)
    assert np.isnan(at_output["slope"].gradient_norm)
    assert not at_output.flags
    at_parameters = cl.diagnose(model, x, y, at="parameters")
    assert at_parameters["slope"].gradient_norm > 0
    # A steep fit is what the slope pulls against.
    assert set().union(*at_parameters.flags.values()) <= {"conflicts"}


# Flags.

CLASSES = np.arange(64)[:, None] % 4
REAL = arrays(64)[1]


@pytest.mark.parametrize(
    ("fault", "flag", "y"),
    [
        (nothing, "always zero", REAL),
        (of_targets, "constant", REAL),
        (detached, "no gradient", REAL),
        (rounded, "no gradient", REAL),
        (cl.wrappers.StopGradient("mae"), "no gradient", REAL),
        (wrong_unit, "dominates", REAL),
        (outer, "shape unusual", REAL),
        (logarithm, "not finite", CLASSES),
        (steep, "not finite", CLASSES),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("place", ["output", "parameters"])
def test_planted_faults_are_found_and_no_others(fault, flag, y, place):
    x, _ = arrays(64)
    model = compiled({"error": error, "fault": fault, "size": size})
    assert cl.diagnose(model, x, y, at=place).flags == {"fault": (flag,)}


@pytest.mark.parametrize("fault", [nothing, detached, wrong_unit, scalar, logarithm])
def test_plain_keras_says_nothing_of_such_faults(fault):
    x, _ = arrays(64)
    model = line(keras.Sequential)
    model.compile("sgd", loss=lambda y_true, y_pred: error(y_true, y_pred) + fault(y_true, y_pred))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = model.fit(x, CLASSES, sample_weight=np.linspace(0.1, 2, 64), verbose=0).history
    assert list(history) == ["loss"]


softmax_of_one = pytest.mark.filterwarnings("ignore:.*using a softmax over axis:UserWarning")


@softmax_of_one
@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
@pytest.mark.parametrize("target", ["classes", "numbers"])
def test_cross_entropy_of_one_channel_is_always_zero(activation, target):
    x, y = arrays(64)
    y = np.abs(y) if target == "numbers" else np.arange(64.0)[:, None] % 2
    model = compiled({"mse": "mse", "ce": "categorical_crossentropy"}, activation=activation)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        found = cl.diagnose(model, x, y)
    assert found.flags == {"ce": ("always zero",)}
    assert "softmax over one class" in found.faults[0].message


def cut_off():
    cut = keras.layers.Lambda(ops.stop_gradient, output_shape=(2,))
    return cl.Sequential([keras.Input((3,)), keras.layers.Dense(2), cut])


def constant():
    # As a softmax of one channel, which TensorFlow rounds to the float below 1 on some processors:
    # then it has a gradient, of 6e-8.
    one = keras.layers.Dense(1, kernel_initializer="zeros")
    high = keras.layers.Lambda(lambda x: ops.clip(x, 1.0, 2.0), output_shape=(1,))
    return cl.Sequential([keras.Input((3,)), one, high])


@pytest.mark.parametrize("make", [cut_off, constant])
def test_a_network_that_passes_no_gradient_on(make):
    model = make()
    x, y = arrays(16, outputs=model.output_shape[-1])
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    assert not cl.diagnose(model, x, y).flags
    found = cl.diagnose(model, x, y, at="parameters")
    assert found.flags == {"mse": ("no gradient",), "mae": ("no gradient",)}


def test_a_steep_cross_entropy_does_not_dominate():
    """The gradient at a probability of 1e-6 is a million times the one behind it."""
    x, y = arrays(64)[0], np.eye(2)[np.arange(64) % 2]
    model = compiled({"ce": "categorical_crossentropy", "mse": "mse"}, 2, "softmax")
    model.set_weights([6 * weight for weight in model.get_weights()])
    found = cl.diagnose(model, x, y)
    assert found["ce"].gradient_share > 0.99
    assert not found.flags
    assert not cl.diagnose(model, x, y, at="parameters").flags


def test_opposed_components_conflict():
    x, y = arrays(64)
    found = cl.diagnose(compiled({"up": upwards, "down": downwards}), x, y)
    assert found.flags == {"up": ("conflicts",), "down": ("conflicts",)}
    assert found["up"].min_cosine == pytest.approx(-1.0, abs=1e-5)
    assert "'down' (cosine -1.00)" in found.faults[0].message
    agreed = compiled({"up": upwards, "down": downwards}, weights={"down": -1.0})
    assert not cl.diagnose(agreed, x, y).flags


def test_samples_and_classes_that_are_not_finite_are_named():
    x, _ = arrays(64)
    fault = cl.diagnose(compiled({"error": error, "log": logarithm}), x, CLASSES).faults[0]
    assert fault.message == (
        "its value is NaN or infinite in 32 of 64 samples (2, 3, 6, 7, 10, …), "
        "all of classes 2 and 3."
    )
    one_hot = np.eye(4)[CLASSES[:, 0]]
    model = compiled({"error": error, "log": of_first}, outputs=4)
    message = cl.diagnose(model, x, one_hot).faults[0].message
    assert "16 of 64 samples (0, 4, 8, 12, 16, …), all of class 0." in message
    model = compiled({"error": error, "steep": steep})
    message = cl.diagnose(model, x, CLASSES).faults[0].message
    assert message.startswith("its gradient is NaN or infinite in 16 of 64 samples (2, 6, 10,")


def of_first(y_true, y_pred):
    return ops.log(1.0 - 2.0 * y_true[:, 0]) + ops.mean(y_pred, axis=-1)


def test_what_is_not_finite_does_not_spill_over():
    """0 times NaN is NaN: where gradients of several components are taken at once."""
    x, _ = arrays(64)
    found = cl.diagnose(compiled({"error": error, "log": logarithm, "size": size}), x, CLASSES)
    alone = cl.diagnose(compiled({"error": error, "size": size}), x, CLASSES)
    for name in ("error", "size"):
        assert found[name].gradient_norm == pytest.approx(alone[name].gradient_norm, rel=1e-6)
    assert np.isnan(found.loss)


def test_outputs_without_weights_do_not_ignore_them():
    x, y = arrays(64)
    model = two_heads()
    model.compile("sgd", loss=cl.CompositeLoss({"error": error, "scalar": scalar}))
    weights = {"a": np.linspace(0.1, 2, 64), "b": None}
    found = cl.diagnose(model, x, {"a": y, "b": y}, weights)
    assert found.flags == {"a_scalar": ("ignores sample weights",)}


def test_outputs_without_mask_do_not_ignore_it():
    rng = np.random.default_rng(0)
    x = rng.integers(1, 5, (40, 6))
    x[:, 4:] = 0
    inputs = keras.Input((6,), dtype="int32")
    steps = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    tags = keras.layers.Dense(3, "softmax", kernel_initializer="zeros", name="tags")(steps)
    whole = keras.layers.GlobalAveragePooling1D()(steps)
    model = cl.Model(inputs, {"tags": tags, "whole": keras.layers.Dense(1, name="whole")(whole)})
    entropy = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
    model.compile(
        "sgd", loss={"tags": cl.CompositeLoss({"ce": entropy}), "whole": cl.CompositeLoss(["mse"])}
    )
    y = {"tags": rng.integers(0, 3, (40, 6)), "whole": rng.normal(size=(40, 1))}
    # Every step has the same value: a mean over them is that with any mask.
    assert not cl.diagnose(model, x, y).flags


@pytest.mark.parametrize("counting", [64, 2, 1])
def test_weights_of_equal_samples_and_of_single_ones(counting):
    x, y = arrays(64)[0], np.eye(3)[np.arange(64) % 3]
    weights = np.where(np.arange(64) % (64 // counting) == 0, 1.5, 0.0)
    model = line(outputs=3, activation="softmax", kernel_initializer="zeros")
    mean = keras.losses.CategoricalCrossentropy(reduction="mean_with_sample_weight")
    model.compile("sgd", loss=cl.CompositeLoss({"mean": mean, "mae": "mae"}))
    flags = cl.diagnose(model, x, y, weights).flags
    assert "ignores sample weights" not in (*flags.get("mean", ()), *flags.get("mae", ()))


def test_a_minimum_is_no_missing_gradient():
    x, y = arrays(64)
    model = line(kernel_initializer="zeros")
    smooth = cl.wrappers.PredictionOnly(cl.losses.Charbonnier())
    losses = {"mse": "mse", "smooth": smooth, "clipped": clipped}
    model.compile("sgd", loss=cl.CompositeLoss(losses))
    for place in ("output", "parameters"):
        found = cl.diagnose(model, x, y, at=place)
        assert found["smooth"].gradient_norm == 0
        assert found.flags == {"clipped": ("no gradient",)}


def clipped(y_true, y_pred):
    return ops.abs(y_true - ops.clip(y_pred, 1.0, 2.0))[:, 0]


def test_a_channel_that_is_not_finite_is_named_alone():
    """All channels go through one pass, in which 0 times NaN is NaN."""
    x, y = arrays(70, outputs=2)
    y[57, 1] = np.nan
    channels = cl.wrappers.PerChannel("mse", names=["red", "green"])
    found = cl.diagnose(compiled({"channels": channels, "size": size}, outputs=2), x, y)
    assert found.flags == {"channels": ("not finite",), "channels/green": ("not finite",)}
    assert "in 1 of 70 samples (57)" in found.faults[0].message


def test_a_scalar_ignores_sample_weights():
    x, y = arrays(64)
    model = compiled({"error": error, "scalar": scalar})
    assert not cl.diagnose(model, x, y).flags
    for weights in (np.linspace(0.1, 2, 64), np.ones(64)):
        found = cl.diagnose(model, x, y, weights)
        assert found.flags == {"scalar": ("ignores sample weights",)}


def of_steps(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def of_sequences(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=(1, 2))


@pytest.mark.parametrize("masked", [True, False])
def test_a_loss_of_whole_sequences_ignores_the_mask(masked):
    rng = np.random.default_rng(0)
    x = rng.integers(1, 5, (16, 6))
    if masked:
        x[:, 4:] = 0
    y = rng.normal(size=(16, 6, 1))
    layers = [
        keras.layers.Embedding(5, 3, mask_zero=True),
        keras.layers.LSTM(1, return_sequences=True),
    ]
    model = cl.Sequential([keras.Input((6,), dtype="int32"), *layers])
    losses = {"steps": of_steps, "mse": "mse", "sequences": of_sequences}
    model.compile("sgd", loss=cl.CompositeLoss(losses))
    assert cl.diagnose(model, x, y).flags == {"sequences": ("ignores mask",)}


def likelihood(y_true, y_pred):
    """Targets of one number, predictions of two, on purpose."""
    error = ops.square(y_true[:, 0] - y_pred[:, 0])
    return y_pred[:, 1] + error * ops.exp(-y_pred[:, 1])


def quantiles(y_true, y_pred):
    low, high = y_true - y_pred[:, :1], y_true - y_pred[:, 1:]
    return (ops.maximum(0.1 * low, -0.9 * low) + ops.maximum(0.9 * high, -0.1 * high))[:, 0]


def test_targets_that_are_broadcast_are_unusual():
    x, y = arrays(64)
    losses = {"error": error, "size": size, "likelihood": likelihood, "quantiles": quantiles}
    found = cl.diagnose(compiled(losses, outputs=2), x, y)
    assert found.flags == {"error": ("shape unusual",)}
    assert "y_true of shape (32, 1) is broadcast against y_pred, (32, 2)" in found.faults[0].message


def test_shapes_of_several_outputs_and_of_other_widths_are_let_alone():
    x, y = arrays(64)
    inputs = keras.Input((3,))
    heads = {name: keras.layers.Dense(2, name=name)(inputs) for name in "ab"}
    model = cl.Model(inputs, heads)
    model.compile("sgd", loss=cl.CompositeLoss({"likelihood": likelihood, "size": size}))
    assert not cl.diagnose(model, x, {"a": y, "b": y}).flags
    wide = arrays(64, outputs=5)[1]
    model = compiled({"likelihood": likelihood, "size": size}, outputs=3)
    assert not cl.diagnose(model, x, wide).flags


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
@pytest.mark.parametrize(
    ("losses", "weights"),
    [
        ({"error": error, "satisfied": lambda t, p: ops.relu(t - p - 1e3)[:, 0]}, None),
        ({"error": error, "off": detached}, {"off": 0.0}),
        ({"error": error}, None),
        ({"only": wrong_unit}, None),
        ({"a": "mse", "b": "mse"}, None),
    ],
    ids=["satisfied penalty", "switched off", "alone", "alone in any unit", "equal"],
)
def test_what_is_no_fault(losses, weights):
    x, y = arrays(64)
    sample_weight = np.linspace(0.5, 2, 64)
    assert not cl.diagnose(compiled(losses, weights=weights), x, y, sample_weight).flags


REGRESSION = {
    "mse": lambda: "mse",
    "mae": lambda: "mae",
    "huber": lambda: keras.losses.Huber(0.7),
    "log_cosh": lambda: "log_cosh",
    "under": lambda: cl.losses.UnderestimationPenalty(),
    "pinball": lambda: cl.losses.Pinball(0.6),
    "charbonnier": lambda: cl.losses.Charbonnier(),
    "asymmetric": lambda: cl.losses.AsymmetricError(1.0, 2.0),
    "own": lambda: error,
}
CLASSIFICATION = {
    "ce": lambda: "categorical_crossentropy",
    "focal": lambda: cl.losses.CategoricalFocal(1.0),
    "kl": lambda: "kl_divergence",
    "mse": lambda: "mse",
    "hinge": lambda: "categorical_hinge",
    "own": lambda: error,
}


@pytest.mark.parametrize("seed", range(20))
def test_healthy_composites_raise_no_flag(seed):
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    classify = seed % 2 == 1
    pool = CLASSIFICATION if classify else REGRESSION
    names = list(rng.choice(list(pool), rng.integers(2, 5), replace=False))
    outputs = int(rng.integers(2, 5))
    model = cl.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(outputs, activation="softmax" if classify else None),
        ]
    )
    weights = {name: float(rng.uniform(0.5, 2.0)) for name in names}
    losses = {name: pool[name]() for name in names}
    model.compile("adam", loss=cl.CompositeLoss(losses, weights=weights))
    count = int(rng.integers(40, 100))
    x, y = rng.normal(size=(count, 5)), rng.normal(size=(count, outputs))
    if classify:
        y = np.eye(outputs)[rng.integers(0, outputs, count)]
    sample_weight = rng.uniform(0.2, 2.0, count) if seed % 3 else None
    place = "parameters" if seed % 4 == 0 else "output"
    assert not cl.diagnose(model, x, y, sample_weight, at=place).flags


# Data.


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "tf.data", "DataLoader", "tensors"])
def test_data_come_as_to_fit(kind):
    x, y = arrays(20)
    w = np.linspace(0.1, 1.0, 20).astype("float32")
    batches = [(x[i : i + 8], y[i : i + 8], w[i : i + 8]) for i in (0, 8, 16)]
    model = compiled(["mse", "mae"])
    expected = cl.diagnose(model, x, y, w, batch_size=8)
    if kind == "tensors":
        found = cl.diagnose(model, *map(ops.convert_to_tensor, (x, y, w)), batch_size=8)
    else:
        found = cl.diagnose(model, data_set(kind, batches))
    assert str(found) == str(expected)


def data_set(kind, batches):
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        signature = tuple(tf.TensorSpec((None, *a.shape[1:]), "float32") for a in batches[0])
        return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    if kind == "DataLoader":
        torch = pytest.importorskip("torch")
        tensors = [torch.as_tensor(np.concatenate(arrays)) for arrays in zip(*batches, strict=True)]
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=8)
    return Batches(batches) if kind == "PyDataset" else (batch for batch in batches)


# Errors.


def test_errors():
    x, y = arrays(8)
    model = compiled(["mse"])
    with raises(ValueError, "needs a keras.Model", "Received: 3"):
        cl.diagnose(3, x, y)
    with raises(ValueError, "needs a compiled model", "Received: the model 'sequential"):
        cl.diagnose(line(), x, y)
    plain = line(keras.Sequential)
    plain.compile("sgd", loss="mse")
    with raises(ValueError, "a CompositeLoss", "Received: loss='mse'"):
        cl.diagnose(plain, x, y)
    with raises(ValueError, "same number of samples", "8 in x", "7 in y"):
        cl.diagnose(model, x, y[:7])
    with raises(ValueError, "at least one", "0 in x"):
        cl.diagnose(model, x[:0], y[:0])
    with raises(ValueError, "at least one batch"):
        cl.diagnose(model, iter([]))
    with raises(ValueError, "leave out `y`", "Received: x of type"):
        cl.diagnose(model, iter([]), y)
    with raises(ValueError, "`y` must hold the targets"):
        cl.diagnose(model, x)
    with raises(ValueError, "Component 'mse'", "(8, 2)"):
        cl.diagnose(model, x, np.ones((8, 2)))
    with raises(ValueError, "`at` must be", "Received: 'layer'"):
        cl.diagnose(model, x, y, at="layer")
    for size in (0, 2.5, True):
        with raises(ValueError, "`batch_size` must be", f"Received: {size!r}"):
            cl.diagnose(model, x, y, batch_size=size)
    frozen = compiled(["mse"])
    frozen.trainable = False
    with raises(ValueError, "trainable parameters", "Received: at='parameters'"):
        cl.diagnose(frozen, x, y, at="parameters")
    assert cl.diagnose(frozen, x, y)["mse"].gradient_norm > 0
    unreduced = line(keras.Sequential)
    unreduced.compile("sgd", loss=cl.CompositeLoss(["mse"], reduction="none"))
    with raises(ValueError, "'none'", "Received: reduction='none'"):
        cl.diagnose(unreduced, x, y)
    with raises(KeyError, "The components are 'mse'", "Received: 'mae'"):
        cl.diagnose(model, x, y)["mae"]
