"""`OnOutput`, `PredictionOnly` and `OnInputs`: what a component reads of a model."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import (
    DeepSupervision,
    Masked,
    MultiScale,
    OnInputs,
    OnOutput,
    OnSlice,
    PerChannel,
    PredictionOnly,
    Scaled,
    StopGradient,
)
from tests.composite.children import value
from tests.messages import raises
from tests.training.tiny import FROZEN, arrays, line, mae, mse, predictions, sgd, two_heads
from tests.wrappers.numpy_twins import block_means, close, normal

pytestmark = pytest.mark.depends_on_version

WEIGHT = np.arange(10.0, dtype="float32") / 4


def problem(structure=dict, cls=cl.Model):
    """A model of the outputs a and b, its input, targets and predictions."""
    model = two_heads(cls, structure)
    x, y = arrays(outputs=2)
    kernels = [np.random.default_rng([0, index]).normal(size=(3, 1)) for index in range(2)]
    predicted = [x.astype("float64") @ kernel.astype("float32") for kernel in kernels]
    return model, x, {"a": y[:, :1], "b": y[:, 1:]}, dict(zip("ab", predicted, strict=True))


def heads(**kwargs):
    parts = {"first": OnOutput("mse", "a"), "second": OnOutput("mae", "b")}
    return cl.CompositeLoss(parts, {"second": 0.5}, **kwargs)


def evaluated(model, x, y, loss, sample_weight=None, batch_size=4):
    model.compile(sgd(FROZEN), loss=loss)
    return model.evaluate(
        x, y, sample_weight=sample_weight, batch_size=batch_size, verbose=0, return_dict=True
    )


def weighted(weight, errors):
    return np.mean(weight[:, None] * errors)


# Several outputs, together.


@pytest.mark.parametrize("given", [dict, list, tuple])
@pytest.mark.parametrize("structure", [dict, list])
@pytest.mark.parametrize("make", ["cl.Model", "cl.track"])
def test_each_component_reads_its_output(make, structure, given):
    if structure is dict and given is not dict:
        pytest.skip("Keras wants the structure of the outputs")
    model, x, y, p = problem(structure, keras.Model if make == "cl.track" else cl.Model)
    model = cl.track(model)
    target = y if given is dict else given(y.values())
    logs = evaluated(model, x, target, heads())
    a, b = mse(y["a"], p["a"]), mae(y["b"], p["b"])
    assert list(logs) == ["loss", "first_loss", "second_loss"] == model.metrics_names
    expected = {"loss": a + 0.5 * b, "first_loss": a, "second_loss": b}
    assert logs == pytest.approx(expected, rel=1e-5)


def test_training_reaches_each_output_through_its_component():
    model, x, y, p = problem()
    model.compile(sgd(0.1), loss=heads())
    before = {head: model.get_layer(head).get_weights()[0] for head in "ab"}
    model.fit(x, y, batch_size=10, verbose=0)
    slopes = {"a": 2 * (p["a"] - y["a"]), "b": 0.5 * np.sign(p["b"] - y["b"])}
    for head in "ab":
        after = model.get_layer(head).get_weights()[0]
        close(after, before[head] - 0.1 * x.T @ slopes[head] / 10, 1e-4)


def test_validation_has_its_keys_and_adds_up():
    model, x, y, _ = problem()
    model.compile(sgd(FROZEN), loss=heads())
    history = model.fit(x, y, batch_size=4, validation_data=(x, y), verbose=0).history
    keys = ["loss", "first_loss", "second_loss"]
    assert sorted(history) == sorted([*keys, *(f"val_{key}" for key in keys)])
    for prefix in ("", "val_"):
        loss, first, second = (history[prefix + key][0] for key in keys)
        assert loss == pytest.approx(first + 0.5 * second, rel=1e-6)


def test_a_component_may_couple_outputs():
    """One that sees a tuple of predictions, and one target for both."""

    def difference(y_true, y_pred):
        a, b = y_pred
        return ops.square(a - b - y_true)

    model, x, y, p = problem()
    loss = cl.CompositeLoss(
        {"couple": OnOutput(difference, ("a", "b"), "b"), "a": OnOutput("mse", "a")}
    )
    logs = evaluated(model, x, y, loss, WEIGHT)
    couple = weighted(WEIGHT, (p["a"] - p["b"] - y["b"]) ** 2)
    assert logs["couple_loss"] == pytest.approx(couple, rel=1e-5)
    model.compile(sgd(0.1), loss=loss)
    before = model.get_layer("b").get_weights()[0]
    model.fit(x, y, batch_size=10, verbose=0)
    slope = -2 * x.T @ (p["a"] - p["b"] - y["b"]) / 10
    close(model.get_layer("b").get_weights()[0], before - 0.1 * slope, 1e-4)


# Targets.


def test_the_target_is_a_key_of_y():
    model, x, y, p = problem()
    loss = cl.CompositeLoss({"swapped": OnOutput("mse", "a", "b"), "own": OnOutput("mse", "a")})
    logs = evaluated(model, x, y, loss)
    expected = {"swapped_loss": mse(y["b"], p["a"]), "own_loss": mse(y["a"], p["a"])}
    assert {k: logs[k] for k in expected} == pytest.approx(expected, rel=1e-5)


def test_without_a_key_of_its_own_it_is_the_whole_of_y():
    model, x, y, p = problem()
    loss = cl.CompositeLoss({"a": OnOutput("mse", "a"), "b": OnOutput("mae", "b")})
    logs = evaluated(model, x, y["a"], loss)
    expected = {"a_loss": mse(y["a"], p["a"]), "b_loss": mae(y["a"], p["b"])}
    assert {k: logs[k] for k in expected} == pytest.approx(expected, rel=1e-5)

    def of_both(y_true, y_pred):
        return ops.square(y_true["one"] + y_true["two"] - y_pred)

    loss = cl.CompositeLoss({"a": OnOutput(of_both, "a")})
    logs = evaluated(model, x, {"one": y["a"], "two": y["b"]}, loss)
    assert logs["a_loss"] == pytest.approx(mse(y["a"] + y["b"], p["a"]), rel=1e-5)


def test_a_target_that_is_no_output():
    model, x, y, p = problem()
    loss = cl.CompositeLoss({"a": OnOutput("mse", "a", "c"), "b": OnOutput("mse", "b", "c")})
    logs = evaluated(model, x, {"c": y["a"]}, loss)
    assert logs["loss"] == pytest.approx(mse(y["a"], p["a"]) + mse(y["a"], p["b"]), rel=1e-5)


def test_an_output_may_lack_a_component():
    model, x, y, p = problem()
    logs = evaluated(model, x, {"a": y["a"]}, cl.CompositeLoss({"only": OnOutput("mse", "a")}))
    assert logs == pytest.approx({k: mse(y["a"], p["a"]) for k in ("loss", "only_loss")}, rel=1e-5)


# Sample weights and masks.


@pytest.mark.parametrize("structure", [dict, list])
def test_sample_weights_of_samples_reach_every_component(structure):
    model, x, y, p = problem(structure)
    logs = evaluated(model, x, y if structure is dict else [*y.values()], heads(), WEIGHT)
    a = weighted(WEIGHT, (y["a"] - p["a"]) ** 2)
    b = weighted(WEIGHT, np.abs(y["b"] - p["b"]))
    expected = {"loss": a + 0.5 * b, "first_loss": a, "second_loss": b}
    assert logs == pytest.approx(expected, rel=1e-5)


def test_a_dict_of_sample_weights_goes_the_way_of_the_targets():
    model, x, y, p = problem()
    given = {"a": WEIGHT, "b": WEIGHT[::-1].copy()}
    logs = evaluated(model, x, y, heads(), given)
    a = weighted(given["a"], (y["a"] - p["a"]) ** 2)
    b = weighted(given["b"], np.abs(y["b"] - p["b"]))
    expected = {"loss": a + 0.5 * b, "first_loss": a, "second_loss": b}
    assert logs == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_a_target_is_that_of_its_component():
    model, x, y, p = problem()
    loss = cl.CompositeLoss({"a": OnOutput("mse", "a", "b")})
    logs = evaluated(model, x, y, loss, {"a": np.zeros(10), "b": WEIGHT})
    assert logs["loss"] == pytest.approx(weighted(WEIGHT, (y["b"] - p["a"]) ** 2), rel=1e-5)


@pytest.mark.parametrize("structure", [dict, list])
def test_a_list_of_sample_weights_goes_by_position(structure):
    model, x, y, p = problem(structure)
    target = y if structure is dict else [*y.values()]
    given = [WEIGHT, WEIGHT[::-1].copy()]
    if structure is dict:
        given = dict(zip("ab", given, strict=True))
    logs = evaluated(model, x, target, heads(), given)
    a = weighted(WEIGHT, (y["a"] - p["a"]) ** 2)
    b = weighted(WEIGHT[::-1], np.abs(y["b"] - p["b"]))
    assert logs == pytest.approx({"loss": a + 0.5 * b, "first_loss": a, "second_loss": b}, rel=1e-5)


def test_the_mask_of_an_output_is_that_of_its_component():
    x = normal(4, 5, 2, seed=1)
    steps = np.random.default_rng(3).random((4, 5)) < 0.6
    x[~steps] = 0
    inputs = keras.Input((5, 2))
    masked = keras.layers.Masking(0.0)(inputs)
    a = keras.layers.Dense(2, name="a")(masked)
    b = keras.layers.Dense(2, name="b")(inputs)
    model = cl.Model(inputs, {"a": a, "b": b})
    y = {"a": normal(4, 5, 2, seed=2), "b": normal(4, 5, 2, seed=3)}
    loss = cl.CompositeLoss({"a": OnOutput("mse", "a"), "b": OnOutput("mse", "b")})
    logs = evaluated(model, x, y, loss)
    p = model.predict(x, verbose=0)
    assert logs["a_loss"] == pytest.approx(mse(y["a"][steps], p["a"][steps]), rel=1e-5)
    assert logs["b_loss"] == pytest.approx(mse(y["b"], p["b"]), rel=1e-5)


def masked_heads():
    """A model of two outputs behind one mask, its input, and the steps that the mask shows."""
    x = normal(4, 5, 2, seed=1)
    steps = np.random.default_rng(3).random((4, 5)) < 0.6
    x[~steps] = 0
    inputs = keras.Input((5, 2))
    masked = keras.layers.Masking(0.0)(inputs)
    outputs = {name: keras.layers.Dense(2, name=name)(masked) for name in "ab"}
    model = cl.Model(inputs, outputs)
    return model, x, steps


def test_terms_of_several_outputs_have_the_mask_that_these_share():
    model, x, steps = masked_heads()

    def pair(y_true, y_pred):
        return ops.mean(ops.square(y_pred[0] - y_pred[1]), axis=-1)

    def term(model, x, y, y_pred):
        return ops.mean(ops.square(y_pred["a"] - y_pred["b"]), axis=-1)

    loss = cl.CompositeLoss({"pair": OnOutput(pair, ("a", "b")), "term": OnInputs(term)})
    y = {name: np.zeros((4, 5, 2), "float32") for name in "ab"}
    logs = evaluated(model, x, y, loss)
    p = model.predict(x, verbose=0)
    expected = mse(p["a"][steps], p["b"][steps])
    assert [logs["pair_loss"], logs["term_loss"]] == pytest.approx([expected] * 2, rel=1e-5)


def test_a_mask_outlives_a_time_at_weight_0():
    """Where a component has had weight 0, its predictions go through `stop_gradient` or `where`."""
    model, x, steps = masked_heads()
    y = {name: normal(4, 5, 2, seed=n) for n, name in enumerate("ab")}
    loss = cl.CompositeLoss({name: OnOutput("mse", name) for name in "ab"}, {"a": 0.0})
    p = model.predict(x, verbose=0)
    expected = mse(y["a"][steps], p["a"][steps])
    assert evaluated(model, x, y, loss)["a_loss"] == pytest.approx(expected, rel=1e-5)
    loss.set_weight("a", 1.0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["a_loss"] == pytest.approx(expected, rel=1e-5)


def test_missing_labels_of_an_output():
    model, x, y, p = problem()
    there = np.arange(10) % 3 > 0
    bad = {"a": np.where(there[:, None], y["a"], np.nan), "b": y["b"]}
    loss = cl.CompositeLoss({"a": OnOutput(Masked("mse"), "a"), "b": OnOutput("mae", "b")})
    logs = evaluated(model, x, bad, loss, batch_size=10)
    assert logs["a_loss"] == pytest.approx(mse(y["a"][there], p["a"][there]), rel=1e-5)


# Models of one output.


def single(kind):
    """A model of one output, the name of the output and its kernel's model for NumPy."""
    if kind == "sequential":
        model = line()
        return model, model.layers[-1].name
    if kind == "subclassed":

        class Line(cl.ComponentMetricsMixin, keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(1)

            def call(self, inputs):
                return self.dense(inputs)

        model = Line()
        model(np.zeros((1, 3), "float32"))
        return model, "output"
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, name="price")(inputs)
    if kind == "a dict of one":
        return cl.Model(inputs, {"cost": outputs}), "cost"
    return cl.Model(inputs, outputs), "price"


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "a dict of one"])
def test_a_single_output_has_the_name_of_its_layer(kind):
    model, name = single(kind)
    x, y = arrays()
    loss = cl.CompositeLoss(
        {"data": OnOutput("mse", name), "size": PredictionOnly(OnOutput("mae", name))}
    )
    target = {"cost": y} if kind == "a dict of one" else y
    logs = evaluated(model, x, target, loss, WEIGHT)
    p = predictions(model, x)
    expected = {"data_loss": weighted(WEIGHT, (y - p) ** 2), "size_loss": weighted(WEIGHT, abs(p))}
    assert {k: logs[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    model.compile(sgd(0.1), loss=loss)
    history = model.fit(x, target, batch_size=4, verbose=0).history
    assert sorted(history) == ["data_loss", "loss", "size_loss"]


@keras.saving.register_keras_serializable("tests_outputs")
class TwoHeads(cl.ComponentMetricsMixin, keras.Model):
    """A subclassed model, whose outputs are known when it is called."""

    def __init__(self, structure="dict", **kwargs):
        super().__init__(**kwargs)
        self.structure = structure
        self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

    def call(self, inputs):
        a, b = self.a(inputs), self.b(inputs)
        return {"a": a, "b": b} if self.structure == "dict" else [a, b]

    def get_config(self):
        return {**super().get_config(), "structure": self.structure}


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_a_subclassed_model_of_two_outputs(structure):
    model, (x, y) = TwoHeads(structure), arrays(outputs=2)
    names = "ab" if structure == "dict" else ("output_1", "output_2")
    loss = cl.CompositeLoss({"u": OnOutput("mse", names[0]), "v": OnOutput("mae", names[1])})
    y = [y[:, :1], y[:, 1:]]
    target = dict(zip(names, y, strict=True)) if structure == "dict" else y
    logs = evaluated(model, x, target, loss)
    p = model.predict(x, verbose=0)
    p = [p[n] for n in "ab"] if structure == "dict" else p
    u, v = mse(y[0], p[0]), mae(y[1], p[1])
    assert logs == pytest.approx({"loss": u + v, "u_loss": u, "v_loss": v}, rel=1e-5)
    model.compile("sgd", loss=loss)
    model.fit(x, target, verbose=0)


# Nesting.


def test_wrappers_on_one_output():
    model, x, y, p = problem()
    loss = cl.CompositeLoss(
        {
            "slice": OnOutput(OnSlice("mse", np.s_[:, 0:1]), "a"),
            "units": OnOutput(Scaled("mse", 2.0), "a"),
            "channels": OnOutput(PerChannel("mse", names=["only"]), "a"),
            "watched": StopGradient(OnOutput("mae", "b")),
            "both": OnOutput(cl.CompositeLoss(["mse", "mae"], [1.0, 0.5]), "b"),
            "inner": cl.CompositeLoss({"x": OnOutput("mse", "a"), "y": OnOutput("mse", "b")}),
        },
    )
    a, b = mse(y["a"], p["a"]), mse(y["b"], p["b"])
    absolute = mae(y["b"], p["b"])
    expected = {
        "slice": a,
        "units": a / 4,
        "channels": a,
        "channels/only": a,
        "watched": absolute,
        "both": b + 0.5 * absolute,
        "both/mse": b,
        "both/mae": absolute,
        "inner": a + b,
        "inner/x": a,
        "inner/y": b,
    }
    logs = evaluated(model, x, y, loss)
    assert list(logs) == ["loss", *(f"{name}_loss" for name in expected)]
    parts = {f"{name}_loss": part for name, part in expected.items()}
    total = sum(part for name, part in expected.items() if "/" not in name)
    assert logs == pytest.approx({"loss": total, **parts}, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_what_is_watched_is_not_trained():
    model, x, y, _ = problem()
    before = model.get_layer("b").get_weights()[0]
    loss = {"a": OnOutput("mse", "a"), "b": StopGradient(OnOutput("mse", "b"))}
    model.compile(sgd(0.1), loss=cl.CompositeLoss(loss))
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.get_layer("b").get_weights()[0], before)


def test_a_sum_of_routed_losses_is_joint():
    model, x, y, p = problem()
    loss = OnOutput("mse", "a", name="u") + 0.5 * OnOutput("mae", "b", name="v")
    logs = evaluated(model, x, y, loss)
    u, v = mse(y["a"], p["a"]), mae(y["b"], p["b"])
    assert logs == pytest.approx({"loss": u + 0.5 * v, "u_loss": u, "v_loss": v}, rel=1e-5)


def test_a_routed_loss_may_be_compiled_alone():
    model, x, y, p = problem()
    logs = evaluated(model, x, y, OnOutput("mse", "a"))
    assert logs == pytest.approx({"loss": mse(y["a"], p["a"])}, rel=1e-5)


def test_outside_a_model_it_takes_a_dict():
    _, _, y, p = problem()
    p = {name: part.astype("float32") for name, part in p.items()}
    close(value(heads(), y, p), mse(y["a"], p["a"]) + 0.5 * mae(y["b"], p["b"]))
    parts = heads().components(y, p, {"a": WEIGHT})
    close(parts["first"], weighted(WEIGHT, (y["a"] - p["a"]) ** 2))
    close(parts["second"], mae(y["b"], p["b"]))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_reduction_is_imposed_on_every_output(reduction):
    _, _, y, p = problem()
    p = {name: part.astype("float32") for name, part in p.items()}
    a, b = ((y["a"] - p["a"]) ** 2)[:, 0], np.abs(y["b"] - p["b"])[:, 0]
    each = WEIGHT * (a + 0.5 * b)
    expected = each.sum() if reduction == "sum" else each
    close(value(heads(reduction=reduction), y, p, WEIGHT), expected)


# Terms without a target.


@keras.saving.register_keras_serializable("tests_outputs")
def size(y_pred):
    return ops.square(y_pred)


def test_a_function_of_predictions_alone():
    y_pred = normal(4, 3, seed=1)
    close(value(PredictionOnly(size), None, y_pred), np.mean(y_pred**2))
    loss = cl.CompositeLoss({"size": PredictionOnly(size), "mae": "mae"})
    close(value(loss, y_pred + 1, y_pred), np.mean(y_pred**2) + 1)
    loaded = cl.CompositeLoss.from_config(loss.get_config())
    close(value(loaded, y_pred + 1, y_pred), np.mean(y_pred**2) + 1)
    assert PredictionOnly(size).name == "size"


def test_zeros_are_the_target_of_a_loss():
    y_pred = normal(4, 3, seed=1)
    for target in (None, np.full((4, 3), np.nan), np.ones((4, 7))):
        close(value(PredictionOnly("mse"), target, y_pred), np.mean(y_pred**2))


def kl(y_true, y_pred):
    mean, log_variance = y_pred
    return -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=-1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: PredictionOnly(OnOutput(kl, ("a", "b"))),
        lambda: OnOutput(PredictionOnly(kl), ("a", "b")),
    ],
    ids=["around", "inside"],
)
def test_fit_needs_no_y_where_no_component_does(wrap):
    model, x, _, p = problem()
    loss = cl.CompositeLoss(
        {"kl": wrap(), "size": OnOutput(PredictionOnly("mse"), "a")}, {"kl": 0.5}
    )
    assert not loss._node.needs_target
    model.compile(sgd(FROZEN), loss=loss)
    divergence = np.mean(-0.5 * (1 + p["b"] - p["a"] ** 2 - np.exp(p["b"])))
    expected = {"kl_loss": divergence, "size_loss": np.mean(p["a"] ** 2)}
    expected["loss"] = 0.5 * divergence + expected["size_loss"]
    assert model.evaluate(x, batch_size=4, verbose=0, return_dict=True) == pytest.approx(
        expected, rel=1e-5
    )
    history = model.fit(x, batch_size=4, verbose=0, shuffle=False).history
    assert {k: v[0] for k, v in history.items()} == pytest.approx(expected, rel=1e-5)


