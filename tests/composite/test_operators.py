"""`a + b`, `0.5 * a`, `a / 2`, `sum([a, b])`: each is one flat composite."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import (
    WEIGHTS,
    Y_PRED,
    Y_TRUE,
    SquaredError,
    log_ratio,
    squared_error,
    value,
)
from tests.messages import raises


def own():
    return cl.losses.AsymmetricError(3.0, 0.5, 1.5, name="own")


def check(combined, expected):
    """`combined` has these names and weights, and their weighted sum as its value."""
    losses, weights = zip(*expected.values(), strict=True)
    assert combined.weights == pytest.approx(dict(zip(expected, weights, strict=True)))
    assert combined.reduction == "per_component"
    parts = [value(cl.as_loss(loss), Y_TRUE, Y_PRED, WEIGHTS) for loss in losses]
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(value(combined, Y_TRUE, Y_PRED, WEIGHTS), total, rtol=2e-6)


HUBER = keras.losses.Huber(name="robust")
OTHERS = {
    "a loss of ours": (cl.losses.UnderestimationPenalty(), "underestimation_penalty"),
    "a loss of Keras": (HUBER, "robust"),
    "a user's loss": (SquaredError(), "squared_error"),
    "a string": ("mse", "mse"),
    "a function": (log_ratio, "log_ratio"),
    "as_loss of a string": (cl.as_loss("mse"), "mse"),
    "as_loss of a function": (cl.as_loss(squared_error), "squared_error"),
    "as_loss of a loss of Keras": (cl.as_loss(HUBER), "robust"),
}


@pytest.mark.parametrize("other, name", OTHERS.values(), ids=OTHERS)
def test_a_sum_takes_any_loss_on_either_side(other, name):
    check(own() + other, {"own": (own(), 1.0), name: (other, 1.0)})
    check(other + own(), {name: (other, 1.0), "own": (own(), 1.0)})


FACTORS = [0.5, 3, -1.0, 0.0, np.float32(0.5), np.float64(0.25), np.int64(2)]


@pytest.mark.parametrize("factor", FACTORS, ids=repr)
def test_a_factor_is_a_weight(factor):
    check(factor * own(), {"own": (own(), float(factor))})
    check(own() * factor, {"own": (own(), float(factor))})


@pytest.mark.parametrize("divisor", [2, 0.5, -4.0, np.float32(0.5), np.int64(2)], ids=repr)
def test_a_divisor_is_a_weight(divisor):
    check(own() / divisor, {"own": (own(), 1 / float(divisor))})


def test_the_example_of_the_readme():
    check(
        0.7 * cl.as_loss("mse") + 0.3 * cl.as_loss("mae"),
        {"mse": ("mse", 0.7), "mae": ("mae", 0.3)},
    )


def test_sum_adds_a_list():
    parts = [0.5 * own(), cl.as_loss("mse"), 2 * cl.as_loss(log_ratio)]
    expected = {"own": (own(), 0.5), "mse": ("mse", 1.0), "log_ratio": (log_ratio, 2.0)}
    check(sum(parts), expected)


@pytest.mark.backend_free
def test_sum_of_one_loss_is_that_loss():
    loss = own()
    assert sum([loss]) is loss


def test_sums_are_flat_and_their_weights_multiplied_through():
    inner = cl.CompositeLoss({"z": "mse", "a": log_ratio}, weights={"a": 0.5})
    combined = 2 * (own() + 3 * inner) / 4
    check(combined, {"own": (own(), 0.5), "z": ("mse", 1.5), "a": (log_ratio, 0.75)})


def test_two_composites_merge_in_order():
    left = cl.CompositeLoss({"z": "mse", "a": "mae"})
    right = cl.CompositeLoss({"m": log_ratio}, weights=[0.1])
    check(left + right, {"z": ("mse", 1.0), "a": ("mae", 1.0), "m": (log_ratio, 0.1)})


def test_a_sum_takes_the_weights_of_the_moment():
    loss = cl.CompositeLoss(["mse", "mae"])
    loss.set_weight("mae", 0.25)
    combined = loss + own()
    assert combined.weights == {"mse": 1.0, "mae": 0.25, "own": 1.0}
    loss.set_weight("mae", 7.0)
    assert combined.weights["mae"] == 0.25


@pytest.mark.parametrize("reduction", ["sum", "mean", "sum_over_batch_size"])
def test_a_composite_that_imposes_a_reduction_stays_one_component(reduction):
    inner = cl.CompositeLoss(["mse", "mae"], reduction=reduction, name="inner")
    check(2 * inner + own(), {"inner": (inner, 2.0), "own": (own(), 1.0)})
    assert (own() + inner).component_names == ("own", "inner", "inner/mse", "inner/mae")


def test_a_nested_composite_stays_nested():
    inner = cl.CompositeLoss(["mse", "mae"])
    combined = 0.5 * cl.CompositeLoss({"pair": inner, "own": own()})
    assert combined.component_names == ("pair", "pair/mse", "pair/mae", "own")
    check(combined, {"pair": (inner, 0.5), "own": (own(), 0.5)})


def test_equal_names_are_numbered():
    combined = cl.as_loss("mse") + 0.5 * cl.as_loss("mse") + cl.CompositeLoss({"mse": "mae"})
    check(combined, {"mse": ("mse", 1.0), "mse_2": ("mse", 0.5), "mse_3": ("mae", 1.0)})
    loss = own()
    check(loss + loss, {"own": (own(), 1.0), "own_2": (own(), 1.0)})


def test_operands_stay_as_they_are():
    left, right = cl.CompositeLoss(["mse"], weights=[0.5]), own()
    _ = 3 * (left + right)
    assert left.weights == {"mse": 0.5}
    assert left.names == ("mse",)
    assert right.name == "own"


@pytest.mark.backend_free
@pytest.mark.parametrize("other", [1.0, 1, None, [own()], {"a": "mse"}, keras.losses.Huber])
def test_only_losses_can_be_added(other):
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+"):
        own() + other
    with pytest.raises(TypeError):
        other + own()


NOT_ADDED = {
    "an unknown string": ("msee", "keras.losses.get"),
    "a function of three": (lambda a, b, c: a, "functools.partial"),
    "a metric": (keras.metrics.MeanSquaredError(), "compile(metrics=...)"),
}


@pytest.mark.parametrize("other, hint", NOT_ADDED.values(), ids=NOT_ADDED)
def test_what_is_no_loss_is_said_to_be_none(other, hint):
    for add in (lambda: own() + other, lambda: other + own()):
        with raises(ValueError, hint, "Received: "):
            add()


@pytest.mark.backend_free
@pytest.mark.parametrize("factor", ["2", None, True, own(), [2.0], 2j])
def test_only_numbers_can_be_factors(factor):
    with pytest.raises(TypeError):
        own() * factor
    with pytest.raises(TypeError):
        factor * own()


@pytest.mark.backend_free
@pytest.mark.parametrize("divisor", ["2", None, True, own()])
def test_only_numbers_can_be_divisors(divisor):
    with pytest.raises(TypeError):
        own() / divisor


@pytest.mark.backend_free
def test_a_loss_is_no_divisor():
    with pytest.raises(TypeError):
        2.0 / own()


@pytest.mark.backend_free
def test_division_by_zero_is_said_to_be_one():
    with pytest.raises(ZeroDivisionError):
        own() / 0


@pytest.mark.backend_free
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_must_be_finite(factor):
    with raises(ValueError, "component 'own'", "finite number", f"Received: {factor}"):
        factor * own()


def test_as_loss_leaves_what_has_operators():
    loss, composite = own(), cl.CompositeLoss(["mse"])
    assert cl.as_loss(loss) is loss
    assert cl.as_loss(composite) is composite


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [3, None, "msee", keras.losses.Huber])
def test_as_loss_refuses_what_is_no_loss(bad):
    with raises(ValueError, f"Received: {bad!r}"):
        cl.as_loss(bad)
