"""`Masked`, `ClassWeighted` and `OneHot`: labels that are missing, rare or void."""

import json
import math

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import (
    Activated,
    ClassWeighted,
    Masked,
    MultiScale,
    OneHot,
    OnSlice,
    PerChannel,
    PerElement,
    PredictionOnly,
    Scaled,
    StopGradient,
)
from tests.composite.children import WEIGHTS, BatchScalar, value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.training.twin import reduce, spread
from tests.wrappers.numpy_twins import (
    SEEN,
    STEP_WEIGHTS,
    STEPS,
    block_means,
    categorical_crossentropy,
    check,
    close,
    cosine_similarity,
    mae,
    mse,
    normal,
    uniform,
)

every_batch = pytest.mark.parametrize("weight, mask", SEEN.values(), ids=SEEN)
REDUCTIONS = ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
THERE = np.random.default_rng(5).random((4, 5, 3)) < 0.6
Y_TRUE, Y_PRED = normal(4, 5, 3, seed=1), normal(4, 5, 3, seed=2)


def holes(y, there=THERE, missing=np.nan):
    return np.where(there, y, missing).astype("float32")


def both(valid, mask):
    return valid if mask is None else valid & (spread(mask, valid.shape) > 0)


def total_of_elements(function, weight, mask, there, reduction="sum_over_batch_size"):
    """The mean of `function(t, p)`, element by element, over those that are there."""

    def total(t, p):
        t = np.where(there, t, 0.0)  # whatever stands there
        return reduce(function(t, p), weight, both(there, mask), reduction)

    return total


def scaled(function, factor):
    return lambda t, p: factor * function(t, p)


# Missing numbers.


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_batch
@pytest.mark.parametrize("missing", [math.nan, -999.0, 7, 0])
def test_the_mean_is_over_the_elements_that_are_there(missing, weight, mask, reduction):
    loss = Masked(keras.losses.MeanSquaredError(reduction=reduction), missing)

    def square(t, p):
        return (t - p) ** 2

    # The sum of the child is one of means over rows of 3.
    expected = total_of_elements(square, weight, mask, THERE, reduction)
    if reduction == "sum":
        expected = scaled(expected, 1 / 3)
    check(loss, expected, holes(Y_TRUE, missing=missing), Y_PRED, weight, mask)