def test_a_model_of_one_output_needs_no_y_either():
    model = line()
    x, _ = arrays()
    model.compile(sgd(FROZEN), loss=cl.CompositeLoss({"size": PredictionOnly("mse")}))
    logs = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    assert logs["size_loss"] == pytest.approx(np.mean(predictions(model, x) ** 2), rel=1e-5)
    model.fit(x, batch_size=4, verbose=0)


def test_y_that_is_missing_and_needed_is_an_error():
    model, x, _, _ = problem()
    loss = cl.CompositeLoss(
        {"size": OnOutput(PredictionOnly("mse"), "a"), "b": OnOutput("mse", "b")}
    )
    model.compile("sgd", loss=loss)
    with raises(ValueError, "`y`", "Received: y=None"):
        model.fit(x, verbose=0)


# The model and its inputs.


@keras.saving.register_keras_serializable("tests_outputs")
def slope_of_one(model, x, y, y_pred):
    """A line should have the slope 1."""
    return ops.square(cl.input_gradients(model, x) - 1.0)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_term_of_the_inputs_trains_and_evaluates():
    """A line's derivative is its kernel k: the term is (k - 1)^2, its gradient 2 (k - 1)."""
    model = line(features=2)
    kernel = model.get_weights()[0]
    x, y = arrays(features=2)
    name = model.layers[-1].name
    parts = {"data": OnOutput("mse", name), "slope": OnInputs(slope_of_one)}
    loss = cl.CompositeLoss(parts, {"data": 0.0})
    logs = evaluated(model, x, y, loss)
    expected = np.mean((kernel - 1) ** 2)
    assert list(logs) == ["loss", "data_loss", "slope_loss"]
    assert [logs["slope_loss"], logs["loss"]] == pytest.approx([expected] * 2, rel=1e-5)
    model.compile(sgd(0.1), loss=loss)
    history = model.fit(x, y, batch_size=10, verbose=0).history
    assert history["slope_loss"] == pytest.approx([expected], rel=1e-5)
    close(model.get_weights()[0], kernel - 0.1 * (kernel - 1), 1e-4)  # the mean of two entries


