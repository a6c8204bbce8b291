"""What a user may get wrong, and what the message then says."""

import copy
import functools
import math
import pickle

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


NO_LOSSES = {
    "metric": (lambda: keras.metrics.MeanSquaredError(), "compile(metrics=...)"),
    "layer": (lambda: keras.layers.Dense(1), "write a function that calls it"),
    "model": (lambda: keras.Sequential(), "write a function that calls it"),
    "optimizer": (lambda: keras.optimizers.SGD(), "f(y_true, y_pred)"),
    "schedule": (lambda: cl.weightings.LinearRamp(5), "give it in `weights`"),
    "initializer": (lambda: keras.initializers.Zeros(), "f(y_true, y_pred)"),
    "rule": (lambda: cl.weightings.Average(), "f(y_true, y_pred)"),
    "callback": (lambda: keras.callbacks.EarlyStopping(), "f(y_true, y_pred)"),
    "the call of a metric": (
        lambda: keras.metrics.MeanSquaredError().__call__,
        "metric accumulates",
    ),
    "a partial metric": (lambda: functools.partial(keras.metrics.Mean()), "metric accumulates"),
}


@pytest.mark.parametrize("make, hint", NO_LOSSES.values(), ids=NO_LOSSES)
def test_what_can_be_called_and_is_no_loss(make, hint):
    child = make()
    for compose in (
        lambda: cl.CompositeLoss({"bad": child, "mse": "mse"}),
        lambda: cl.CompositeLoss(["mse", child]),
        lambda: cl.wrappers.Scaled(child, 2.0),
        lambda: cl.as_loss(child),
    ):
        with raises(ValueError, "must be a keras.losses.Loss, a string", hint, "Received: "):
            compose()
    with raises(ValueError, "Component 'bad' of 'total'"):
        cl.CompositeLoss({"bad": child}, name="total")


class ThreeArguments(keras.losses.Loss):
    def call(self, y_true, y_pred, importance):
        return y_pred * importance


