"""A composite of one loss of Keras is that loss, exactly."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.names import snake_case
from combined_losses._core.traits import keras_traits
from tests.composite.children import (
    KERAS_CHILDREN,
    KERAS_CLASSES,
    REDUCTIONS,
    SCALAR_CHILDREN,
    SCALAR_REDUCTIONS,
    WEIGHTS,
    WITHOUT_DATA,
    Y_PRED,
    Y_TRUE,
    log_ratio,
    squared_error,
    uniform,
    value,
)
from tests.gradients import gradient
from tests.messages import raises

pytestmark = pytest.mark.depends_on_version

weighted = pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["unweighted", "weighted"])
every_child = pytest.mark.parametrize("child", KERAS_CHILDREN.values(), ids=KERAS_CHILDREN)
scalar_child = pytest.mark.parametrize("child", SCALAR_CHILDREN.values(), ids=SCALAR_CHILDREN)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
imposed_reduction = pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.backend_free
def test_every_loss_of_keras_has_data():
    assert not WITHOUT_DATA, "add them to _DATA in children.py"


# What is relied on of each loss of Keras, measured.


def values_of(child, rows=slice(None)):
    loss = child.make(reduction="none")
    return value(loss, child.y_true[rows], child.y_pred[rows])


def values_of_elements(child):
    """Each element as a sample of its own, then their mean."""
    columns = child.y_true.reshape(-1, 1), child.y_pred.reshape(-1, 1)
    return value(child.make(reduction="none"), *columns).reshape(child.y_pred.shape).mean(axis=-1)


@pytest.mark.filterwarnings("ignore:In loss categorical:SyntaxWarning")  # of a single class
@every_child
def test_the_traits_of_every_loss_of_keras_are_right(child):
    traits = keras_traits(child.make())
    assert traits.same_shape == (child.y_true.shape == child.y_pred.shape)
    alone, together = values_of(child, slice(0, 1)), values_of(child)
    assert traits.couples_batch == (not np.allclose(alone[0], together[0], rtol=1e-4))
    if traits.same_shape:
        of_elements = np.allclose(values_of_elements(child), together, rtol=1e-4)
        assert traits.elementwise == of_elements


@pytest.mark.backend_free
def test_a_function_of_keras_has_the_traits_of_its_class():
    functions = {name: getattr(keras.losses, snake_case(name), None) for name in KERAS_CLASSES}
    found = {name: function for name, function in functions.items() if function is not None}
    assert len(found) > 15
    for name, function in found.items():
        assert keras_traits(function) == keras_traits(KERAS_CLASSES[name]()), name


# The composite.


@weighted
@every_reduction
@every_child
def test_composite_of_one_is_its_child(child, reduction, weight):
    data = child.y_true, child.y_pred, weight
    expected = value(child.make(reduction=reduction), *data)
    close(value(cl.CompositeLoss({"a": child.make(reduction=reduction)}), *data), expected)
    close(value(cl.CompositeLoss({"a": child.make()}, reduction=reduction), *data), expected)


def test_reduction_none_is_spelt_in_two_ways():
    child = KERAS_CHILDREN["MeanSquaredError"]
    expected = value(child.make(reduction=None), *data_of(child))
    close(value(cl.CompositeLoss([child.make(reduction=None)]), *data_of(child)), expected)
    close(value(cl.CompositeLoss([child.make()], reduction=None), *data_of(child)), expected)


@every_child
def test_its_gradient_is_that_of_its_child(child):
    def slope(loss):
        return gradient(lambda p: loss(child.y_true, p, WEIGHTS), child.y_pred)

    actual, expected = slope(cl.CompositeLoss([child.make()])), slope(child.make())
    # Predictions of weight 0 are not trained: they get no gradient, even if other rows read them,
    # as in Circle.
    expected = np.where((WEIGHTS == 0).reshape(4, *[1] * (expected.ndim - 1)), 0.0, expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@imposed_reduction
@scalar_child
def test_a_scalar_child_keeps_its_value(child, reduction):
    expected = value(child.make(), child.y_true, child.y_pred)
    close(value(cl.CompositeLoss([child.make(reduction=reduction)]), *data_of(child)), expected)
    close(value(cl.CompositeLoss([child.make()], reduction=reduction), *data_of(child)), expected)


def data_of(child):
    return child.y_true, child.y_pred


@scalar_child
def test_a_scalar_child_counts_unweighted_with_one_warning(child):
    loss = cl.CompositeLoss({"region": child.make()})
    with pytest.warns(UserWarning, match=r"'region' cannot honour the sample_weight.*\(4,\)"):
        actual = value(loss, *data_of(child), WEIGHTS)
    close(actual, value(child.make(), *data_of(child)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(*data_of(child), WEIGHTS)


@imposed_reduction
@scalar_child
def test_a_scalar_child_refuses_weights_under_an_imposed_reduction(child, reduction):
    loss = cl.CompositeLoss({"region": child.make()}, reduction=reduction)
    with raises(ValueError, "'region'", "sample_weight", "(4,)", "Return one value"):
        loss(*data_of(child), WEIGHTS)


@pytest.mark.parametrize("reduction", ["none", None])
@scalar_child
def test_a_scalar_child_cannot_be_had_per_sample(child, reduction):
    loss = cl.CompositeLoss({"region": child.make()}, reduction=reduction)
    with raises(ValueError, "'region'", "per sample", "Received: values of shape ()"):
        loss(*data_of(child))


def test_one_weight_for_the_batch_scales_a_scalar_child():
    dice = SCALAR_CHILDREN["Dice"]
    actual = value(cl.CompositeLoss([dice.make()]), *data_of(dice), np.float32(0.25))
    close(actual, 0.25 * value(dice.make(), *data_of(dice)))


@pytest.mark.parametrize(
    "child, name",
    [
        ("mse", "mean_squared_error"),
        ("MAE", "mean_absolute_error"),
        ("kl_divergence", "kl_divergence"),
        ("MeanSquaredError", "mean_squared_error"),
        (keras.losses.mean_absolute_percentage_error, "mean_absolute_percentage_error"),
        (squared_error, "mean_squared_error"),
        (lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred), -1), "mean_squared_error"),
    ],
)
@weighted
def test_a_string_or_function_is_the_mean_of_its_values(child, name, weight):
    y_true, y_pred = uniform(4, 3), uniform(4, 3, seed=1)
    values = ops.convert_to_numpy(getattr(keras.losses, name)(y_true, y_pred))
    expected = np.mean(values if weight is None else values * weight)
    close(value(cl.CompositeLoss({"a": child}), y_true, y_pred, weight), expected)
    close(value(cl.as_loss(child), y_true, y_pred, weight), expected)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX without x64
@weighted
def test_a_float64_child_computes_in_float64(weight):
    y_true = uniform(4, 3).astype("float64")
    y_pred = y_true + 1e-9 * uniform(4, 3, seed=1)  # in float32 there is no difference
    loss = cl.CompositeLoss([keras.losses.MeanSquaredError(dtype="float64")], dtype="float64")
    actual = value(loss, y_true, y_pred, weight)
    if keras.backend.backend() == "jax":
        assert actual.dtype == "float32"
        return
    values = np.mean((y_true - y_pred) ** 2, axis=-1)
    expected = np.mean(values if weight is None else values * weight)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert actual.dtype == "float64"


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX without x64
def test_the_total_of_float64_children_is_float64():
    y_true = uniform(4, 3).astype("float64")
    y_pred = y_true + 1e-9 * uniform(4, 3, seed=1)  # in float32 there is no difference
    kinds = [keras.losses.MeanSquaredError, keras.losses.MeanAbsoluteError]
    squared, error = np.mean((y_true - y_pred) ** 2), np.mean(np.abs(y_true - y_pred))
    for expected, count in ((squared, 1), (squared + error, 2)):
        losses = [kind(dtype="float64") for kind in kinds[:count]]
        loss = cl.CompositeLoss(losses)
        assert loss.get_config()["dtype"] == "float64"
        if keras.backend.backend() != "jax":
            found = value(loss, y_true, y_pred)
            assert found.dtype == "float64"
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_float64_child_adds_to_a_float32_total():
    y_true, y_pred = uniform(4, 3), uniform(4, 3, seed=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64")
        child = keras.losses.MeanSquaredError(dtype="float64")
        total = value(cl.CompositeLoss([child, "mae"]), y_true, y_pred)
    error = y_true - y_pred
    close(total, np.mean(error**2) + np.mean(np.abs(error)))
    assert total.dtype == "float32"


def test_a_float16_child_is_averaged_in_float32():
    """The sum of 100,000 values overflows float16 (65504); each value fits."""
    y_true, y_pred = np.zeros((100_000, 1), "float32"), np.full((100_000, 1), 1.5, "float32")
    loss = cl.CompositeLoss([keras.losses.MeanSquaredError(dtype="float16")])
    close(value(loss, y_true, y_pred), 1.5**2)


@every_reduction
def test_several_children_are_their_weighted_sum(reduction):
    child = KERAS_CHILDREN["MeanAbsoluteError"]
    data = child.y_true, child.y_pred, WEIGHTS
    kinds = [keras.losses.MeanAbsoluteError, keras.losses.Huber, keras.losses.Poisson]
    loss = cl.CompositeLoss([kind(reduction=reduction) for kind in kinds], weights=[0.5, -2.0, 3.0])
    expected = [value(kind(reduction=reduction), *data) for kind in kinds]
    close(value(loss, *data), 0.5 * expected[0] - 2.0 * expected[1] + 3.0 * expected[2])


def test_call_gives_the_total_of_each_sample():
    """`call` returns what Keras's base class would reduce."""
    loss = cl.CompositeLoss({"a": log_ratio, "b": "mse"}, weights={"b": 3.0})
    ratio = np.abs(np.log(Y_PRED) - np.log(Y_TRUE)).mean(axis=(1, 2))
    expected = ratio + 3.0 * np.square(Y_TRUE - Y_PRED).mean(axis=(1, 2))
    np.testing.assert_allclose(loss.call(ops.array(Y_TRUE), ops.array(Y_PRED)), expected, rtol=2e-6)