def test_it_sees_the_model_the_inputs_the_targets_and_the_outputs():
    seen = {}

    def look(model, x, y, y_pred):
        seen.update(model=model, x=tuple(x.shape)[1:], y=sorted(y), y_pred=sorted(y_pred))
        return ops.square(y["a"] - y_pred["a"])

    model, x, y, p = problem()
    loss = cl.CompositeLoss({"look": OnInputs(look), "b": OnOutput("mse", "b")})
    logs = evaluated(model, x, y, loss)
    assert seen == {"model": model, "x": (3,), "y": ["a", "b"], "y_pred": ["a", "b"]}
    assert logs["look_loss"] == pytest.approx(mse(y["a"], p["a"]), rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_sample_weights_weigh_a_term_of_the_inputs(reduction):
    def term(model, x, y, y_pred):
        return ops.square(y_pred)

    model = line()
    x, y = arrays()
    loss = cl.CompositeLoss({"term": OnInputs(term, reduction)})
    logs = evaluated(model, x, y, loss, WEIGHT, batch_size=10)
    total = np.sum(WEIGHT[:, None] * predictions(model, x) ** 2)
    by = {"sum": 1, "mean_with_sample_weight": WEIGHT.sum()}.get(reduction, 10)
    assert logs["term_loss"] == pytest.approx(total / by, rel=1e-5)


def test_weights_of_samples_weigh_a_term_of_the_inputs_of_a_model_of_several_outputs():
    """Keras gives the one array again for each output."""

    def term(model, x, y, y_pred):
        return ops.square(y_pred["a"])

    model, x, y, p = problem()
    loss = cl.CompositeLoss({"term": OnInputs(term), "b": OnOutput("mse", "b")})
    logs = evaluated(model, x, y, loss, WEIGHT)
    assert logs["term_loss"] == pytest.approx(weighted(WEIGHT, p["a"] ** 2), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_term_of_the_inputs_needs_no_target():
    model = line(features=2)
    x, _ = arrays(features=2)
    model.compile("sgd", loss=cl.CompositeLoss({"slope": OnInputs(slope_of_one)}))
    model.fit(x, batch_size=4, verbose=0)
    assert np.isfinite(model.evaluate(x, batch_size=4, verbose=0)[0])


def test_a_saved_model_keeps_its_routes(tmp_path):
    model, x, y, _ = problem()
    loss = cl.CompositeLoss(
        {
            "a": OnOutput(OnSlice("mse", np.s_[:, 0:1]), "a"),
            "kl": PredictionOnly(OnOutput(registered_sum, ("a", "b"), name="kl")),
            "swapped": OnOutput("mae", "a", target="b"),
            "inputs": OnInputs(steep, name="inputs"),
        },
        {"kl": 0.1},
    )
    logs = evaluated(model, x, y, loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert list(again) == list(logs)
    assert again == pytest.approx(logs, rel=1e-6)
    loaded.fit(x, y, verbose=0)


@keras.saving.register_keras_serializable("tests_outputs")
def registered_sum(y_true, y_pred):
    return ops.square(y_pred[0] + y_pred[1])


@keras.saving.register_keras_serializable("tests_outputs")
def steep(model, x, y, y_pred):
    return ops.square(cl.input_gradients(model, x, output="a"))


# Wrappers around what chooses its output.

AROUND = {
    "slice": (
        lambda loss: OnSlice(loss, np.s_[:, 0:2]),
        lambda f: lambda t, p: f(t[:, :2], p[:, :2]),
    ),
    "units": (lambda loss: Scaled(loss, 2.0), lambda f: lambda t, p: f(t / 2, p / 2)),
    "channels": (
        PerChannel,
        lambda f: lambda t, p: sum(f(t[..., c], p[..., c]) for c in range(t.shape[-1])),
    ),
    "missing": (Masked, lambda f: f),
    "scales": (
        lambda loss: MultiScale(loss, (2,)),
        lambda f: lambda t, p: f(block_means(t, 2), block_means(p, 2)),
    ),
    "two": (lambda loss: StopGradient(Scaled(loss, 2.0)), lambda f: lambda t, p: f(t / 2, p / 2)),
}


@pytest.mark.parametrize("kind", AROUND)
def test_the_output_is_chosen_first_whatever_the_order(kind):
    wrap, twin = AROUND[kind]
    t, p = normal(4, 6, 2, seed=1), normal(4, 6, 2, seed=2)
    y, outputs = {"a": t, "b": t[:, 0]}, {"a": p, "b": p[:, 0]}
    expected = twin(lambda t, p: np.mean((t.astype("float64") - p) ** 2))(t, p)
    for loss in (wrap(OnOutput("mse", "a")), OnOutput(wrap("mse"), "a")):
        assert loss.chooses_outputs
        close(value(loss, y, outputs), expected)
        close(cl.CompositeLoss({"x": loss}).components(y, outputs)["x"], expected)


def test_a_view_of_what_reads_the_model_is_an_error_that_says_what_to_do():
    model, x, y, _ = problem()
    joint = cl.CompositeLoss({"a": OnOutput("mse", "a"), "b": OnOutput("mse", "b")})
    for inner in (OnInputs(slope_of_one), joint, DeepSupervision("mse")):
        model = problem()[0]
        model.compile("sgd", loss=cl.CompositeLoss({"part": Scaled(inner, 2.0)}))
        with raises(ValueError, "'part'", "wrap what is inside", "Received: "):
            model.fit(x, y, verbose=0)
    with raises(ValueError, "OnOutput", "in one place", "Received: "):
        OnOutput(OnOutput("mse", "a"), "b")
    with raises(ValueError, "PerChannel", "OnOutput around PerChannel", "Received: "):
        PerChannel([OnOutput("mse", "a"), "mse"])


def test_a_term_of_the_inputs_may_be_watched():
    model = line(features=2)
    x, y = arrays(features=2)
    before = model.get_weights()[0]
    loss = cl.CompositeLoss({"data": "mse", "slope": StopGradient(OnInputs(slope_of_one))})
    model.compile(sgd(0.1), loss=loss)
    p = predictions(model, x)
    logs = model.fit(x, y, batch_size=10, verbose=0).history
    assert logs["slope_loss"] == pytest.approx([np.mean((before - 1) ** 2)], rel=1e-5)
    close(model.get_weights()[0], before - 0.1 * 2 * x.T @ (p - y) / 10, 1e-4)


@pytest.mark.parametrize("structure", [dict, list])
def test_a_term_that_reads_several_outputs_has_the_mean_of_their_weights(structure):
    model, x, y, p = problem(structure)

    def difference(y_true, y_pred):
        return ops.square(y_pred[0] - y_pred[1])

    loss = cl.CompositeLoss({"pair": OnOutput(difference, ("a", "b"))})
    errors = (p["a"] - p["b"]) ** 2
    other = WEIGHT[::-1].copy()
    several = {"a": WEIGHT, "b": other} if structure is dict else [WEIGHT, other]
    target = y if structure is dict else [*y.values()]
    for given, expected in ((WEIGHT, WEIGHT), (several, (WEIGHT + other) / 2)):
        logs = evaluated(model, x, target, loss, given)
        assert logs["pair_loss"] == pytest.approx(weighted(expected, errors), rel=1e-5)


def test_weights_that_have_no_mean_are_an_error():
    _, _, y, p = problem()
    loss = cl.CompositeLoss({"pair": OnOutput(kl, ("a", "b"))})
    weights = {"a": np.ones(10, "float32"), "b": np.ones((10, 1), "float32")}
    with raises(ValueError, "'pair'", "have no mean", "Received: sample weights of shapes (10,)"):
        loss(y, {name: np.float32(part) for name, part in p.items()}, weights)


def test_weights_of_a_target_that_no_output_has_are_those_of_all():
    model, x, y, p = problem()
    loss = cl.CompositeLoss({"size": PredictionOnly(OnOutput("mse", "a"))})
    logs = evaluated(model, x, {"t": y["a"]}, loss, {"t": WEIGHT})
    assert logs["size_loss"] == pytest.approx(weighted(WEIGHT, p["a"] ** 2), rel=1e-5)
    p = {name: np.float32(part) for name, part in p.items()}
    found = value(loss, y, p, {"b": WEIGHT})  # "a" has none
    close(found, np.mean(p["a"] ** 2))


def test_a_function_of_predictions_alone_needs_no_wrapper():
    y_pred = normal(4, 3, seed=1)
    loss = cl.CompositeLoss({"size": size})
    assert not loss._node.needs_target
    close(value(loss, None, y_pred), np.mean(y_pred**2))


def test_a_term_of_the_model_may_be_one_number():
    def size_of_kernel(model, x, y, y_pred):
        return ops.sum(ops.square(model.trainable_variables[0].value))

    model = line()
    x, y = arrays()
    loss = cl.CompositeLoss({"data": "mse", "size": OnInputs(size_of_kernel)}, [1.0, 0.1])
    logs = evaluated(model, x, y, loss)
    expected = np.sum(model.get_weights()[0] ** 2)
    assert logs["size_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["data_loss"] + 0.1 * expected, rel=1e-5)
    with pytest.warns(UserWarning, match="'size' cannot honour the sample_weight"):
        assert evaluated(model, x, y, loss, WEIGHT)["size_loss"] == pytest.approx(
            expected, rel=1e-5
        )


# Derivatives by the inputs.

CURVES = {  # the function, its first, second and third derivatives by x0 and by x1
    "cubic": (
        lambda x, y: x**3 * y**2,
        [
            lambda x, y: (3 * x**2 * y**2, 2 * x**3 * y),
            lambda x, y: (6 * x * y**2, 2 * x**3),
            lambda x, y: (6 * y**2, 0 * x),
        ],
    ),
    "waves": (
        lambda x, y: ops.sin(2 * x) + ops.exp(y) * x,
        [
            lambda x, y: (2 * np.cos(2 * x) + np.exp(y), np.exp(y) * x),
            lambda x, y: (-4 * np.sin(2 * x), np.exp(y) * x),
            lambda x, y: (-8 * np.cos(2 * x), np.exp(y) * x),
        ],
    ),
    "a constant": (lambda x, y: 0 * x + 3.0, [lambda x, y: (0 * x, 0 * y)] * 3),
    "a line": (
        lambda x, y: 2 * x - y,
        [lambda x, y: (0 * x + 2, 0 * y - 1), *[lambda x, y: (0 * x, 0 * y)] * 2],
    ),
}


def surface(*kinds, names=None):
    inputs = keras.Input((2,))
    curves = [CURVES[kind][0](inputs[:, 0:1], inputs[:, 1:2]) for kind in kinds]
    if names:
        return keras.Model(inputs, dict(zip(names, curves, strict=True)))
    return keras.Model(inputs, curves[0] if len(curves) == 1 else ops.concatenate(curves, axis=1))


POINTS = normal(4, 2, seed=3)


def derivative(kind, order):
    columns = CURVES[kind][1][order - 1](*POINTS.astype("float64").T)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", CURVES)
def test_derivatives_are_those_of_calculus(kind, order):
    found = ops.convert_to_numpy(cl.input_gradients(surface(kind), POINTS, order))
    assert found.shape == (4, 2)
    close(found, derivative(kind, order), 1e-4, 1e-4)


@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_of_several_outputs(order):
    found = ops.convert_to_numpy(cl.input_gradients(surface("cubic", "waves"), POINTS, order))
    assert found.shape == (4, 2, 2)  # samples, outputs, inputs
    for k, kind in enumerate(["cubic", "waves"]):
        close(found[:, k], derivative(kind, order), 1e-4, 1e-4)
    model = surface("cubic", "waves", names=["u", "v"])
    for name, kind in (("u", "cubic"), ("v", "waves")):
        found = ops.convert_to_numpy(cl.input_gradients(model, POINTS, order, output=name))
        close(found, derivative(kind, order), 1e-4, 1e-4)


@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_in_training_and_in_evaluate(order):
    """y = k x^2: the derivatives are 2 k x and 2 k, and the step of SGD that of the formula."""

    def term(model, x, y, y_pred):
        return ops.square(cl.input_gradients(model, x, order) - 1.0)

    inputs = keras.Input((1,))
    dense = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.7)
    )
    model = cl.Model(inputs, dense(ops.square(inputs)))
    x = normal(6, 1, seed=4)
    factor = 2 * x.astype("float64") if order == 1 else np.full((6, 1), 2.0)
    model.compile(sgd(0.1), loss=cl.CompositeLoss({"term": OnInputs(term)}))
    expected = np.mean((0.7 * factor - 1) ** 2)
    logs = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    assert logs["term_loss"] == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, batch_size=6, verbose=0).history
    assert history["term_loss"] == pytest.approx([expected], rel=1e-5)
    step = 0.1 * np.mean(2 * (0.7 * factor - 1) * factor)
    assert model.get_weights()[0][0, 0] == pytest.approx(0.7 - step, rel=1e-4)


def test_derivatives_of_samples_do_not_mix():
    """Each sample's derivative is that of it alone."""
    model = surface("waves")
    whole = ops.convert_to_numpy(cl.input_gradients(model, POINTS, 2))
    for n in range(4):
        close(
            ops.convert_to_numpy(cl.input_gradients(model, POINTS[n : n + 1], 2))[0], whole[n], 1e-4
        )


@pytest.mark.backend_free
@pytest.mark.parametrize("order", [0, -1, 1.0, True, "1", None])
def test_an_order_is_an_integer(order):
    with raises(ValueError, "`input_gradients`", "order", f"Received: order={order!r}"):
        cl.input_gradients(surface("cubic"), POINTS, order)


def test_whole_numbers_are_points_too():
    points = np.array([[1, 2], [3, -1]])
    found = cl.input_gradients(surface("cubic"), points)
    close(ops.convert_to_numpy(found), 1.0 * np.array([[12, 4], [27, -54]]), 1e-5)


def test_an_output_without_its_last_axis():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, ops.sum(inputs**3, axis=-1))
    found = ops.convert_to_numpy(cl.input_gradients(model, POINTS))
    close(found, 3 * POINTS.astype("float64") ** 2, 1e-5)
    model = keras.Model(inputs, keras.layers.Reshape((2, 1))(inputs**2))
    with raises(ValueError, "(batch, outputs)", "Received: an output of shape (4, 2, 1)"):
        cl.input_gradients(model, POINTS)