LOSSES = {
    "mae": lambda t, p: np.abs(t - p),
    "huber": lambda t, p: np.where(np.abs(t - p) < 1, (t - p) ** 2 / 2, np.abs(t - p) - 0.5),
    "log_cosh": lambda t, p: np.log(np.cosh(t - p)),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_any_loss_of_elements_may_miss_some(kind):
    check(
        Masked(kind),
        total_of_elements(LOSSES[kind], WEIGHTS, STEPS, THERE),
        holes(Y_TRUE),
        Y_PRED,
        WEIGHTS,
        STEPS,
    )


def test_losses_of_logarithms_stay_finite():
    """What stands in for a missing target is in the domain of the loss."""
    y_true, y_pred = uniform(4, 5, 3, seed=1), uniform(4, 5, 3, seed=2)
    entropy = {
        "binary_crossentropy": lambda t, p: -t * np.log(p) - (1 - t) * np.log(1 - p),
        "poisson": lambda t, p: p - t * np.log(p),
        "mean_absolute_percentage_error": lambda t, p: 100 * np.abs(t - p) / np.maximum(t, 1e-7),
        "mean_squared_logarithmic_error": lambda t, p: (np.log1p(t) - np.log1p(p)) ** 2,
    }
    for kind, function in entropy.items():
        for missing in (math.nan, -5.0):
            expected = total_of_elements(function, WEIGHTS, None, THERE)
            check(Masked(kind, missing), expected, holes(y_true, missing=missing), y_pred, WEIGHTS)


@pytest.mark.parametrize("value_too", [True, False], ids=["mask and NaN", "mask alone"])
@every_batch
def test_a_mask_of_a_sample_holds_for_every_sample(value_too, weight, mask):
    fixed = np.random.default_rng(8).random((5, 3)) < 0.6
    there = THERE & fixed if value_too else np.broadcast_to(fixed, THERE.shape)
    loss = Masked("mse", math.nan if value_too else None, fixed)
    y_true = holes(Y_TRUE) if value_too else Y_TRUE
    square = total_of_elements(lambda t, p: (t - p) ** 2, weight, mask, there)
    check(loss, square, y_true, Y_PRED, weight, mask)


def test_a_mask_may_be_given_as_numbers():
    fixed = (np.arange(15).reshape(5, 3) % 2).tolist()
    there = np.broadcast_to(np.array(fixed, bool), THERE.shape)
    loss = Masked("mse", None, fixed)
    close(value(loss, Y_TRUE, Y_PRED), ((Y_TRUE - Y_PRED) ** 2)[there].mean())


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_vectors(shape):
    y_true, y_pred, there = normal(4, seed=1), normal(4, 1, seed=2), np.array([1, 0, 1, 1], bool)
    y = holes(y_true, there).reshape(shape)
    error = (y_true - y_pred[:, 0]) ** 2
    close(value(Masked("mse"), y, y_pred), error[there].mean())
    close(value(Masked("mse"), y, y_pred, WEIGHTS), (WEIGHTS * error)[there].sum() / 3)


def test_weights_of_single_elements():
    weight = uniform(4, 5, 3, seed=6)
    square = total_of_elements(lambda t, p: (t - p) ** 2, weight, None, THERE)
    check(Masked("mse"), square, holes(Y_TRUE), Y_PRED, weight)


def test_without_a_reduction_it_is_one_value_for_each_sample():
    """The composite takes the mean of what is unreduced; missing elements add 0."""
    loss = cl.CompositeLoss({"a": Masked("mse")}, reduction="none")
    error = np.where(THERE, (Y_TRUE - Y_PRED) ** 2, 0)
    found = value(loss, holes(Y_TRUE), Y_PRED, WEIGHTS)
    assert found.shape == (4,)
    close(found, WEIGHTS * error.mean(axis=(1, 2)))


# Missing classes.


def one_hot(*shape, classes=3, seed=4):
    return np.eye(classes, dtype="float32")[np.random.default_rng(seed).integers(0, classes, shape)]


ROWS = np.random.default_rng(6).random((4, 5)) < 0.6


@every_batch
@pytest.mark.parametrize("missing", [math.nan, -1.0])
def test_a_row_of_classes_counts_or_does_not(missing, weight, mask):
    y_true, y_pred = one_hot(4, 5), uniform(4, 5, 3, seed=2)
    bad = y_true.copy()
    bad[~ROWS] = missing
    bad[0, 0, 1] = missing  # one is enough
    there = ROWS.copy()
    there[0, 0] = False

    def expected(t, p):
        values = categorical_crossentropy(y_true, p)
        return reduce(values, weight, both(there, mask), "sum_over_batch_size")

    check(Masked("categorical_crossentropy", missing), expected, bad, y_pred, weight, mask)


def test_a_row_of_a_direction_counts_or_does_not():
    bad = holes(Y_TRUE, np.broadcast_to(ROWS[..., None], Y_TRUE.shape))

    def expected(t, p):
        return cosine_similarity(Y_TRUE.astype("float64"), p)[ROWS].mean()

    check(Masked(keras.losses.CosineSimilarity()), expected, bad, Y_PRED)


@every_batch
@pytest.mark.parametrize("column", [False, True], ids=["(N, T)", "(N, T, 1)"])
@pytest.mark.parametrize("missing", [-1, 255, math.nan])
def test_labels_count_or_do_not(missing, column, weight, mask):
    labels = np.random.default_rng(4).integers(0, 3, (4, 5))
    y_pred = uniform(4, 5, 3, seed=2)
    bad = np.where(ROWS, labels, missing)
    bad = bad[..., None] if column else bad

    def expected(t, p):
        values = categorical_crossentropy(np.eye(3)[labels], p)
        return reduce(values, weight, both(ROWS, mask), "sum_over_batch_size")

    loss = Masked("sparse_categorical_crossentropy", missing)
    check(loss, expected, bad, y_pred, weight, mask)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
@pytest.mark.parametrize("missing", [-1, 0.5, 255, 1])
def test_a_number_that_the_targets_cannot_hold_is_never_there(missing, dtype):
    ids = IDS.astype(dtype)
    values = categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)
    expected = values[missing != IDS].mean()
    loss = Masked("sparse_categorical_crossentropy", missing)
    close(value(loss, ids, PROBABILITIES), expected)


def test_labels_of_samples():
    labels, there = np.array([0, 2, -1, 1]), np.array([1, 1, 0, 1], bool)
    y_pred = uniform(4, 3, seed=2)
    entropy = categorical_crossentropy(np.eye(3)[labels], y_pred)
    for y in (labels, labels[:, None], labels.astype("float32")):
        loss = Masked("sparse_categorical_crossentropy", -1)
        close(value(loss, y, y_pred), entropy[there].mean())
        close(value(loss, y, y_pred, WEIGHTS), (WEIGHTS * entropy)[there].sum() / 3)


# Nothing there.

ANY = {
    "elements": lambda: (Masked("mse"), np.full_like(Y_TRUE, np.nan), Y_PRED),
    "logarithms": lambda: (
        Masked("binary_crossentropy", -1.0),
        np.full_like(Y_TRUE, -1.0),
        uniform(4, 5, 3, seed=2),
    ),
    "rows": lambda: (
        Masked("categorical_crossentropy"),
        np.full_like(Y_TRUE, np.nan),
        uniform(4, 5, 3, seed=2),
    ),
    "labels": lambda: (
        Masked("sparse_categorical_crossentropy", -1),
        np.full((4, 5), -1),
        uniform(4, 5, 3, seed=2),
    ),
    "mask": lambda: (Masked("mse", None, np.zeros((5, 3))), Y_TRUE, Y_PRED),
    "slice": lambda: (OnSlice(Masked("mse"), np.s_[:, 1:3]), np.full_like(Y_TRUE, np.nan), Y_PRED),
    "channels": lambda: (PerChannel(Masked("mse")), np.full_like(Y_TRUE, np.nan), Y_PRED),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ANY)
def test_a_batch_without_labels_gives_0_with_gradient_0(kind, reduction):
    loss, y_true, y_pred = ANY[kind]()
    loss = cl.CompositeLoss([loss], reduction=reduction)
    for weight in ([], [WEIGHTS]):
        assert value(loss, y_true, y_pred, *weight) == 0
        slope = gradient(lambda p, w=weight: loss(y_true, p, *w), y_pred)
        np.testing.assert_array_equal(slope, np.zeros_like(slope))