FUNCTIONS = {
    "none": lambda: 0.0,
    "three": lambda y_true, y_pred, x: y_pred,
    "a keyword": lambda y_true, y_pred, *, x: y_pred,
    "call": ThreeArguments(),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("child", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_another_number_of_arguments(child):
    with raises(ValueError, "Component 'bad' of 'total'", "functools.partial", "Received: "):
        cl.CompositeLoss({"mse": "mse", "bad": child}, name="total")


def test_a_function_with_more_arguments_that_have_defaults_is_a_loss():
    for function in (
        lambda y_true, y_pred, scale=2.0: ops.mean(scale * ops.abs(y_true - y_pred), -1),
        lambda *arrays: ops.mean(2.0 * ops.abs(arrays[0] - arrays[1]), -1),
        functools.partial(lambda scale, t, p: ops.mean(scale * ops.abs(t - p), -1), 2.0),
    ):
        expected = 2 * np.mean(np.abs(Y_TRUE - Y_PRED))
        np.testing.assert_allclose(value(cl.CompositeLoss([function]), Y_TRUE, Y_PRED), expected)


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

NOT_WEIGHTS = [math.nan, math.inf, -math.inf, True, "0.5", b"1", None, [1.0], 1j, 1e39]


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
@pytest.mark.parametrize("exponent", [39, 400, 5000])
def test_a_weight_that_no_float32_can_hold(exponent):
    """Beyond 4,300 digits a whole number cannot even be shown."""
    with raises(ValueError, "component 'mse'", "the largest float32", "Received: "):
        cl.CompositeLoss(["mse"], weights=[10**exponent])
    with raises(ValueError, "component 'mse'", "the largest float32", "Received: "):
        cl.CompositeLoss(["mse"], weights=[-(10**exponent)])


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


@pytest.mark.parametrize(
    "name", ["mea", "mse/a", "mse/", "inner/c", "/mse", "", None, 0, ["mse"], {"mse": 1}, ("mse",)]
)
def test_set_weight_of_an_unknown_component(name):
    inner = cl.CompositeLoss({"a": "mse", "b": "mae"})
    loss = cl.CompositeLoss({"mse": "mse", "inner": inner}, name="total")
    known = "'mse', 'inner', 'inner/a' and 'inner/b'"
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


NOT_NUMBERS = {
    "strings": np.array([["a"], ["b"]]),
    "bytes": np.array([[b"a"], [b"b"]]),
    "objects": np.array([[1.0], [2.0]], object),
    "nothing in it": np.array([[None], [None]]),
    "complex": np.array([[1j], [2.0]]),
    "a list of strings": ["a", "b"],
}


@pytest.mark.parametrize("bad", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
@pytest.mark.parametrize("loss", [cl.CompositeLoss(["mse"]), cl.losses.UnderestimationPenalty()])
def test_arrays_that_hold_no_numbers(loss, bad):
    good = np.ones((2, 1), "float32")
    allowed = "an array of numbers: floats, whole numbers or booleans"
    for what, data in {
        "y_true": (bad, good),
        "y_pred": (good, bad),
        "sample_weight": (good, good, bad),
    }.items():
        with raises(ValueError, f"`{what}` of '{loss.name}'", allowed, f"Received: {what} of "):
            loss(*data)


@pytest.mark.parametrize("loss", [cl.CompositeLoss(["mse"]), cl.losses.UnderestimationPenalty()])
def test_predictions_that_are_not_there(loss):
    with raises(ValueError, f"`y_pred` of '{loss.name}'", "an array of numbers", "NoneType"):
        loss(np.ones((4, 1)), None)


SINGLE = {
    "composite": (cl.CompositeLoss(["mse"]), "'composite_loss'"),
    "wrapper": (cl.wrappers.Scaled("mse", 2.0, name="scaled"), "'scaled'"),
    "own": (cl.losses.UnderestimationPenalty(), "'underestimation_penalty'"),
}


@pytest.mark.parametrize("loss, name", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("several", [dict, list])
def test_sample_weights_of_several_outputs(loss, name, several):
    weight = {"a": np.ones(4)} if several is dict else [np.ones(4), np.ones(4)]
    with raises(ValueError, f"component {name}", "one array", f"Received: a {several.__name__}"):
        loss(np.ones((4, 1)), np.ones((4, 1)), weight)


@pytest.mark.parametrize("name", ["nope", ["mse"], None])
def test_the_weight_of_an_unknown_component(name):
    with raises(ValueError, "'total'", "'mse'", f"Received: {name!r}"):
        cl.CompositeLoss(["mse"], name="total").weight_of(name)


RAGGED = [[1.0], 1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: cl.wrappers.MultiScale("mse", scales=(1, 2), weights=RAGGED),
        lambda: cl.wrappers.DeepSupervision("mse", weights=RAGGED),
        lambda: cl.wrappers.ClassWeighted("mse", RAGGED),
        lambda: cl.wrappers.PerChannel("mse", size=2, weights=RAGGED),
        lambda: cl.wrappers.Scaled("mse", RAGGED),
        lambda: cl.weightings.Worst(weights=RAGGED),
    ],
)
def test_lists_of_several_lengths_are_no_numbers(make):
    with raises(ValueError, "finite", f"Received: {RAGGED!r}"):
        make()


@pytest.mark.parametrize("name", ["nope", "mse/x", "inner/x", "mse/", "", None, ["mse"]])
def test_the_value_of_an_unknown_component(name):
    loss = cl.CompositeLoss({"mse": "mse", "inner": cl.CompositeLoss({"a": "mae"})}, name="total")
    with raises(ValueError, "'total'", "'mse', 'inner' and 'inner/a'", f"Received: {name!r}"):
        loss.component(name, Y_TRUE, Y_PRED)


# What cannot be changed, and what can be changed to nothing sensible.


def test_the_losses_of_a_composite_are_read_only():
    loss = cl.CompositeLoss({"mse": "mse"}, name="total")
    with raises(AttributeError, "'total'", "make another CompositeLoss"):
        loss.losses = {"mae": "mae"}
    for change in (
        lambda: loss.losses.update(mae="mae"),
        lambda: loss.losses.pop("mse"),
        lambda: loss.losses.popitem(),
        lambda: loss.losses.setdefault("mae", "mae"),
        lambda: loss.losses.clear(),
        lambda: loss.losses.__ior__({"mae": "mae"}),
    ):
        with raises(TypeError, "'total'", "fixed when it is made", "Received: a change of "):
            change()
    with raises(TypeError, "'total'", "fixed", "Received: a change of 'loop'"):
        loss.losses["loop"] = loss  # would be a cycle
    with raises(TypeError, "'total'", "fixed", "Received: a change of 'mse'"):
        del loss.losses["mse"]
    assert dict(loss.losses).keys() == {"mse"} and loss.component_names == ("mse",)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_the_losses_of_a_composite_can_be_used_and_copied(copied):
    loss = copied(cl.CompositeLoss({"a": "mse", "b": "mae"}, weights=[1.0, 2.0]))
    again = cl.CompositeLoss(loss.losses, weights=loss.weights)
    more = cl.CompositeLoss(loss.losses | {"c": "mse"})
    assert again.names == ("a", "b") and more.names == ("a", "b", "c")
    assert cl.wrappers.PerChannel(loss.losses).component_names == ("a", "b")
    np.testing.assert_allclose(value(again, Y_TRUE, Y_PRED), value(loss, Y_TRUE, Y_PRED))
    with raises(TypeError, "fixed when it is made"):
        loss.losses["c"] = "mse"


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "wrapper", [cl.wrappers.Masked("mse"), cl.wrappers.PerChannel({"a": "mse", "b": "mae"})]
)
def test_the_loss_of_a_wrapper_is_read_only(wrapper):
    with raises(AttributeError, f"'{wrapper.name}'", "is fixed", "Received: loss="):
        wrapper.loss = wrapper


REDUCED = {
    "composite": lambda: (cl.CompositeLoss(["mse"]),) * 2,
    "child": lambda: ((child := keras.losses.MeanSquaredError()), cl.CompositeLoss([child])),
    "own": lambda: (cl.losses.UnderestimationPenalty(),) * 2,
    "wrapper": lambda: (cl.wrappers.Scaled("mse", 2.0),) * 2,
}


@pytest.mark.parametrize("make", REDUCED.values(), ids=REDUCED)
@pytest.mark.parametrize("bad", ["bogus", 3, ["sum"]])
def test_a_reduction_changed_to_an_unknown_one(make, bad):
    changed, loss = make()
    changed.reduction = bad
    with raises(ValueError, "`reduction` must be one of", f"Received: {bad!r}"):
        loss(Y_TRUE, Y_PRED)


@pytest.mark.backend_free
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_a_dtype_of_whole_numbers(dtype):
    """It would cut 0.81 to 0."""
    said = ("`dtype` of ", "floating-point", f"Received: dtype='{dtype}'")
    for make in (
        lambda: cl.CompositeLoss(["mse"], dtype=dtype),
        lambda: cl.CompositeLoss({"a": keras.losses.MeanSquaredError(dtype=dtype)}),
        lambda: cl.losses.UnderestimationPenalty(dtype=dtype),
        lambda: cl.wrappers.Scaled("mse", 2.0, dtype=dtype),
        lambda: cl.as_loss(keras.losses.MeanSquaredError(dtype=dtype)),
    ):
        with raises(ValueError, *said):
            make()


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