@pytest.mark.parametrize("structure", [dict, list])
@pytest.mark.parametrize("order", [1, 2])
def test_a_model_of_several_inputs_has_derivatives_by_each(structure, order):
    names = ["x", "t"]
    inputs = {name: keras.Input((1,), name=name) for name in names}
    wave = CURVES["waves"][0](inputs["x"], inputs["t"])
    given = inputs if structure is dict else [*inputs.values()]
    model = keras.Model(given, wave)
    columns = [POINTS[:, :1], POINTS[:, 1:]]
    x = dict(zip(names, columns, strict=True)) if structure is dict else columns
    found = cl.input_gradients(model, x, order)
    assert type(found) is structure
    parts = [found[key] for key in (names if structure is dict else (0, 1))]
    close(
        np.concatenate([ops.convert_to_numpy(part) for part in parts], axis=1),
        derivative("waves", order),
        1e-4,
        1e-4,
    )


def test_a_function_has_derivatives_too():
    found = cl.input_gradients(lambda x: ops.sin(x), POINTS[:, :1])
    close(ops.convert_to_numpy(found), np.cos(POINTS[:, :1]), 1e-5)


def test_the_only_output_has_a_name():
    inputs = keras.Input((2,))
    named = keras.Model(inputs, {"u": CURVES["cubic"][0](inputs[:, 0:1], inputs[:, 1:2])})
    layer = keras.Model(inputs, keras.layers.Rescaling(1.0, name="u")(named(inputs)["u"]))
    for model in (named, layer):
        found = ops.convert_to_numpy(cl.input_gradients(model, POINTS, np.int64(1), output="u"))
        close(found, derivative("cubic", 1), 1e-4)