def test_the_gradient_of_what_is_missing_is_0():
    slope = gradient(lambda p: Masked("mse")(holes(Y_TRUE), p), Y_PRED)
    assert np.all(np.isfinite(slope))
    assert np.all(slope[~THERE] == 0) and np.all(slope[THERE] != 0)


@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_a_bad_prediction_for_a_missing_label_does_no_harm(bad):
    """A logarithm of 0 has no finite slope."""
    y_true, y_pred = uniform(4, 5, 3, seed=1), uniform(4, 5, 3, seed=2)
    spoilt = np.where(THERE, y_pred, bad).astype("float32")
    loss = Masked(LogRatio())
    close(value(loss, holes(y_true), spoilt), value(loss, holes(y_true), y_pred))
    slope = gradient(lambda p: loss(holes(y_true), p), spoilt)
    assert np.all(np.isfinite(slope)) and np.all(slope[~THERE] == 0)


class LogRatio(cl.losses.Loss):
    """Infinite, with an infinite slope, at a prediction of 0."""

    elementwise = True

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(keras.ops.log(y_pred / y_true)), axis=-1)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "mean"])
@pytest.mark.parametrize("weight", [None, WEIGHTS, STEP_WEIGHTS], ids=["plain", "(N,)", "(N, T)"])
def test_where_nothing_is_missing_it_is_the_child(reduction, weight):
    child = keras.losses.MeanSquaredError(reduction=reduction)
    data = (Y_TRUE, Y_PRED) if weight is None else (Y_TRUE, Y_PRED, weight)
    expected = value(cl.CompositeLoss([child]), *data)
    close(value(Masked(child), *data), expected)
    imposed = cl.CompositeLoss([Masked("mse")], reduction=reduction)
    close(value(imposed, *data), expected)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "mean"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_vector_is_a_number_for_each_sample(shape, reduction):
    child = keras.losses.MeanSquaredError(reduction=reduction)
    data = Y_TRUE[:, 0, 0].reshape(shape), Y_PRED[:, 0, 0].reshape(shape), WEIGHTS
    close(value(Masked(child), *data), value(cl.CompositeLoss([child]), *data))


# Functions of one's own, of which nothing is known.


def square(y_true, y_pred):
    return keras.ops.square(y_true - y_pred)


def mean_square(y_true, y_pred):
    return keras.ops.mean(square(y_true, y_pred), axis=-1)


def of_elements(y_true, y_pred):
    return mean_square(y_true, y_pred)


of_elements.elementwise = True


def of_rows(y_true, y_pred):
    return mean_square(y_true, y_pred)


of_rows.elementwise = False


class OfElements(keras.losses.Loss):
    elementwise = True

    def call(self, y_true, y_pred):
        return mean_square(y_true, y_pred)


def test_a_function_that_gives_a_value_for_each_label_misses_single_ones():
    loss = Masked(square)
    check(
        loss,
        total_of_elements(lambda t, p: (t - p) ** 2, WEIGHTS, None, THERE),
        holes(Y_TRUE),
        Y_PRED,
        WEIGHTS,
    )


@pytest.mark.parametrize("child", [of_elements, OfElements()], ids=["function", "keras loss"])
def test_a_function_may_say_that_it_judges_single_elements(child):
    error = (Y_TRUE - Y_PRED) ** 2
    close(value(Masked(child), holes(Y_TRUE), Y_PRED), error[THERE].mean())
    close(value(PerElement(child), Y_TRUE, Y_PRED), 15 * error.mean())


def test_a_function_that_says_nothing_counts_whole_rows_and_says_so():
    rows = THERE.all(axis=-1)
    expected = ((Y_TRUE - Y_PRED) ** 2).mean(axis=-1)[rows].mean()
    with pytest.warns(UserWarning, match="'part' counts only rows.*elementwise = True"):
        found = value(cl.CompositeLoss({"part": Masked(mean_square)}), holes(Y_TRUE), Y_PRED)
    close(found, expected)
    close(value(Masked(of_rows), holes(Y_TRUE), Y_PRED), expected)


@pytest.mark.parametrize("wrap", [Masked, PerChannel, PerElement, MultiScale, OnSlice, Scaled])
def test_a_target_that_is_needed_and_not_given_is_an_error(wrap):
    more = {OnSlice: [np.s_[..., 0:1]], Scaled: [2.0]}.get(wrap, [])
    with raises(ValueError, "'part'", "needs a target", "Received: y_true=None"):
        cl.CompositeLoss({"part": wrap("mse", *more)})(None, Y_PRED)


# Inside other wrappers.


def test_inside_a_slice():
    loss = OnSlice(Masked("mse"), np.s_[:, 1:4, 0:2])
    cut = np.s_[:, 1:4, 0:2]
    expected = total_of_elements(
        lambda t, p: (t - p)[cut] ** 2, STEP_WEIGHTS[:, 1:4], None, THERE[cut]
    )

    def of_slice(t, p):
        t = np.where(THERE, t, 0)
        valid = both(THERE[cut], STEPS[:, 1:4])
        return reduce((t - p)[cut] ** 2, STEP_WEIGHTS[:, 1:4], valid, "sum_over_batch_size")

    assert expected
    check(loss, of_slice, holes(Y_TRUE), Y_PRED, STEP_WEIGHTS, STEPS)


