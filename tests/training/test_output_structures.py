"""Outputs of one name, and nested ones: each leaf has its own name, and nothing is dropped."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.messages import raises

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(2, 8, 3)).astype("float32")
Y, V, U = RNG.normal(size=(3, 8, 2)).astype("float32")


def mse(y, p):
    return np.mean(np.square(y - p))


@keras.saving.register_keras_serializable("tests_output_structures")
def magnitude(y_pred):
    return ops.mean(ops.square(y_pred), axis=-1)


class MeanAndVariance(keras.layers.Layer):
    """One layer, two outputs."""

    def build(self, shape):
        self.mean, self.log_var = keras.layers.Dense(2), keras.layers.Dense(2)

    def call(self, x):
        return self.mean(x), self.log_var(x)


def shared_head():
    x, z, head = keras.Input((3,)), keras.Input((3,)), keras.layers.Dense(2, name="head")
    return cl.Model([x, z], [head(x), head(z)]), [X, Z]


def of_two():
    x = keras.Input((3,))
    return cl.Model(x, list(MeanAndVariance(name="head")(x))), X


def sub_model():
    x, y = keras.Input((3,)), keras.Input((3,))
    inner = keras.Model(y, [keras.layers.Dense(2)(y), keras.layers.Dense(2)(y)], name="head")
    return cl.Model(x, list(inner(x))), X


def same_tensor():
    x = keras.Input((3,))
    head = keras.layers.Dense(2, name="head")(x)
    return cl.Model(x, [head, head]), X


SHARED = {f.__name__: f for f in (shared_head, of_two, sub_model, same_tensor)}
shared = pytest.mark.parametrize("build", SHARED.values(), ids=SHARED)


def evaluate(model, x, y, **kwargs):
    return model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True, **kwargs)


def values_of(model, x):
    return keras.tree.flatten(model.predict(x, verbose=0))


@shared
def test_outputs_of_one_name_have_their_own(build):
    model, x = build()
    model.compile("sgd", loss=cl.CompositeLoss(["mse", cl.wrappers.PredictionOnly(magnitude)]))
    logs = evaluate(model, x, [Y, V])
    first, second = values_of(model, x)
    for name, target, found in (("head", Y, first), ("head_2", V, second)):
        assert logs[f"{name}_mse_loss"] == pytest.approx(mse(target, found), rel=1e-5)
        assert logs[f"{name}_magnitude_loss"] == pytest.approx(np.mean(found**2), rel=1e-5)
    parts = [value for key, value in logs.items() if key != "loss"]
    assert logs["loss"] == pytest.approx(sum(parts), rel=1e-5)
    history = model.fit(x, [Y, V], batch_size=8, verbose=0).history
    assert history["loss"][0] == pytest.approx(logs["loss"], rel=1e-5)


@shared
def test_a_loss_of_that_name_is_one_for_all(build):
    """As in Keras."""
    model, x = build()
    model.compile("sgd", loss={"head": cl.CompositeLoss({"a": "mse"})}, loss_weights={"head": 2.0})
    logs = evaluate(model, x, [Y, V])
    first, second = values_of(model, x)
    assert logs["loss"] == pytest.approx(2 * (mse(Y, first) + mse(V, second)), rel=1e-5)


@shared
def test_each_has_its_own_loss(build):
    model, x = build()
    model.compile("sgd", loss=[cl.CompositeLoss({"a": "mse"}), "mae"])
    logs = evaluate(model, x, [Y, V])
    first, second = values_of(model, x)
    assert logs["head_a_loss"] == pytest.approx(mse(Y, first), rel=1e-5)
    assert logs["head_2_loss"] == pytest.approx(np.mean(np.abs(V - second)), rel=1e-5)


@shared
def test_to_choose_by_an_ambiguous_name_is_an_error(build):
    model, x = build()
    model.compile("sgd", loss=cl.CompositeLoss({"a": cl.wrappers.OnOutput("mse", "head")}))
    with raises(ValueError, "'a'", "'head' and 'head_2'", "Received: output='head'"):
        evaluate(model, x, [Y, V])
    second = cl.wrappers.OnOutput("mse", "head_2")
    model.compile("sgd", loss=cl.CompositeLoss({"a": second}))
    found = values_of(model, x)[1]
    assert evaluate(model, x, [Y, V])["a_loss"] == pytest.approx(mse(V, found), rel=1e-5)


def test_the_next_free_name_is_taken():
    x, z, head = keras.Input((3,)), keras.Input((3,)), keras.layers.Dense(2, name="head")
    other = keras.layers.Dense(2, name="head_2")
    model = cl.Model([x, z], [head(x), other(x), head(z)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": "mse"}))
    logs = evaluate(model, [X, Z], [Y, V, U])
    assert list(logs) == ["loss", "head_a_loss", "head_2_a_loss", "head_3_a_loss"]


def test_the_state_of_an_lstm():
    steps = keras.Input((4, 3))
    lstm = keras.layers.LSTM(2, return_state=True, name="rnn")
    model = cl.Model(steps, list(lstm(steps)))
    x = RNG.normal(size=(8, 4, 3)).astype("float32")
    model.compile("sgd", loss=cl.CompositeLoss({"a": "mse"}))
    logs = evaluate(model, x, [Y, V, U])
    assert list(logs) == ["loss", "rnn_a_loss", "rnn_2_a_loss", "rnn_3_a_loss"]
    found = values_of(model, x)
    for name, target, value in zip(("rnn", "rnn_2", "rnn_3"), (Y, V, U), found, strict=True):
        assert logs[f"{name}_a_loss"] == pytest.approx(mse(target, value), rel=1e-5)


# Nested outputs.


def nested(structure):
    x = keras.Input((3,))
    a, b, c = (keras.layers.Dense(2, name=name)(x) for name in "abc")
    return cl.Model(x, structure(a, b, c))


NESTED = {
    "a dict in a dict": (lambda a, b, c: {"h": {"a": a, "b": b}, "c": c}, ["h/a", "h/b", "c"]),
    "dicts in a list": (lambda a, b, c: [{"a": a}, {"b": b, "c": c}], ["0/a", "1/b", "1/c"]),
    "a list in a dict": (lambda a, b, c: {"l": [a, b], "c": c}, ["l/0", "l/1", "c"]),
    "a dict beside a tensor": (lambda a, b, c: [a, {"b": b, "c": c}], ["0", "1/b", "1/c"]),
}
every_structure = pytest.mark.parametrize("structure, names", NESTED.values(), ids=NESTED)
TARGETS = {"a": Y, "b": V, "c": U}


def expected_of(model):
    found = {n: model.get_layer(n) for n in "abc"}
    weights = {n: [ops.convert_to_numpy(w) for w in layer.weights] for n, layer in found.items()}
    return {n: mse(TARGETS[n], X @ w[0] + w[1]) for n, w in weights.items()}


@every_structure
def test_nested_outputs_have_the_names_of_their_paths(structure, names):
    model = nested(structure)
    model.compile("sgd", loss=cl.CompositeLoss({"t": "mse"}))
    y = structure(Y, V, U)
    logs = evaluate(model, X, y)
    assert set(logs) == {"loss", *(f"{name}_t_loss" for name in names)}
    expected = expected_of(model)
    for name, key in zip(names, "abc", strict=True):
        assert logs[f"{name}_t_loss"] == pytest.approx(expected[key], rel=1e-5)
    assert logs["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
    history = model.fit(X, y, batch_size=8, verbose=0).history
    assert history["loss"][0] == pytest.approx(logs["loss"], rel=1e-5)


@every_structure
def test_losses_in_the_structure_of_the_outputs(structure, names):
    model = nested(structure)
    loss = structure(cl.CompositeLoss({"t": "mse"}), "mae", None)
    weights = structure(2.0, 1.0, 1.0)
    model.compile("sgd", loss=loss, loss_weights=weights)
    logs = evaluate(model, X, structure(Y, V, U))
    assert set(logs) == {"loss", f"{names[0]}_t_loss", f"{names[1]}_loss"}
    total = 2 * logs[f"{names[0]}_t_loss"] + logs[f"{names[1]}_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


@every_structure
def test_sample_weights_in_the_structure_of_the_outputs(structure, names):
    model = nested(structure)
    model.compile("sgd", loss=cl.CompositeLoss({"t": "mse"}))
    w = np.array([2, 0, 1, 1, 0.5, 3, 1, 1], "float32")
    weight = structure(w, np.ones(8, "float32"), 2 * np.ones(8, "float32"))
    logs = evaluate(model, X, structure(Y, V, U), sample_weight=weight)
    expected = expected_of(model)
    assert logs[f"{names[1]}_t_loss"] == pytest.approx(expected["b"], rel=1e-5)
    assert logs[f"{names[2]}_t_loss"] == pytest.approx(2 * expected["c"], rel=1e-5)


@every_structure
def test_a_joint_composite_reads_paths(structure, names):
    pairs = zip("abc", names, strict=True)
    loss = cl.CompositeLoss({key: cl.wrappers.OnOutput("mse", name) for key, name in pairs})
    model = nested(structure)
    model.compile("sgd", loss=loss)
    logs = evaluate(model, X, structure(Y, V, U))
    for key, value in expected_of(model).items():
        assert logs[f"{key}_loss"] == pytest.approx(value, rel=1e-5)


# Targets as Keras takes them.


def three():
    x = keras.Input((3,))
    return cl.Model(x, [keras.layers.Dense(2, name=name)(x) for name in "abc"])


GIVEN = {"an array": Y, "a list of one": [Y], "None for the others": [Y, None, None]}


@pytest.mark.parametrize("y", GIVEN.values(), ids=GIVEN)
def test_one_loss_and_one_target(y):
    model = three()
    model.compile("sgd", loss=[cl.CompositeLoss({"t": "mse"}), None, None])
    found = model.predict(X, verbose=0)[0]
    assert evaluate(model, X, y)["a_t_loss"] == pytest.approx(mse(Y, found), rel=1e-5)


def of_user(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize("loss", ["mse", of_user, keras.losses.Huber()])
@pytest.mark.parametrize("y", [[Y, V], (Y, V), {"a": Y, "b": V}], ids=["list", "tuple", "dict"])
def test_two_targets_of_one_output(loss, y):
    """Keras's ValueError about structures, for functions too."""
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=cl.CompositeLoss([loss]))
    for act in (model.evaluate, model.fit):
        with raises(ValueError, "`y` and the predictions have different structures", "Received: y"):
            act(X, y, verbose=0)