def test_inputs_are_rows():
    with raises(
        ValueError, "`input_gradients`", "(batch, inputs)", "Received: x of shape (4, 2, 1)"
    ):
        cl.input_gradients(surface("cubic"), POINTS[..., None])


def test_an_output_that_the_model_has_not():
    model = surface("cubic", "waves", names=["u", "v"])
    for output in ("w", None):
        with raises(ValueError, "`output`", "'u'", "'v'", f"Received: {output!r}"):
            cl.input_gradients(model, POINTS, output=output)


# Errors.


def bad_terms():
    return {
        "nothing": (lambda model, x, y, y_pred: None, ["must return one tensor", "None"]),
        "a list": (lambda model, x, y, y_pred: [y_pred, y_pred], ["must return one tensor"]),
    }


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
@pytest.mark.parametrize("kind", bad_terms())
def test_what_a_term_of_the_inputs_may_not_return(kind):
    term, said = bad_terms()[kind]
    model = line()
    x, y = arrays()
    model.compile("sgd", loss=cl.CompositeLoss({"data": "mse", "part": OnInputs(term, name="t")}))
    with raises(ValueError, "'part'", "Received: ", *said):
        model.fit(x, y, verbose=0)


def test_an_error_in_a_term_of_the_inputs_names_it():
    def broken(model, x, y, y_pred):
        raise KeyError("the table of the user")

    model = line()
    x, y = arrays()
    model.compile("sgd", loss=cl.CompositeLoss({"data": "mse", "part": OnInputs(broken)}))
    with raises(KeyError, "the table of the user", "'part'"):
        model.fit(x, y, verbose=0)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "bad",
    ["mse", None, lambda x, y, y_pred: y_pred, keras.losses.MeanSquaredError()],
    ids=["a string", "None", "of three", "a loss"],
)
def test_a_term_of_the_inputs_is_a_function_of_four(bad):
    with raises(ValueError, "f(model, x, y, y_pred)", "Received: "):
        OnInputs(bad)


