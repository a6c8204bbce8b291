"""A component for which nothing in the batch counts: absent for every rule, 0 in total and logs."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import combined_losses as cl
from tests.contracts.registry import CASES
from tests.weightings.rules import PLAIN, close, run

W = cl.wrappers


# What is absent: shown by a rule that gives 1 to what is there.


class _Presence(cl.weightings.Weighting):
    def rule(self, values, state, active):
        return active


def weights_of(losses, y_true, y_pred, sample_weight=None):
    """The weights of the components in one step of training on predictions as they are given."""
    loss = cl.CompositeLoss(losses, weighting=_Presence())
    outputs = y_pred if isinstance(y_pred, dict) else {"output": y_pred}
    inputs = {name: keras.Input(np.shape(p)[1:], name=name) for name, p in outputs.items()}
    heads = {name: _Shift(name=f"{name}_")(tensor) for name, tensor in inputs.items()}
    model = cl.Model(inputs, heads if isinstance(y_pred, dict) else heads["output"])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    logs = model.train_on_batch(outputs, y_true, sample_weight=sample_weight, return_dict=True)
    return {name: float(logs[f"{name}_weight"]) for name in loss.names}


class _Shift(layers.Layer):
    def build(self, shape):
        self.shift = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x + self.shift


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.8, size=shape).astype("float32")


Y, P = numbers(4, 3), numbers(4, 3, seed=1)
NONE = np.full((4, 3), np.nan, "float32")
ONE_LABEL = np.where(np.arange(12).reshape(4, 3) == 5, Y, np.nan).astype("float32")


def own_mean(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


WRAPPED = {
    "function": lambda: lambda t, p: ops.mean(ops.square(t - p), axis=-1),
    "Keras's": lambda: keras.losses.Huber(),
    "likelihood-like": lambda: cl.losses.Expectile(0.7),
    "composite": lambda: cl.CompositeLoss(["mse", "mae"]),
    "channels": lambda: W.PerChannel("mse"),
    "slice": lambda: W.OnSlice("mse", np.s_[:, :2]),
    "stopped": lambda: W.StopGradient("mse"),
    "activated": lambda: W.Activated("mse", "tanh"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_without_any_label_a_component_is_absent(kind):
    make = WRAPPED[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what only counts whole rows
        losses = {"part": W.Masked(make()), "other": _nothing_missing}
        assert weights_of(losses, NONE, P) == {"part": 0.0, "other": 1.0}
        assert weights_of(losses, Y, P) == {"part": 1.0, "other": 1.0}


INSIDE = {
    "channels": lambda: W.PerChannel(W.Masked("mse")),
    "channels, each its own": lambda: W.PerChannel([W.Masked(each) for each in ("mse", "mae")]),
    "channels of composites": lambda: W.PerChannel(cl.CompositeLoss([W.Masked("mse")])),
    "channels of rows": lambda: W.PerChannel(W.Masked("cosine_similarity")),
    "elements": lambda: W.PerElement(W.Masked("mse")),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_labels_that_miss_for_a_loss_of_single_channels(kind):
    losses = {"part": INSIDE[kind](), "other": _nothing_missing}
    for y, part in [(NONE, 0.0), (ONE_LABEL, 1.0)]:
        assert weights_of(losses, y[:, 1:], P[:, 1:]) == {"part": part, "other": 1.0}


def _nothing_missing(y_true, y_pred):
    return ops.mean(ops.abs(y_pred), axis=-1)


def test_one_label_is_enough():
    losses = {"part": W.Masked("mse"), "whole_rows": W.Masked("cosine_similarity")}
    found = weights_of(losses, ONE_LABEL, P)
    assert found == {"part": 1.0, "whole_rows": 0.0}


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_without_any_weight_all_are_absent(shape):
    losses = ["mse", own_mean, "mae"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a loss that reduces by itself
        if len(shape) == 2 and shape[1] == 3:
            losses = [W.Masked("mse"), W.Masked("mae")]
        found = weights_of(losses, Y, P, np.zeros(shape, "float32"))
        assert set(found.values()) == {0.0}
        one = np.zeros(shape, "float32")
        one[2] = 1.0
        assert set(weights_of(losses, Y, P, one).values()) == {1.0}


def test_weights_and_missing_labels_count_together():
    """The only labels that are there belong to samples of weight 0."""
    losses = {"part": W.Masked("mse"), "other": "mae"}
    weights = np.array([1, 0, 1, 1], "float32")
    found = weights_of({"part": W.Masked("mse")}, ONE_LABEL, P, weights)
    assert found == {"part": 0.0}
    found = weights_of(losses, np.nan_to_num(ONE_LABEL), P, weights)
    assert found == {"part": 1.0, "other": 1.0}


def test_ignored_classes_are_absent():
    ids = np.full((4,), -1)
    losses = {
        "ignoring": keras.losses.SparseCategoricalCrossentropy(ignore_class=-1),
        "other": _nothing_missing,
    }
    assert weights_of(losses, ids, P) == {"ignoring": 0.0, "other": 1.0}
    ids[1] = 2
    assert weights_of(losses, ids, P) == {"ignoring": 1.0, "other": 1.0}


def test_a_mask_of_keras_makes_absent():
    class Masked(layers.Layer):
        supports_masking = True

        def build(self, shape):
            self.shift = self.add_weight(shape=(), initializer="zeros")

        def compute_mask(self, x, mask=None):
            return ops.any(ops.not_equal(x, 0), axis=-1)

        def call(self, x):
            return x + self.shift

    loss = cl.CompositeLoss(["mse", "mae"], weighting=_Presence())
    model = cl.Sequential([keras.Input((5, 2)), Masked()])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    x, y = np.zeros((2, 5, 2), "float32"), numbers(2, 5, 2)
    assert model.train_on_batch(x, y, return_dict=True)["mse_weight"] == 0
    x[1, 3] = 1.0
    model.reset_metrics()
    assert model.train_on_batch(x, y, return_dict=True)["mse_weight"] == 1


def test_levels_scales_and_quantiles_are_absent_as_wholes():
    image, half = numbers(2, 8, 8, 1), numbers(2, 4, 4, 1)
    outputs = {"fine": image, "coarse": half}
    nothing = np.full_like(image, np.nan)
    for y, there in ((nothing, 0.0), (image, 1.0)):
        deep = W.DeepSupervision(W.Masked("mse"), outputs=["fine", "coarse"], target="fine")
        assert weights_of({"deep": deep}, {"fine": y}, outputs) == {"deep": there}
    for y, there in ((NONE, 0.0), (Y, 1.0)):
        quantiles = W.Masked(cl.losses.Pinball([0.1, 0.9]))
        assert weights_of({"q": quantiles}, y[:, :1], P[:, :2]) == {"q": there}
        normalized = W.Normalized(W.Masked("mse"), by=2.0)
        assert weights_of({"n": normalized}, y, P) == {"n": there}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_every_loss_is_absent_without_weights(case):
    """Of its samples, whatever it does with them; and present with some."""
    from combined_losses._core.batch import Batch
    from combined_losses._core.compound import as_node

    node, size = as_node("part", case.make()), len(case.y_true)
    for weight, there in ((np.zeros(size, "float32"), False), (np.ones(size, "float32"), True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = Batch(case.y_true, case.y_pred, weight).replaced(asks_presence=True)
            found = node.evaluate(batch)
        assert bool(found.present) is there
        if not there and not case.couples_batch:
            assert float(found.total) == 0.0


def test_nobody_pays_who_does_not_ask():
    from combined_losses._core.batch import Batch

    loss = cl.CompositeLoss(["mse"])
    assert loss._node.evaluate(Batch(Y, P, np.zeros(4, "float32"))).present is None


# What a rule does with it.


def steps_of(rule, holes):
    """The logs of a model that is trained with labels missing, and the values that it had."""
    k = holes.shape[1]
    losses = {f"part{i}": W.Masked(W.OnSlice("mse", np.s_[:, i : i + 1])) for i in range(k)}
    loss = cl.CompositeLoss(losses, weighting=rule)
    model = cl.Sequential([keras.Input((2,)), layers.Dense(k, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    x, rows = numbers(6, 2), []
    y = numbers(6, k, seed=2) + np.arange(k)
    for hole in holes:
        model.reset_metrics()
        target = np.where(hole, np.nan, y).astype("float32")
        rows.append(model.train_on_batch(x, target, return_dict=True))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def _of_columns(weights):
    """A composite in a composite with a rule: of the columns a and b inside, of b beside it."""
    column = {name: W.Masked(W.OnSlice("mse", np.s_[:, i : i + 1])) for i, name in enumerate("ab")}
    other = W.Masked(W.OnSlice("mae", np.s_[:, 1:]))
    inside = cl.CompositeLoss(column, weights)
    loss = cl.CompositeLoss({"inside": inside, "b": other}, weighting=_Presence())
    model = cl.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)

    def presence(*columns):
        y = np.where(np.array([name in columns for name in "ab"]), Y[:, :2], np.nan)
        model.reset_metrics()
        logs = model.train_on_batch(P[:, :2], y.astype("float32"), return_dict=True)
        return logs["inside_weight"], logs["b_weight"]

    return loss, presence


def test_inside_of_it_only_what_has_a_weight_in_this_step_counts():
    loss, presence = _of_columns({"a": 1.0})
    assert presence("a") == (1, 0)
    for weight, inside in [(0.0, 0), (0.5, 1), (0.0, 0), (2.0, 1)]:
        loss.set_weight("inside/a", weight)
        assert presence("a") == (inside, 0)
    assert presence("b") == (1, 1)


def test_a_schedule_that_begins_at_0_counts_from_then_on():
    _, presence = _of_columns({"a": cl.weightings.LinearRamp(2)})
    assert [presence("a") for _ in range(3)] == [(0, 0), (1, 0), (1, 0)]


def test_what_is_switched_off_as_a_whole_is_absent():
    assert _of_columns([0.0, 0.0])[1]("a", "b") == (0, 1)


@pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)
def test_the_rule_is_told_nan_and_the_total_is_that_of_the_others(cls):
    holes = np.random.default_rng(3).random((12, 3)) < 0.4
    holes[4] = True  # nothing at all
    with warnings.catch_warnings():
        # A value of 0 would be one that some rules are not made for.
        warnings.simplefilter("error", UserWarning)
        logs = steps_of(PLAIN[cls](), holes)
    values = np.stack([logs[f"part{i}_loss"] for i in range(3)], axis=1)
    weights = np.stack([logs[f"part{i}_weight"] for i in range(3)], axis=1)
    assert np.all(values[holes] == 0) and np.all(weights[holes] == 0)
    twin = PLAIN[cls]()
    twin.build(3)
    expected = [
        ops.convert_to_numpy(twin.weigh(values=np.where(hole, np.nan, row)))
        for row, hole in zip(values, holes, strict=True)
    ]
    if not twin.learned:
        close(weights, expected, rtol=1e-4, atol=1e-6)
    total = (weights * values).sum(axis=1) + logs.get("weighting_loss", 0.0)
    close(logs["loss"], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)
def test_a_pause_does_not_throw_the_weights_around(cls):
    """The second of three is away for fifty steps, in which it has grown tenfold."""
    rng = np.random.default_rng(0)
    values = (
        np.exp(rng.normal(0, 0.05, (130, 3))) * [1.0, 0.5, 2.0] * 0.98 ** np.arange(130)[:, None]
    )
    values[50:100, 1] = np.nan
    values[100:, 1] *= 10.0
    rule = PLAIN[cls]()
    rule.build(3)
    weights = np.stack([ops.convert_to_numpy(rule.weigh(values=row)) for row in values])
    before, after = weights[40:50].mean(axis=0), weights[100:110]
    products, there = after * values[100:110], before * values[40:50].mean(axis=0)
    if cls in (cl.weightings.RandomWeighting, cl.weightings.Worst):
        return  # they have no history: a weight is that of the moment
    # Neither a weight nor a part of the total becomes many times what it was.
    grown = np.minimum(after[:, 1] / before[1], products[:, 1] / there[1])
    assert np.all(grown < 3.0), grown
    others = after[:, [0, 2]] / before[[0, 2]]
    growth = np.maximum(others, 1 / others)
    falling = (0.98**55) ** -1  # MagnitudeBalance and others are 1 / value, which has fallen
    assert np.all(growth < 3.0 * falling)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)
def test_of_any_unit_sign_and_absence_weights_are_numbers(cls, scale):
    """Of values on both sides of 0, with holes and pauses, each component alone at times."""
    rng = np.random.default_rng(1)
    values = (rng.normal(0.3, 1.0, (40, 3)) * scale).astype("float32")
    values[rng.random((40, 3)) < 0.3] = np.nan
    values[10:20, 0] = values[15:30, 2] = values[33] = np.nan
    values[2:4] = 0.0
    weights = run(PLAIN[cls](), values)
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert np.all(weights[np.isnan(values)] == 0)
    if cls not in (cl.weightings.Worst, cl.weightings.SoftAdapt):  # which may give one all
        assert np.all(weights[np.isfinite(values)] > 0)


def test_a_rule_of_ones_own_is_told_how_long_a_component_was_away():
    class Away(cl.weightings.Weighting):
        needs = frozenset({"values", "history"})

        def rule(self, values, state, active):
            return state["missed"] + 1.0

    rule = Away()
    rule.build(2)
    away = [rule.weigh(values=[1.0, v]) for v in (1.0, np.nan, np.nan, 1.0, 1.0)]
    found = np.stack([ops.convert_to_numpy(each) for each in away])
    np.testing.assert_array_equal(found[:, 1], [1, 0, 0, 3, 1])
    np.testing.assert_array_equal(found[:, 0], 1)


def test_validation_keeps_the_weight_of_a_component_that_the_last_step_had_not():
    loss = cl.CompositeLoss(
        {"a": W.Masked(W.OnSlice("mse", np.s_[:, :1])), "b": W.OnSlice("mse", np.s_[:, 1:])},
        weighting=cl.weightings.MagnitudeBalance(),
    )
    model = cl.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    x, y = numbers(4, 2), numbers(4, 2, seed=5)
    first = model.train_on_batch(x, y, return_dict=True)["a_weight"]
    y_without = y.copy()
    y_without[:, 0] = np.nan
    model.reset_metrics()
    assert model.train_on_batch(x, y_without, return_dict=True)["a_weight"] == 0
    validated = model.evaluate(x, y, return_dict=True, verbose=0)
    np.testing.assert_allclose(validated["a_weight"], first, rtol=1e-6)