def test_in_other_units():
    expected = total_of_elements(lambda t, p: ((t - p) / 2) ** 2, WEIGHTS, STEPS, THERE)
    check(Scaled(Masked("mse"), 2.0), expected, holes(Y_TRUE), Y_PRED, WEIGHTS, STEPS)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_each_component_of_a_composite_counts_its_own(reduction):
    """Two columns with other labels missing in each."""
    loss = cl.CompositeLoss(
        {"a": OnSlice(Masked("mse"), np.s_[..., 0:1]), "b": OnSlice(Masked("mae"), np.s_[..., 1:])},
        {"b": 0.5},
        reduction=reduction,
    )
    parts = loss.components(holes(Y_TRUE), Y_PRED, WEIGHTS)
    error = np.where(THERE, Y_TRUE, 0) - Y_PRED
    a = reduce(error[..., :1] ** 2, WEIGHTS, THERE[..., :1], reduction)
    b = reduce(np.abs(error[..., 1:]), WEIGHTS, THERE[..., 1:], reduction)
    b = b / 2 if reduction == "sum" else b  # a sum of means over rows of two
    close(parts["a"], a)
    close(parts["b"], b)
    close(value(loss, holes(Y_TRUE), Y_PRED, WEIGHTS), a + 0.5 * b)


AROUND = {
    "composite": (lambda: cl.CompositeLoss(["mse"]), lambda t, p: (t - p) ** 2),
    "stop gradient": (lambda: StopGradient("mse"), lambda t, p: (t - p) ** 2),
    "scaled": (lambda: Scaled("mse", [1.0, 2.0, 4.0]), lambda t, p: ((t - p) / [1, 2, 4]) ** 2),
    "slice": (
        lambda: OnSlice("mae", np.s_[:, 1:4, ..., :2]),
        lambda t, p: np.abs(t - p)[:, 1:4, :2],
    ),
    "activated": (lambda: Activated("mae", "tanh"), lambda t, p: np.abs(t - np.tanh(p))),
    "elements": (lambda: PerElement("mse", aggregation="mean"), None),
    "two": (
        lambda: OnSlice(Scaled("mse", 2.0), np.s_[:, 2:]),
        lambda t, p: ((t - p)[:, 2:] / 2) ** 2,
    ),
}


@pytest.mark.parametrize("kind", AROUND)
def test_around_a_wrapper_it_is_the_one_inside(kind):
    make, values = AROUND[kind]
    y_true = holes(Y_TRUE)
    found = value(Masked(make()), y_true, Y_PRED)
    if values is None:
        there, error = ~np.isnan(y_true), (Y_TRUE - Y_PRED) ** 2
        each = [error[:, i, c][there[:, i, c]] for i in range(5) for c in range(3)]
        expected = np.mean([e.mean() if e.size else 0.0 for e in each])
    else:
        of_all = values(y_true, Y_PRED.astype("float64"))
        expected = of_all[~np.isnan(of_all)].mean()
    close(found, expected)
    slope = gradient(lambda p: Masked(make())(y_true, p), Y_PRED)
    assert np.all(np.isfinite(slope)) and np.all(slope[np.isnan(y_true)] == 0)


def test_around_averages_over_blocks_a_block_is_the_mean_of_what_is_there():
    there = np.random.default_rng(5).random((4, 8, 2)) < 0.6
    y_true, y_pred = holes(normal(4, 8, 2, seed=1), there), normal(4, 8, 2, seed=2)
    share = block_means(there, 2)
    sums = [block_means(np.where(there, a, 0), 2) for a in (y_true, y_pred)]
    t, p = (np.divide(a, share, where=share > 0, out=np.zeros_like(a)) for a in sums)
    expected = np.sum(share * (t - p) ** 2) / share.sum() + ((y_true - y_pred)[there] ** 2).mean()
    close(value(Masked(MultiScale("mse", (1, 2))), y_true, y_pred), expected)


def test_around_maps_of_ids():
    labels = np.where(ROWS, IDS, -1)
    values = categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)[ROWS]
    for ids in (labels, labels[..., None]):
        loss = Masked(OneHot("categorical_crossentropy", 3), -1)
        close(value(loss, ids, PROBABILITIES), values.mean())
    loss = Masked(ClassWeighted("sparse_categorical_crossentropy", CLASS_WEIGHTS), -1)
    weights = np.array(CLASS_WEIGHTS)[IDS][ROWS]
    close(value(loss, labels, PROBABILITIES), (weights * values).mean())