def test_an_unknown_output_lists_those_that_exist():
    model, x, y, _ = problem()
    loss = cl.CompositeLoss({"a": OnOutput("mse", "a"), "far": OnOutput("mse", "depth")})
    for kind in ("fit", "evaluate"):
        model = problem()[0]
        model.compile("sgd", loss=loss)
        with raises(ValueError, "'far'", "'a' and 'b'", "Received: 'depth'"):
            getattr(model, kind)(x, y, verbose=0)
    with raises(ValueError, "'far'", "'a' and 'b'", "Received: 'depth'"):
        loss(y, {name: np.float32(part) for name, part in y.items()})
    several = cl.CompositeLoss({"far": OnOutput(kl, ("a", "depth"))})
    with raises(ValueError, "'far'", "'a' and 'b'", "Received: 'depth'"):
        several(y, {name: np.float32(part) for name, part in y.items()})


@pytest.mark.parametrize("kind", ["functional", "sequential", "a list of one", "a dict of one"])
def test_a_list_or_dict_of_one_target_is_the_target(kind):
    """Stacked as an array of one more axis it would be broadcast, silently."""
    if kind == "a list of one":
        inputs = keras.Input((3,))
        model = cl.Model(inputs, [keras.layers.Dense(1, name="price")(inputs)])
        name = "price"
    else:
        model, name = single(kind)
    x, y = arrays()
    p = predictions(model, x)
    p = next(iter(keras.tree.flatten(p)))
    for data in ("mse", OnOutput("mse", name)):
        loss = cl.CompositeLoss({"data": data, "size": OnOutput(PredictionOnly("mae"), name)})
        targets = [{"cost": y}] if kind == "a dict of one" else [y, [y], {name: y}, {"d": y}]
        for target in targets:
            logs = evaluated(model, x, target, loss, WEIGHT, batch_size=10)
            assert logs["data_loss"] == pytest.approx(weighted(WEIGHT, (y - p) ** 2), rel=1e-5)
            assert logs["size_loss"] == pytest.approx(weighted(WEIGHT, abs(p)), rel=1e-5)


