"""`components()`, `set_weight()` and children that are called whole."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import (
    REDUCTIONS,
    SCALAR_REDUCTIONS,
    WEIGHTS,
    Y_PRED,
    Y_TRUE,
    SquaredError,
    log_ratio,
    value,
)
from tests.gradients import gradient
from tests.masks import masked


def parts_of(loss, *data):
    parts = loss.components(*data)
    return {name: ops.convert_to_numpy(part) for name, part in parts.items()}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


# Float64 twins: values (4, 3), then the reductions.

SQUARED = np.square(Y_TRUE.astype("float64") - Y_PRED).mean(axis=-1)
RATIO = np.abs(np.log(Y_PRED.astype("float64") / Y_TRUE)).mean(axis=-1)


def reduce(values, reduction):
    weight = WEIGHTS[:, None].astype("float64")
    divisor = {"sum": 1.0, "mean_with_sample_weight": WEIGHTS.sum() * 3}.get(reduction, 12.0)
    if reduction == "none":
        return (values * weight).mean(axis=1)
    return (values * weight).sum() / divisor


def nested(**kwargs):
    inner = cl.CompositeLoss({"ratio": log_ratio, "mse": "mse"}, weights={"ratio": 3.0})
    return cl.CompositeLoss({"z": inner, "a": SquaredError()}, weights={"a": 0.5}, **kwargs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_components_are_unweighted_in_order_and_add_up(reduction):
    loss = nested(reduction=reduction)
    parts = parts_of(loss, Y_TRUE, Y_PRED, WEIGHTS)
    squared, ratio = reduce(SQUARED, reduction), reduce(RATIO, reduction)
    expected = {"z": 3 * ratio + squared, "z/ratio": ratio, "z/mse": squared, "a": squared}
    assert list(parts) == list(expected)
    for name, part in expected.items():
        close(parts[name], part)
    close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), expected["z"] + 0.5 * squared)


def test_a_nested_composite_keeps_its_reduction():
    inner = cl.CompositeLoss({"mse": "mse"}, reduction="sum")
    parts = parts_of(cl.CompositeLoss({"inner": inner, "mse": "mse"}), Y_TRUE, Y_PRED)
    close(parts["inner"], SQUARED.sum())
    close(parts["inner/mse"], SQUARED.sum())
    close(parts["mse"], SQUARED.mean())


def test_an_imposed_reduction_overrides_the_nested_ones():
    inner = cl.CompositeLoss({"mse": keras.losses.MeanSquaredError(reduction="none")})
    outer = cl.CompositeLoss({"inner": inner, "a": SquaredError(reduction="mean")}, reduction="sum")
    parts = parts_of(outer, Y_TRUE, Y_PRED)
    for part in parts.values():
        close(part, SQUARED.sum())


def test_every_component_has_its_own_reduction():
    reductions = {"sum": "sum", "mean": "mean", "by_weight": "mean_with_sample_weight"}
    loss = cl.CompositeLoss({name: SquaredError(reduction=r) for name, r in reductions.items()})
    for name, part in parts_of(loss, Y_TRUE, Y_PRED, WEIGHTS).items():
        close(part, reduce(SQUARED, reductions[name]))


def test_children_that_all_have_reduction_none_give_one_total_for_each_sample():
    children = {"a": SquaredError(reduction="none"), "b": keras.losses.MeanSquaredError(None)}
    loss = cl.CompositeLoss(children, weights={"b": 2.0})
    assert loss.reduction == "none"
    close(value(loss, Y_TRUE, Y_PRED), 3 * SQUARED.mean(axis=1))


def test_a_total_for_each_sample_can_be_trained_on_in_a_custom_loop():
    loss = nested(reduction="none")
    mean = gradient(lambda p: ops.mean(loss(Y_TRUE, p, WEIGHTS)), Y_PRED)
    expected = gradient(lambda p: nested()(Y_TRUE, p, WEIGHTS), Y_PRED)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_gradients_are_those_of_the_weighted_sum():
    loss = cl.CompositeLoss({"mse": "mse", "ratio": log_ratio}, weights={"ratio": -2.0})
    n, error = Y_TRUE.size, Y_PRED - Y_TRUE
    expected = 2 * error / n - 2.0 * np.sign(error) / Y_PRED / n
    actual = gradient(lambda p: loss(Y_TRUE, p), Y_PRED)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def both(y_true, y_pred):
    """Reads two outputs at once."""
    squared, ratio = (ops.square(y_true[key] - y_pred[key]) for key in ("left", "right"))
    return ops.mean(squared + ratio, axis=-1)


def test_a_component_may_see_several_outputs_at_once():
    y_true, y_pred = Y_TRUE.copy(), Y_PRED.copy()
    y_true[1], y_pred[1] = np.nan, np.nan  # where the weight is 0
    targets = {"left": y_true[:, 0], "right": y_true[:, 1]}
    predictions = {"left": y_pred[:, 0], "right": y_pred[:, 1]}
    expected = np.mean((SQUARED[:, 0] + SQUARED[:, 1]) * WEIGHTS)
    close(value(cl.CompositeLoss({"both": both}), targets, predictions, WEIGHTS), expected)


def test_whole_numbers_of_one_of_several_outputs_are_cast():
    targets = {"left": Y_TRUE[:, 0], "right": Y_TRUE[:, 1]}
    whole = {"left": Y_PRED[:, 0], "right": np.ones((4, 2), "int32")}
    floats = {"left": Y_PRED[:, 0], "right": np.ones((4, 2), "float32")}
    loss = cl.CompositeLoss({"both": both})
    close(value(loss, targets, whole), value(loss, targets, floats))


# Weights.


def test_weights_are_1_where_none_are_given():
    assert cl.CompositeLoss(["mse", "mae"]).weights == {"mse": 1.0, "mae": 1.0}
    partial = cl.CompositeLoss(["mse", "mae"], weights={"mae": 0.5})
    assert partial.weights == {"mse": 1.0, "mae": 0.5}
    assert cl.CompositeLoss(["mse", "mae"], weights=(3, np.float32(0.5))).weights["mae"] == 0.5


def test_weights_is_a_copy():
    loss = cl.CompositeLoss(["mse"])
    loss.weights["mse"] = 7.0
    assert loss.weights == {"mse": 1.0}


def test_set_weight_acts_on_the_next_call():
    loss = cl.CompositeLoss({"mse": "mse", "ratio": log_ratio})
    for weight in (0.5, 0.0, -1.0, 2):
        loss.set_weight("ratio", weight)
        close(value(loss, Y_TRUE, Y_PRED), SQUARED.mean() + weight * RATIO.mean())
        close(parts_of(loss, Y_TRUE, Y_PRED)["ratio"], RATIO.mean())


def test_set_weight_reaches_parts_of_nested_composites():
    loss = nested()
    loss.set_weight("z/ratio", 0.25)
    loss.set_weight("a", 0.0)
    close(value(loss, Y_TRUE, Y_PRED), 0.25 * RATIO.mean() + SQUARED.mean())


def test_a_composite_in_two_composites_is_one_object():
    inner = cl.CompositeLoss(["mse"])
    first, second = cl.CompositeLoss({"i": inner}), cl.CompositeLoss({"i": inner})
    first.set_weight("i/mse", 3.0)
    close(value(second, Y_TRUE, Y_PRED), 3 * SQUARED.mean())


# Children with a `__call__` of their own.


class Whole(keras.losses.Loss):
    """Honours sample weights in its own way, and tells what it was given."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.given = y_true, y_pred, sample_weight
        values = ops.mean(ops.square(y_true - y_pred), axis=(1, 2))
        return ops.max(values if sample_weight is None else values * sample_weight)


