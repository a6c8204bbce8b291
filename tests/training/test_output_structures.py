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
    "a list in a dict": (lambda a, b, c: {"l": [a, b], "c": c}, ["l/a", "l/b", "c"]),
    "a dict beside a tensor": (lambda a, b, c: [a, {"b": b, "c": c}], ["a", "1/b", "1/c"]),
    "a tuple beside a tensor": (lambda a, b, c: [a, (b, c)], ["a", "1/b", "1/c"]),
    "a dict out of order": (lambda a, b, c: {"z": a, "y": b, "x": c}, ["z", "y", "x"]),
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


def twins(structure):
    """A tracked and a plain model with the same weights."""
    tracked = nested(structure)
    plain = keras.Model(tracked.input, keras.tree.map_structure(lambda t: t, tracked.output))
    return tracked, plain


@every_structure
def test_flat_lists_go_as_in_keras(structure, names):
    """One after the other in Keras's order, which is that of sorted keys."""
    tracked, plain = twins(structure)
    flat = keras.tree.flatten(structure(Y, V, U))
    found = []
    for model in (tracked, plain):
        model.compile("sgd", loss=[cl.CompositeLoss({"t": "mse"}), "mae", keras.losses.Huber(0.3)])
        found.append(model.evaluate(X, flat, batch_size=8, verbose=0)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@every_structure
def test_a_joint_composite_takes_weights_of_a_path(structure, names):
    w = np.array([2, 0, 1, 1, 0.5, 3, 1, 1], "float32")
    ones = np.ones(8, "float32")
    model, first = nested(structure), names[0]

    def term(model, x, y, y_pred):
        return ops.mean(ops.square(keras.tree.flatten(y_pred)[at] - Y), axis=-1)

    at = keras.tree.flatten(structure(0, 1, 2)).index(0)
    own = cl.wrappers.OnOutput("mse", first)
    stated = cl.wrappers.OnOutput("mse", first, target=first)
    both = cl.wrappers.OnOutput(lambda y, p: y[0] - p[0], (first,), target=(first,))
    losses = {"o": own, "s": stated, "b": both, "i": cl.wrappers.OnInputs(term, output=first)}
    with pytest.warns(UserWarning, match="lambda"):
        model.compile("sgd", loss=cl.CompositeLoss(losses))
    logs = evaluate(model, X, structure(Y, V, U), sample_weight=structure(w, ones, ones))
    error = Y - values_of(model, X)[at]
    expected = np.mean(w * np.mean(error**2, axis=-1))
    for key in ("o_loss", "s_loss", "i_loss"):
        assert logs[key] == pytest.approx(expected, rel=1e-5), key
    assert logs["b_loss"] == pytest.approx(np.mean(w[:, None] * error), rel=1e-4, abs=1e-6)


def test_a_target_of_that_name_is_one_for_all():
    """As in Keras."""
    x, z, head = keras.Input((3,)), keras.Input((3,)), keras.layers.Dense(2, name="head")
    other = keras.layers.Dense(2, name="o")
    found = []
    for cls in (cl.Model, keras.Model):
        model = cls([x, z], [head(x), other(x), head(z)])
        model.compile("sgd", loss=cl.CompositeLoss({"a": "mse"}))
        logs = model.evaluate([X, Z], {"head": Y, "o": V}, batch_size=8, verbose=0)
        found.append(np.ravel(logs)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_losses_by_the_names_of_layers_in_nested_lists():
    """As in Keras."""
    found = []
    for model in twins(lambda a, b, c: [a, (b, c)]):
        loss = {"a": cl.CompositeLoss({"t": "mse"}), "b": "mse", "c": "mae"}
        model.compile("sgd", loss=loss)
        found.append(model.evaluate(X, [Y, (V, U)], batch_size=8, verbose=0)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Returns(cl.Model):
    """A model of the user's whose outputs are in a structure."""

    def __init__(self, structure):
        super().__init__()
        self.structure = structure
        self.heads = [keras.layers.Dense(2) for _ in range(2)]

    def call(self, x):
        return self.structure(*(head(x) for head in self.heads))


def test_outputs_whose_keys_are_numbers():
    model = Returns(lambda a, b: {0: a, 1: b})
    model.compile("sgd", loss={0: cl.CompositeLoss({"t": "mse"}), 1: "mae"})
    logs = evaluate(model, X, {0: Y, 1: V})
    first, second = values_of(model, X)
    assert logs["0_t_loss"] == pytest.approx(mse(Y, first), rel=1e-5)
    assert logs["1_loss"] == pytest.approx(np.mean(np.abs(V - second)), rel=1e-5)
    model.compile("sgd", loss=cl.CompositeLoss({"t": "mse"}))
    logs = evaluate(model, X, {0: Y, 1: V})
    assert logs["1_t_loss"] == pytest.approx(mse(V, second), rel=1e-5)


def test_a_single_output_deep_in_dicts():
    model = Returns(lambda a, b: {"q": {"r": a}})
    model.compile("sgd", loss={"q": {"r": cl.CompositeLoss({"t": "mse"})}})
    logs = evaluate(model, X, {"q": {"r": Y}})
    assert logs["t_loss"] == pytest.approx(mse(Y, values_of(model, X)[0]), rel=1e-5)


@every_structure
def test_an_entry_for_no_output_is_an_error(structure, names):
    model = nested(structure)
    loss = cl.CompositeLoss({"t": "mse"})
    for bad in ([loss] * 4, {"a": loss, "nope": loss}):
        with raises(ValueError, "`loss` must", "Received: "):
            model.compile("sgd", loss=bad)
            evaluate(model, X, structure(Y, V, U))