def test_a_target_that_is_not_there_is_an_error_that_lists_those_that_are():
    def fails(y, loss, *parts):
        model = problem(list if isinstance(y, list) else dict)[0]
        model.compile("sgd", loss=cl.CompositeLoss({"far": loss}))
        with raises(ValueError, "'far'", "one target", "OnOutput", *parts):
            model.evaluate(x, y, verbose=0)

    _, x, y, _ = problem()
    # JAX sorts the keys.
    fails({"a": y["a"], "B": y["b"]}, OnOutput("mse", "b"), "Received: the keys '", "'a'", "'B'")
    fails({"B": y["b"], "c": y["a"]}, OnOutput(Scaled("mse", 2.0), "b"), "one")
    fails([y["a"]], OnOutput("mse", "a"), "Received: 1 arrays")
    fails([y["a"]], OnOutput(keras.losses.Huber(), "b"), "Received: 1 arrays")
    loss = cl.CompositeLoss({"pair": OnOutput("mse", ("a", "b"))})
    with raises(ValueError, "'pair'", "one prediction", "Received: 2 arrays"):
        loss(y["a"], {name: np.float32(part) for name, part in y.items()})


@pytest.mark.backend_free
@pytest.mark.parametrize("target", [1, [], ("a", 1)], ids=repr)
def test_a_target_is_a_key(target):
    with raises(ValueError, "`target` of OnOutput", f"Received: {target!r}"):
        OnOutput("mse", "a", target=target)