def test_around_averages_over_blocks_a_row_counts_by_its_share():
    there = np.random.default_rng(5).random((4, 8)) < 0.5
    y_true, y_pred = normal(4, 8, 2, seed=1), normal(4, 8, 2, seed=2)
    share = block_means(there[..., None], 2)[..., 0]
    rows = np.repeat(there[..., None], 2, axis=-1)
    sums = [block_means(np.where(rows, a, 0), 2) for a in (y_true, y_pred)]
    t, p = (s / np.maximum(share, 1e-9)[..., None] for s in sums)
    with np.errstate(invalid="ignore"):
        values = -np.sum(t * p, -1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(p, axis=-1)
    expected = np.sum(np.where(share > 0, share * values, 0)) / share.sum()
    loss = Masked(MultiScale(keras.losses.CosineSimilarity(), (2,)))
    close(value(loss, np.where(rows, y_true, np.nan), y_pred), expected)


def test_around_averages_over_blocks_weights_of_steps_count():
    y_true, y_pred = normal(4, 6, 2, seed=1), normal(4, 6, 2, seed=2)
    holey = y_true.copy()
    holey[0, 0, 0] = np.nan
    weight = uniform(4, 6, seed=3)
    loss = Masked(MultiScale(keras.losses.CosineSimilarity(), (2,)))
    assert np.isfinite(value(loss, holey, y_pred, weight))  # and no warning
    whole = value(MultiScale(keras.losses.CosineSimilarity(), (2,)), y_true, y_pred, weight)
    close(value(loss, y_true, y_pred, weight), whole)


def test_losses_that_cannot_miss_labels_say_so_inside_a_composite_too():
    class Whole(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return keras.ops.mean(y_pred)

    loss = cl.CompositeLoss({"all": Masked(cl.CompositeLoss({"mse": "mse", "whole": Whole()}))})
    with raises(ValueError, "'all/whole'", "`__call__`", "Received: "):
        loss(holes(Y_TRUE), Y_PRED)


# In a model.


def test_a_model_trains_on_the_labels_that_are_there():
    """The step of SGD is that of the mean over the valid elements, over a partial batch too."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(7, 3)).astype("float32"), rng.normal(size=(3, 2))
    y = rng.normal(size=(7, 2)).astype("float32")
    there = rng.random((7, 2)) < 0.5
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([kernel])
    model.compile(keras.optimizers.SGD(0.1), loss=cl.CompositeLoss({"a": Masked("mse")}))
    model.fit(x, holes(y, there), batch_size=7, verbose=0)
    error = np.where(there, x @ kernel - y, 0)
    expected = kernel - 0.1 * 2 * x.T @ error / there.sum()
    close(model.get_weights()[0], expected, 1e-4)
    logs = model.evaluate(x, holes(y, there), batch_size=4, verbose=0, return_dict=True)
    error = x @ model.get_weights()[0] - y
    batches = [(error[s] ** 2)[there[s]].mean() for s in (slice(0, 4), slice(4, 7))]
    assert logs["a_loss"] == pytest.approx(np.average(batches, weights=[4, 3]), rel=1e-5)


def test_the_mask_of_a_model_counts_too():
    """A recurrent model masks steps, and labels are missing besides."""
    x = normal(4, 5, 2, seed=3)
    x[~STEPS] = 0
    inputs = keras.Input((5, 2))
    hidden = keras.layers.Masking(0.0)(inputs)
    model = cl.Model(inputs, keras.layers.Dense(3)(hidden))
    model.compile("sgd", loss=cl.CompositeLoss({"a": Masked("mse")}))
    logs = model.evaluate(x, holes(Y_TRUE), verbose=0, return_dict=True)
    error = np.where(THERE, (model.predict(x, verbose=0) - Y_TRUE) ** 2, 0)
    expected = error[both(THERE, STEPS)].mean()
    assert logs["a_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_does_not_stop_the_training():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": Masked("mse")}))
    y = np.full((8, 2), np.nan, "float32")
    y[:4] = 1.0
    model.fit(normal(8, 3, seed=1), y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    assert np.all(np.isfinite(np.concatenate([np.ravel(w) for w in model.get_weights()])))


# Configuration and errors.


@pytest.mark.parametrize(
    "arguments", [(math.nan,), (-1,), (None, np.eye(5, 3)), (math.nan, np.eye(5, 3) > 0)], ids=str
)
def test_the_config_loses_nothing(arguments):
    loss = Masked(keras.losses.Huber(0.3), *arguments)
    text = json.dumps(loss.get_config())
    loaded = Masked.from_config(json.loads(text))
    assert repr(loaded.mask_value) == repr(loss.mask_value)
    y_true = holes(Y_TRUE) if arguments[0] != -1 else holes(Y_TRUE, missing=-1)
    y_true = Y_TRUE if arguments[0] is None else y_true
    assert value(loaded, y_true, Y_PRED) == value(loss, y_true, Y_PRED)


def test_a_loss_of_regions_has_no_missing_elements():
    """It has reduced over elements and rows: what is missing cannot be left out."""
    loss = cl.CompositeLoss({"edges": Masked(cl.losses.BoundaryDisagreement(axes=(1,)))})
    with raises(ValueError, "'edges'", "cannot honour the mask", "Received: "):
        loss(holes(Y_TRUE), Y_PRED)
    with raises(ValueError, "'edges'", "Received: "):
        cl.CompositeLoss({"edges": Masked(keras.losses.Dice())})(holes(Y_TRUE), Y_PRED)
    with raises(ValueError, "'edges'", "Received: "):
        cl.CompositeLoss({"edges": Masked(BatchScalar())})(holes(Y_TRUE), Y_PRED)


@pytest.mark.backend_free
def test_a_loss_with_a_call_of_its_own_is_an_error():
    class Whole(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return keras.ops.mean(y_pred)

    with raises(ValueError, "Masked", "in `call`", "Received: "):
        Masked(Whole())


@pytest.mark.parametrize("shape, said", [((4, 5, 3), "finer"), ((4, 2), "must have the shape")])
@pytest.mark.parametrize("wrap", ["masked", "one-hot"])
def test_a_mask_that_fits_no_target_is_an_error(wrap, shape, said):
    make = {
        "masked": lambda: Masked("sparse_categorical_crossentropy", -1),
        "one-hot": lambda: OneHot("categorical_crossentropy", 3, VOID),
    }[wrap]
    loss = cl.CompositeLoss({"part": make()})
    with raises(ValueError, "'part'", said, f"Received: mask of shape {shape}"):
        loss(IDS, masked(PROBABILITIES, np.ones(shape, bool)))


@pytest.mark.backend_free
def test_neither_value_nor_mask_is_an_error():
    with raises(ValueError, "needs `mask_value` or `mask`", "Received: None for both"):
        Masked("mse", None)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["nan", True, [1.0], 1j], ids=repr)
def test_a_mask_value_is_a_number(bad):
    with raises(ValueError, "`mask_value` of Masked", f"Received: {bad!r}"):
        Masked("mse", bad)


@pytest.mark.parametrize("shape", [(3, 5), (4, 5, 3), (5,), (3,), (5, 1)])
def test_a_mask_of_another_shape_is_an_error_that_names_the_component(shape):
    loss = cl.CompositeLoss({"part": Masked("mse", mask=np.ones(shape))})
    with raises(ValueError, "'part'", "(5, 3)", f"Received: mask of shape {shape}"):
        loss(Y_TRUE, Y_PRED)


def test_targets_of_another_shape_are_an_error_too():
    loss = cl.CompositeLoss({"part": Masked("mse")})
    with raises(ValueError, "'part'", "Received: y_true of shape (4, 5, 1"):
        loss(Y_TRUE[..., :1], Y_PRED)


def test_whole_numbers_are_never_missing_by_nan():
    y_true = np.arange(12).reshape(4, 3)
    y_pred = normal(4, 3, seed=1)
    close(value(Masked("mse"), y_true, y_pred), np.mean((y_true - y_pred) ** 2))


# Class weights.

CLASS_WEIGHTS = [1.0, 0.0, 3.0]
IDS = np.random.default_rng(4).integers(0, 3, (4, 5))
PROBABILITIES = uniform(4, 5, 3, seed=2)


def targets(kind):
    if kind == "one-hot":
        return np.eye(3, dtype="float32")[IDS]
    return IDS[..., None] if kind == "(N, T, 1)" else IDS


@every_batch
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["one-hot", "(N, T)", "(N, T, 1)"])
def test_class_weights_are_sample_weights(kind, reduction, weight, mask):
    rows = np.array(CLASS_WEIGHTS)[IDS]
    rows = rows if weight is None else rows * spread(weight, rows.shape)

    def expected(t, p):
        return reduce(categorical_crossentropy(np.eye(3)[IDS], p), rows, mask, reduction)

    child = "categorical" if kind == "one-hot" else "sparse_categorical"
    child = keras.losses.get(f"{child}_crossentropy")
    loss = cl.CompositeLoss({"a": ClassWeighted(child, CLASS_WEIGHTS)}, reduction=reduction)
    check(loss, expected, targets(kind), PROBABILITIES, weight, mask)


def test_soft_targets_have_soft_weights():
    y_true = uniform(4, 5, 3, seed=5)
    rows = y_true @ CLASS_WEIGHTS
    loss = ClassWeighted("categorical_crossentropy", CLASS_WEIGHTS)
    close(
        value(loss, y_true, PROBABILITIES),
        np.mean(rows * categorical_crossentropy(y_true, PROBABILITIES)),
    )


def test_labels_of_samples_have_class_weights():
    loss = ClassWeighted("sparse_categorical_crossentropy", CLASS_WEIGHTS)
    labels, y_pred = np.array([0, 2, 1, 2]), PROBABILITIES[:, 0]
    values = np.array(CLASS_WEIGHTS)[labels] * categorical_crossentropy(np.eye(3)[labels], y_pred)
    for y in (labels, labels[:, None], labels.astype("float32")):
        close(value(loss, y, y_pred), values.mean())


def test_binary_labels_have_class_weights():
    """`(N, 1)` of 0 and 1 with one probability: two classes."""
    y_true, y_pred = np.array([[0.0], [1.0], [1.0], [0.0]], "float32"), uniform(4, 1, seed=1)
    entropy = -np.log(np.where(y_true == 1, y_pred, 1 - y_pred))[:, 0]
    loss = ClassWeighted("binary_crossentropy", [1.0, 5.0])
    close(value(loss, y_true, y_pred), np.mean([1, 5, 5, 1] * entropy))
    close(value(loss, y_true[:, 0], y_pred), np.mean([1, 5, 5, 1] * entropy))
    # An image of pixels.
    images, p = (normal(4, 3, 5, 1, seed=3) > 0).astype("float32"), uniform(4, 3, 5, 1, seed=4)
    entropy = -np.log(np.where(images == 1, p, 1 - p))
    close(value(loss, images, p), np.mean(np.where(images == 1, 5, 1) * entropy))


def test_class_weights_beside_missing_labels():
    labels = np.where(ROWS, IDS, -1)
    loss = ClassWeighted(Masked("sparse_categorical_crossentropy", -1), CLASS_WEIGHTS)
    values = np.array(CLASS_WEIGHTS)[IDS] * categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)
    close(value(loss, labels, PROBABILITIES), values[ROWS].mean())


def test_a_missing_row_has_no_class():
    one_hot = np.eye(3, dtype="float32")[IDS]
    one_hot[~ROWS] = np.nan
    values = np.array(CLASS_WEIGHTS)[IDS] * categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)
    for loss in (
        ClassWeighted(Masked("categorical_crossentropy"), CLASS_WEIGHTS),
        Masked(ClassWeighted("categorical_crossentropy", CLASS_WEIGHTS)),
    ):
        close(value(loss, one_hot, PROBABILITIES), values[ROWS].mean())
    loss = ClassWeighted("categorical_crossentropy", CLASS_WEIGHTS)
    found = value(loss, one_hot, PROBABILITIES, ROWS.astype("float32"))
    close(found, (values * ROWS).mean())
    slope = gradient(lambda p: loss(one_hot, p, ROWS.astype("float32")), PROBABILITIES)
    assert np.all(np.isfinite(slope))


def test_wrappers_that_read_the_target_read_it_for_terms_without_one_too():
    ids = np.array([0, 1, 2, 2])
    y_pred = normal(4, 3, seed=1)
    square = np.mean(y_pred.astype("float64") ** 2, axis=-1)
    weighted = ClassWeighted(PredictionOnly("mse"), CLASS_WEIGHTS)
    close(value(weighted, np.eye(3)[ids], y_pred), np.mean(np.array(CLASS_WEIGHTS)[ids] * square))
    close(value(OneHot(PredictionOnly("mse"), 3, 1), ids, y_pred), square[ids != 1].mean())
    there = THERE[:, 0]
    holey = np.where(there, 1.0, np.nan)
    close(value(Masked(PredictionOnly("mse")), holey, y_pred), (y_pred**2)[there].mean())
    for around in (
        OnSlice(Masked(PredictionOnly("mse")), np.s_[...]),
        Scaled(Masked(PredictionOnly("mse")), 1.0),
        PerElement(Masked(PredictionOnly("mse")), aggregation="mean", size=3),
    ):
        expected = (y_pred**2)[there].mean()
        if isinstance(around, PerElement):
            expected = np.mean([(y_pred[:, c] ** 2)[there[:, c]].mean() for c in range(3)])
        close(value(around, holey, y_pred), expected)
    assert not Masked(PredictionOnly("mse")).needs_target
    assert ClassWeighted(PredictionOnly("mse"), [1.0]).needs_target


def test_class_weights_for_a_loss_of_regions_are_an_error():
    y_true = np.eye(2, dtype="float32")[np.random.default_rng(0).integers(0, 2, (4, 5, 6))]
    y_pred = uniform(4, 5, 6, 2, seed=1)
    loss = cl.CompositeLoss({"edge": ClassWeighted(cl.losses.BoundaryDisagreement(), [1.0, 2.0])})
    with pytest.raises(ValueError, match="'edge' cannot honour the sample_weight"):
        loss(y_true, y_pred)


def test_class_weights_may_be_a_dict_as_keras_takes_it():
    loss = ClassWeighted("sparse_categorical_crossentropy", {0: 2.0, 2: 3.0})
    same = ClassWeighted("sparse_categorical_crossentropy", [2.0, 1.0, 3.0])
    expected = value(same, IDS, PROBABILITIES)
    close(value(loss, IDS, PROBABILITIES), expected)
    loaded = ClassWeighted.from_config(json.loads(json.dumps(loss.get_config())))
    close(value(loaded, IDS, PROBABILITIES), expected)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["ab", {}, {"a": 1.0}, {0.5: 1.0}, [None]], ids=repr)
def test_class_weights_are_numbers(bad):
    with raises(ValueError, "`weights` of ClassWeighted", f"Received: {bad!r}"):
        ClassWeighted("mse", bad)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "bad", [[-1.0, 1.0], [np.nan, 1.0], [[1.0]], 1.0, [np.inf, 1], []], ids=repr
)
def test_class_weights_are_finite_numbers(bad):
    with raises(ValueError, "`weights` of ClassWeighted", "each class", f"Received: {bad!r}"):
        ClassWeighted("mse", bad)


def test_another_number_of_classes_is_an_error():
    loss = cl.CompositeLoss({"part": ClassWeighted("categorical_crossentropy", [1.0, 2.0])})
    with raises(ValueError, "'part'", "2 classes", "Received: y_true of shape (4, 5, 3)"):
        loss(targets("one-hot"), PROBABILITIES)
    loss = cl.CompositeLoss({"part": ClassWeighted("sparse_categorical_crossentropy", [1.0, 2.0])})
    with raises(ValueError, "'part'", "2 classes", "Received: "):
        loss(IDS, PROBABILITIES)


# Maps of ids.

VOID = 255
MAP = np.where(ROWS, IDS, VOID)


@every_batch
@pytest.mark.parametrize("column", [False, True], ids=["(N, T)", "(N, T, 1)"])
@pytest.mark.parametrize("ignore", [None, VOID])
def test_ids_become_one_hot_and_void_ones_do_not_count(ignore, column, weight, mask):
    ids = MAP if ignore else IDS
    valid = both(ROWS if ignore else np.ones_like(ROWS), mask)

    def expected(t, p):
        values = categorical_crossentropy(np.eye(3)[IDS], p)
        return reduce(values, weight, valid, "sum_over_batch_size")

    loss = OneHot("categorical_crossentropy", 3, ignore)
    ids = ids[..., None] if column else ids
    check(loss, expected, ids, PROBABILITIES, weight, mask if mask is not None else None)


def dice(y_true, y_pred):
    both = np.sum(y_true * y_pred, axis=(1, 2))
    return 1 - 2 * both / (np.sum(y_true, axis=(1, 2)) + np.sum(y_pred, axis=(1, 2)))


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
def test_void_pixels_are_empty_for_a_loss_of_regions(weight):
    """Target and prediction are 0 there, which is no region: no warning, no contribution."""
    loss = cl.CompositeLoss({"a": OneHot(keras.losses.Dice(axis=(1, 2)), 3, VOID)})

    def expected(t, p):
        shown = ROWS[..., None]
        return reduce(dice(np.eye(3)[IDS] * shown, p * shown), weight, None, "sum_over_batch_size")

    check(loss, expected, MAP, PROBABILITIES, weight)  # pytest turns a UserWarning into an error


def test_void_pixels_for_a_loss_of_each_sample_and_class():
    """Values `(batch, classes)` do not begin like the map of void pixels."""
    ids = np.random.default_rng(1).integers(0, 4, (4, 5, 6))
    y_pred = uniform(4, 5, 6, 3, seed=2)
    shown = (ids < 3)[..., None]
    one_hot = np.eye(4)[ids][..., :3]
    expected = dice(one_hot, y_pred * shown).mean()
    loss = OneHot(keras.losses.Dice(axis=(1, 2)), 3, ignore_value=3)
    close(value(loss, ids, y_pred), expected)


def test_beside_void_pixels_a_mask_that_a_loss_of_regions_cannot_honour_warns():
    loss = cl.CompositeLoss({"a": OneHot(keras.losses.Dice(axis=(1, 2)), 3, VOID)})
    with pytest.warns(UserWarning, match="'a' cannot honour the mask"):
        value(loss, MAP, masked(PROBABILITIES, STEPS))


def test_nothing_but_void_gives_0_with_gradient_0():
    loss = OneHot("categorical_crossentropy", 3, VOID)
    nothing = np.full((4, 5), VOID)
    assert value(loss, nothing, PROBABILITIES) == 0
    slope = gradient(lambda p: loss(nothing, p), PROBABILITIES)
    np.testing.assert_array_equal(slope, np.zeros_like(slope))


@pytest.mark.parametrize("ignore", [None, VOID])
def test_an_id_outside_the_classes_is_a_row_of_zeros(ignore):
    ids = np.array([[0, 77], [-3, 2]])
    y_pred = PROBABILITIES[:2, :2]
    one_hot = np.eye(4)[np.where((ids >= 0) & (ids < 3), ids, 3)][..., :3]
    close(value(OneHot("mse", 3, ignore), ids, y_pred), mse(one_hot, y_pred).mean())


def test_ids_of_floats_and_of_bytes():
    loss = OneHot("categorical_crossentropy", 3, VOID)
    expected = categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)[ROWS].mean()
    for dtype in ("uint8", "int64", "float32"):
        close(value(loss, MAP.astype(dtype), PROBABILITIES), expected)


def test_ids_of_samples():
    loss = OneHot("categorical_crossentropy", 3)
    labels, y_pred = np.array([0, 2, 1, 2]), PROBABILITIES[:, 0]
    expected = categorical_crossentropy(np.eye(3)[labels], y_pred).mean()
    close(value(loss, labels, y_pred), expected)
    close(value(loss, labels[:, None], y_pred), expected)


def test_void_pixels_with_class_weights():
    loss = OneHot(ClassWeighted("categorical_crossentropy", CLASS_WEIGHTS), 3, VOID)
    values = np.array(CLASS_WEIGHTS)[IDS] * categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)
    close(value(loss, MAP, PROBABILITIES), values[ROWS].mean())


def test_void_pixels_for_a_loss_of_elements():
    values = mse(np.eye(3)[IDS], PROBABILITIES)
    close(value(OneHot("mse", 3, VOID), MAP, PROBABILITIES), values[ROWS].mean())
    values = mae(np.eye(3)[IDS], PROBABILITIES)
    loss = OneHot(PerChannel("mae", size=3, aggregation="mean"), 3, VOID)
    close(value(loss, MAP, PROBABILITIES), values[ROWS].mean())


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [1, 0, -3, True, 2.0, "3", None])
def test_a_number_of_classes_is_an_integer(bad):
    with raises(ValueError, "`num_classes` of OneHot", f"Received: {bad!r}"):
        OneHot("mse", bad)


def test_predictions_of_another_number_of_classes_are_an_error():
    loss = cl.CompositeLoss({"part": OneHot("categorical_crossentropy", 4)})
    with raises(ValueError, "'part'", "4 classes", "Received: y_pred of shape (4, 5, 3)"):
        loss(IDS, PROBABILITIES)


def test_one_hot_targets_are_an_error_that_says_so():
    loss = cl.CompositeLoss({"part": OneHot("categorical_crossentropy", 3)})
    with raises(ValueError, "'part'", "ids", "Received: y_true of shape (4, 5, 3)"):
        loss(targets("one-hot"), PROBABILITIES)


def test_masks_come_through_a_slice():
    loss = OnSlice(OneHot("categorical_crossentropy", 3, VOID), np.s_[:, 1:4])
    values = categorical_crossentropy(np.eye(3)[IDS], PROBABILITIES)[:, 1:4]
    y_pred = masked(PROBABILITIES, STEPS)
    # A slice is of arrays of one rank, so ids have a last axis of 1.
    found = value(loss, MAP[..., None], y_pred)
    close(found, values[(ROWS & STEPS)[:, 1:4]].mean())