class WholeWithoutWeights(keras.losses.Loss):
    """Has no parameter for sample weights; `call` must not be what is used."""

    def __call__(self, y_true, y_pred):
        return self.finish(ops.mean(ops.square(y_true - y_pred), axis=-1))

    def call(self, y_true, y_pred):
        raise AssertionError("called in parts")

    def finish(self, values):
        return ops.max(values)


class WholeValues(WholeWithoutWeights):
    def finish(self, values):
        return values


class Doubled(keras.losses.MeanSquaredError):
    """Extends Keras's own `__call__`."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2 * super().__call__(y_true, y_pred, sample_weight)


def test_a_child_with_its_own_call_is_called_whole():
    child = Whole()
    loss = cl.CompositeLoss({"whole": child, "mse": "mse"})
    worst = SQUARED.mean(axis=1)
    close(value(loss, Y_TRUE, Y_PRED), worst.max() + SQUARED.mean())
    assert child.given[2] is None
    close(parts_of(loss, Y_TRUE, Y_PRED, WEIGHTS)["whole"], (worst * WEIGHTS).max())
    close(ops.convert_to_numpy(child.given[2]), WEIGHTS)


def test_a_child_that_extends_the_call_of_keras_is_called_whole():
    loss, step = cl.CompositeLoss([Doubled()]), (Y_TRUE[:, 0], Y_PRED[:, 0])
    close(value(loss, *step, WEIGHTS), 2 * np.mean(SQUARED[:, 0] * WEIGHTS))
    kept = WEIGHTS > 0
    close(value(loss, step[0], masked(step[1], kept)), 2 * SQUARED[kept, 0].mean())


def test_a_whole_child_without_weights_counts_unweighted():
    loss = cl.CompositeLoss({"whole": WholeWithoutWeights()})
    with pytest.warns(UserWarning, match="'whole' cannot honour the sample_weight"):
        close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), SQUARED.max())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_values_of_a_whole_child_are_weighed_for_it(reduction):
    loss = cl.CompositeLoss([WholeValues()], reduction=reduction)
    close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), reduce(SQUARED, reduction))


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
def test_a_whole_child_keeps_its_number_under_an_imposed_reduction(reduction):
    loss = cl.CompositeLoss([WholeWithoutWeights()], reduction=reduction)
    close(value(loss, Y_TRUE, Y_PRED), SQUARED.max())


def test_a_whole_child_that_is_switched_on_again_has_its_mask():
    loss = cl.CompositeLoss({"whole": Doubled()}, weights={"whole": 0.0})
    loss.set_weight("whole", 1.0)
    kept = WEIGHTS > 0
    close(value(loss, Y_TRUE[:, 0], masked(Y_PRED[:, 0], kept)), 2 * SQUARED[kept, 0].mean())
