"""What a user may get wrong, and what the message then says."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import (
    REDUCTIONS,
    Y_PRED,
    Y_TRUE,
    BatchScalar,
    SquaredError,
    squared_error,
    uniform,
    value,
)
from tests.messages import raises

# Losses.


@pytest.mark.backend_free
@pytest.mark.parametrize("losses", [{}, [], ()])
def test_a_composite_of_nothing(losses):
    with raises(ValueError, "`losses` of 'total'", "must not be empty", f"Received: {losses!r}"):
        cl.CompositeLoss(losses, name="total")


@pytest.mark.backend_free
@pytest.mark.parametrize("losses", ["mse", None, 3, keras.losses.Huber])
def test_neither_a_dict_nor_a_list(losses):
    with raises(ValueError, "`losses`", "a dict from name to loss, or a list", "Received: "):
        cl.CompositeLoss(losses)


@pytest.mark.backend_free
@pytest.mark.parametrize("child", [3.0, None, {"a": "mse"}, np.zeros(2)], ids=repr)
@pytest.mark.parametrize("make", [lambda child: [child], lambda child: {"bad": child}])
def test_not_a_loss(child, make):
    wanted = "must be a keras.losses.Loss, a string, or a function f(y_true, y_pred)"
    with raises(ValueError, wanted, f"Received: {child!r} of type {type(child).__name__}"):
        cl.CompositeLoss(make(child))


@pytest.mark.backend_free
@pytest.mark.parametrize("cls", [keras.losses.Huber, cl.losses.AsymmetricError])
@pytest.mark.parametrize("make", [lambda child: [child], lambda child: {"bad": child}])
def test_a_class_instead_of_a_loss(cls, make):
    with raises(ValueError, f"create it first: {cls.__name__}()", f"Received: {cls!r}"):
        cl.CompositeLoss(make(cls))


@pytest.mark.backend_free
@pytest.mark.parametrize("make", [lambda child: [child], lambda child: {"bad": child}])
def test_an_unknown_string(make):
    with raises(ValueError, "'total'", "keras.losses.get", "for example 'mse'", "Received: 'msee'"):
        cl.CompositeLoss(make("msee"), name="total")


@pytest.mark.backend_free
def test_a_bad_component_of_a_dict_is_named():
    with raises(ValueError, "Component 'under' of 'total'"):
        cl.CompositeLoss({"mse": "mse", "under": "nope"}, name="total")


# Weights.

NOT_WEIGHTS = [float("nan"), float("inf"), -float("inf"), True, "0.5", None, [1.0], 1j]


@pytest.mark.parametrize("weight", NOT_WEIGHTS, ids=repr)
def test_a_weight_that_is_no_finite_number(weight):
    said = ("component 'mae'", "finite number", f"Received: {weight!r}")
    with raises(ValueError, *said):
        cl.CompositeLoss(["mse", "mae"], weights={"mae": weight})
    with raises(ValueError, *said):
        cl.CompositeLoss(["mse", "mae"], weights=[1.0, weight])
    loss = cl.CompositeLoss(["mse", "mae"], weights=[2.0, 3.0])
    with raises(ValueError, *said):
        loss.set_weight("mae", weight)
    assert loss.weights == {"mse": 2.0, "mae": 3.0}


@pytest.mark.backend_free
@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], []])
def test_a_wrong_number_of_weights(weights):
    said = "one number for each of its 2 components ['mse', 'mae']"
    with raises(ValueError, "'total'", said, f"Received: {len(weights)} weights"):
        cl.CompositeLoss(["mse", "mae"], weights=weights, name="total")


@pytest.mark.backend_free
def test_a_weight_for_an_unknown_component():
    with raises(ValueError, "'total'", "['mse', 'mae']", "Received: 'mea'"):
        cl.CompositeLoss(["mse", "mae"], weights={"mea": 1.0}, name="total")


@pytest.mark.backend_free
@pytest.mark.parametrize("weights", [0.5, "mse", {1.0, 2.0}], ids=repr)
def test_weights_that_are_neither_dict_nor_list(weights):
    with raises(ValueError, "`weights`", "a dict", "a list", f"Received: {weights!r}"):
        cl.CompositeLoss(["mse", "mae"], weights=weights)


@pytest.mark.parametrize("name", ["mea", "mse/a", "mse/", "inner/c", "/mse", "", None, 0])
def test_set_weight_of_an_unknown_component(name):
    inner = cl.CompositeLoss({"a": "mse", "b": "mae"})
    loss = cl.CompositeLoss({"mse": "mse", "inner": inner}, name="total")
    known = "'mse', 'inner', 'inner/a', 'inner/b'"
    with raises(ValueError, "'total' has no component", known, f"Received: {name!r}"):
        loss.set_weight(name, 2.0)
    assert loss.weights == {"mse": 1.0, "inner": 1.0}
    assert np.isfinite(value(loss, Y_TRUE, Y_PRED))


# Reduction and weighting.


@pytest.mark.backend_free
@pytest.mark.parametrize("reduction", ["average", "SUM", 1, False, ["sum"]])
def test_an_unknown_reduction(reduction):
    allowed = [repr(r) for r in ("per_component", *REDUCTIONS, None)]
    with raises(ValueError, "`reduction`", *allowed, f"Received: {reduction!r}"):
        cl.CompositeLoss(["mse"], reduction=reduction)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["adaptive", 0.5, cl.weightings.Average, ["mse"]], ids=repr)
def test_a_weighting_is_a_rule(bad):
    with raises(ValueError, "`weighting` of 'total'", "cl.weightings", "Received: "):
        cl.CompositeLoss(["mse"], weighting=bad, name="total")


# Predictions and targets.


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("loss", [cl.CompositeLoss(["mse"]), cl.losses.UnderestimationPenalty()])
def test_predictions_without_a_gradient(loss, dtype):
    said = (
        "`y_pred` must be floating point",
        "keras.ops.cast",
        f"Received: y_pred of dtype {dtype}",
    )
    with raises(ValueError, *said, "shape (4, 1)"):
        loss(np.ones((4, 1)), np.ones((4, 1), dtype))


EQUAL_SHAPES = {
    "string": "mse",
    "Keras": keras.losses.CategoricalCrossentropy(),
    "function of Keras": keras.losses.mean_absolute_error,
    "own": cl.losses.AsymmetricError(),
}
KINDS = {**EQUAL_SHAPES, "subclass": SquaredError(), "function": squared_error}


@pytest.mark.parametrize("true, pred", [((4,), (4, 4)), ((4, 1), (4, 3)), ((4, 4, 2), (4, 4))])
@pytest.mark.parametrize("child", EQUAL_SHAPES.values(), ids=EQUAL_SHAPES)
def test_targets_that_would_be_broadcast(child, true, pred):
    said = ("Component 'child'", "broadcast", f"Give targets of shape {pred}")
    received = f"Received: y_true of shape {true} and y_pred of shape {pred}"
    with raises(ValueError, *said, received):
        cl.CompositeLoss({"child": child})(uniform(*true), uniform(*pred))


@pytest.mark.parametrize(
    "true, pred", [((4, 10, 10), (4, 100)), ((4, 5, 4), (4, 4, 5)), ((4, 6), (4, 2, 3))]
)
@pytest.mark.parametrize("child", KINDS.values(), ids=KINDS)
def test_the_right_number_of_elements_in_another_shape(child, true, pred):
    said = ("'child'", "right number of elements", f"keras.layers.Reshape({true[1:]})")
    received = f"Received: y_true of shape {true} and y_pred of shape {pred}"
    with raises(ValueError, *said, received):
        cl.CompositeLoss({"child": child})(uniform(*true), uniform(*pred))


def test_reshape_is_the_cure_it_is_said_to_be():
    y_pred = keras.layers.Reshape((10, 10))(uniform(4, 100))
    assert np.isfinite(value(cl.CompositeLoss(["mse"]), uniform(4, 10, 10), y_pred))


# What a component returns.


@pytest.mark.parametrize("reduction", ["per_component", *REDUCTIONS])
def test_values_that_do_not_begin_with_the_batch_axis(reduction):
    loss = cl.CompositeLoss(
        {"mse": "mse", "first": lambda t, p: ops.mean(ops.square(t - p), axis=0)},
        reduction=reduction,
    )
    said = ("Component 'first'", "begin with the batch axis", "(4, ...)", "axis=-1")
    with raises(ValueError, *said, "Received: values of shape (3, 2)"):
        loss(Y_TRUE, Y_PRED)


def broken(y_true, y_pred):
    raise KeyError("the table of the user")


@pytest.mark.parametrize("nested", [False, True])
def test_an_error_inside_a_component_names_it(nested):
    child = cl.CompositeLoss({"inner": broken}) if nested else broken
    said = ["the table of the user", "'mine/inner'" if nested else "'mine'"]
    with raises(KeyError, *said):
        cl.CompositeLoss({"mse": "mse", "mine": child})(Y_TRUE, Y_PRED)


@pytest.mark.parametrize("child", [BatchScalar(), lambda t, p: ops.mean(ops.square(t - p))])
@pytest.mark.parametrize("reduction", ["none", None])
def test_a_batch_scalar_cannot_be_had_per_sample(child, reduction):
    loss = cl.CompositeLoss({"mse": "mse", "scalar": child}, reduction=reduction)
    with raises(ValueError, "'scalar'", "per sample", "Received: values of shape ()"):
        loss(Y_TRUE, Y_PRED)


@pytest.mark.backend_free
def test_children_with_and_without_reduction():
    children = {"a": keras.losses.Huber(reduction="none"), "b": "mse", "c": SquaredError()}
    with raises(ValueError, "['a']", "'total'", "reduction='none'", "Received: losses="):
        cl.CompositeLoss(children, name="total")