def test_loss_weights_of_a_joint_composite_are_one_number():
    model, x, y, _p = problem()
    model.compile(sgd(FROZEN), loss=heads(), loss_weights=0.5)
    logs = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(
        0.5 * (logs["first_loss"] + 0.5 * logs["second_loss"]), rel=1e-5
    )
    with raises(ValueError, "`loss_weights`", "sees all outputs", "Received: {'a': 1.0}"):
        model.compile("sgd", loss=heads(), loss_weights={"a": 1.0})


def test_an_unknown_output_of_a_model_of_one():
    model, name = single("functional")
    x, y = arrays()
    model.compile("sgd", loss=cl.CompositeLoss({"far": OnOutput("mse", "depth")}))
    with raises(ValueError, "'far'", f"'{name}'", "Received: 'depth'"):
        model.fit(x, y, verbose=0)


def test_an_unknown_target_lists_those_that_exist():
    model, x, y, _ = problem()
    model.compile("sgd", loss=cl.CompositeLoss({"far": OnOutput("mse", "a", target="depth")}))
    with raises(ValueError, "'far'", "'a' and 'b'", "Received: target='depth'"):
        model.fit(x, y, verbose=0)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_target_for_a_y_without_keys_is_an_error():
    """Silently the whole of y would be another target than the one that was asked for."""
    model, x, y, _ = problem()
    model.compile("sgd", loss=cl.CompositeLoss({"far": OnOutput("mse", "a", target="depth")}))
    with raises(ValueError, "'far'", "target", "Received: "):
        model.fit(x, y["a"], verbose=0)


@pytest.mark.parametrize(
    "wrap", [lambda: "mse", lambda: StopGradient("mse"), lambda: OnSlice("mse", np.s_[:, 0:1])]
)
def test_a_component_of_a_joint_composite_that_does_not_say_what_it_reads_is_an_error(wrap):
    model, x, y, _ = problem()
    model.compile("sgd", loss=cl.CompositeLoss({"a": OnOutput("mse", "a"), "lost": wrap()}))
    with raises(ValueError, "'lost'", "OnOutput", "'a' and 'b'", "Received: "):
        model.fit(x, y, verbose=0)
    with raises(ValueError, "'lost'", "OnOutput", "Received: "):
        model.loss(y, {name: np.float32(part) for name, part in y.items()})


def test_beside_a_term_of_the_inputs_a_component_sees_the_only_output():
    model = line(features=2)
    x, y = arrays(features=2)
    loss = cl.CompositeLoss({"data": "mse", "slope": OnInputs(slope_of_one)}, [1.0, 0.5])
    logs = evaluated(model, x, y, loss, WEIGHT)
    data = weighted(WEIGHT, (y - predictions(model, x)) ** 2)
    slope = np.mean((model.get_weights()[0] - 1) ** 2) * WEIGHT.mean()
    assert logs["data_loss"] == pytest.approx(data, rel=1e-5)
    expected = [  # partial batches: a mean of weighted means, each with the size of its batch
        np.sum(WEIGHT[s]) * slope / WEIGHT.mean() for s in np.split(np.arange(10), [4, 8])
    ]
    assert logs["slope_loss"] == pytest.approx(sum(expected) / 10, rel=1e-5)
    assert logs["loss"] == pytest.approx(data + 0.5 * logs["slope_loss"], rel=1e-5)


@pytest.mark.parametrize("structure", [dict, list])
def test_a_plain_model_of_several_outputs_is_told_what_to_use(structure):
    model, x, y, _ = problem(structure, keras.Model)
    model.compile("sgd", loss=heads())
    with raises(ValueError, "'first'", "cl.Model", "cl.track", "Received: "):
        model.fit(x, y if structure is dict else [*y.values()], verbose=0)


def test_a_list_of_outputs_outside_a_model_is_told_what_to_use():
    with raises(ValueError, "'first'", "a dict of outputs", "Received: y_pred of 2 arrays"):
        heads()([np.ones((2, 1))] * 2, [np.ones((2, 1), "float32")] * 2)


def test_a_plain_model_of_one_output_is_told_what_to_use():
    x, y = arrays()
    for term in (OnOutput("mse", "dense"), OnInputs(slope_of_one)):
        model = line(keras.Sequential)
        model.compile("sgd", loss=cl.CompositeLoss({"part": term}))
        with raises(ValueError, "'part'", "cl.Model", "cl.track", "Received: "):
            model.fit(x, y, verbose=0)


def test_for_one_of_several_outputs_a_routed_loss_is_an_error():
    model, _, _, _ = problem()
    with raises(ValueError, "'a'", "compiled alone", "Received: "):
        model.compile("sgd", loss={"a": heads(), "b": "mse"})


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [None, 3, (), [], ("a", 1), {"a": 1}], ids=repr)
def test_an_output_is_a_name_or_names(bad):
    with raises(ValueError, "`output` of OnOutput", "tuple of names", f"Received: {bad!r}"):
        OnOutput("mse", bad)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["mse", None, 3])
def test_a_term_of_the_inputs_is_a_function(bad):
    with raises(ValueError, "OnInputs", "f(model, x, y, y_pred)", f"Received: {bad!r}"):
        OnInputs(bad)


def test_a_lambda_of_the_inputs_cannot_be_saved():
    loss = cl.CompositeLoss({"part": OnInputs(lambda model, x, y, y_pred: y_pred)})
    with raises(ValueError, "lambda", "register"):
        loss.get_config()


def test_values_of_other_rows_are_a_mean_over_these():
    def term(model, x, y, y_pred):
        return ops.convert_to_tensor([1.0, 2.0, 6.0])

    model = line()
    x, y = arrays()
    model.compile("sgd", loss=cl.CompositeLoss({"part": OnInputs(term)}))
    logs = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
    assert logs["part_loss"] == pytest.approx(3.0)
