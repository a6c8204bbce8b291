"""What a loss gets from the base class `cl.losses.Loss`: "add your own loss" in ten lines."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import REDUCTIONS, WEIGHTS, uniform, value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises


@keras.saving.register_keras_serializable("tests")
class Understock(cl.losses.Loss):
    """As the README writes one."""

    def __init__(self, cost=2.0, **kwargs):
        super().__init__(**kwargs)
        self.cost = cost

    def call(self, y_true, y_pred):
        return ops.mean(self.cost * ops.relu(y_true - y_pred), axis=-1)


class Elementwise(Understock):
    elementwise = True


class Label(cl.losses.Loss):
    """Targets are class labels, of another shape than the predictions."""

    same_shape = False

    def call(self, y_true, y_pred):
        hit = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype=y_pred.dtype)
        return -ops.log(ops.sum(hit * y_pred, axis=-1))


class Spread(cl.losses.Loss):
    """The samples of a batch see each other."""

    couples_batch = True

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_pred - ops.mean(y_pred, axis=0)), axis=-1)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


Y_TRUE, Y_PRED = uniform(4, 3, 2, seed=1), uniform(4, 3, 2, seed=2)
VALUES = 2 * np.maximum(Y_TRUE.astype("float64") - Y_PRED, 0).mean(axis=-1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_loss_alone_reduces_as_keras_does(reduction):
    """With one value for each sample, where Keras weighs as it should."""
    own, keras_own = Understock(reduction=reduction), plain_understock(reduction)
    step = Y_TRUE[:, 0], Y_PRED[:, 0]
    for weight in (None, WEIGHTS):
        close(value(own, *step, weight), value(keras_own, *step, weight))


def plain_understock(reduction):
    class Plain(keras.losses.Loss):
        call = Understock.call
        cost = 2.0

    return Plain(reduction=reduction)


def test_without_reduction_the_values_are_left_as_they_are():
    close(value(Understock(reduction="none"), Y_TRUE, Y_PRED), VALUES)
    close(value(Understock(reduction=None), Y_TRUE, Y_PRED, WEIGHTS), VALUES * WEIGHTS[:, None])


def test_a_mask_and_weights_reach_the_values():
    steps = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)
    close(value(Understock(), Y_TRUE, masked(Y_PRED, steps)), VALUES[steps].mean())
    weighted = (VALUES * WEIGHTS[:, None])[steps].mean()
    close(value(Understock(), Y_TRUE, masked(Y_PRED, steps), WEIGHTS), weighted)


@pytest.mark.parametrize("true, pred", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3, 1), (4, 3))])
def test_an_axis_of_length_1_is_aligned(true, pred):
    y_true, y_pred = uniform(*true, seed=1), uniform(*pred, seed=2)
    expected = 2 * np.maximum(y_true.ravel() - y_pred.ravel(), 0).mean()
    close(value(Understock(), y_true, y_pred), expected)


def test_numbers_without_a_last_axis_are_a_batch_of_elements():
    y_true, y_pred = uniform(4, seed=1), uniform(4, seed=2)
    values = 2 * np.maximum(y_true - y_pred, 0)
    close(value(Elementwise(reduction="none"), y_true, y_pred), values)
    close(value(Elementwise(), y_true, y_pred, WEIGHTS), np.mean(values * WEIGHTS))
    close(value(cl.CompositeLoss(["mse"]), y_true, y_pred, WEIGHTS), weighted_mse(y_true, y_pred))


def weighted_mse(y_true, y_pred):
    return np.mean(np.square(y_true - y_pred) * WEIGHTS)


@pytest.mark.parametrize("loss", [Understock(), cl.CompositeLoss([Understock()])])
def test_lists_of_numbers_are_arrays(loss):
    """As in the examples of Keras's own losses."""
    assert value(loss, [[3.0, 1.0]], [[1.0, 1.0]]) == 2.0
    assert value(loss, [[3.0], [1.0]], [[1.0], [0.5]], [0.5, 0.0]) == 1.0


def test_integer_targets_are_numbers():
    y_true = np.array([[3], [0], [2], [1]])
    y_pred = uniform(4, 1)
    close(value(Understock(), y_true, y_pred), 2 * np.maximum(y_true - y_pred, 0).mean())


def test_labels_have_a_shape_of_their_own():
    labels, y_pred = np.array([0, 2, 1, 1]), uniform(4, 3)
    values = -np.log(y_pred[np.arange(4), labels])
    close(value(Label(), labels, y_pred), values.mean())
    unlabelled = np.array([0, -1, 1, 1])
    close(value(Label(), unlabelled, y_pred, WEIGHTS), np.mean(values * WEIGHTS))
    assert np.all(np.isfinite(gradient(lambda p: Label()(unlabelled, p, WEIGHTS), y_pred)))


def test_samples_that_see_each_other_also_see_those_of_weight_0():
    """A weight says how much the value of a sample counts, not what the others see."""
    y_pred = uniform(4, 3)
    values = np.square(y_pred - y_pred.mean(axis=0)).mean(axis=1)
    close(value(Spread(), np.zeros((4, 3)), y_pred, WEIGHTS), np.mean(values * WEIGHTS))


class OfPixels(cl.losses.Loss):
    """One value for each sample, which weighs single pixels by itself."""

    has_channels = True

    def call(self, y_true, y_pred, sample_weight=None):
        error = ops.square(y_true - y_pred)
        weight = ops.ones_like(error) if sample_weight is None else sample_weight
        axes = tuple(range(1, len(error.shape)))
        return ops.sum(weight * error, axis=axes) / ops.sum(weight, axis=axes)


Y_IMAGE, P_IMAGE = uniform(4, 3, 2, 2, seed=3), uniform(4, 3, 2, 2, seed=4)
SQUARES = (Y_IMAGE - P_IMAGE) ** 2


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 3, 2, 1), (4, 3, 2, 2), (4, 1, 2)])
def test_weights_finer_than_the_values_act_inside(shape):
    weight = uniform(*shape, seed=5)
    full = np.broadcast_to(weight.reshape(*shape, *[1] * (4 - len(shape))), SQUARES.shape)
    expected = (full * SQUARES).sum(axis=(1, 2, 3)) / full.sum(axis=(1, 2, 3))
    close(value(OfPixels(reduction="none"), Y_IMAGE, P_IMAGE, weight), expected)
    composite = cl.CompositeLoss({"a": OfPixels()})
    close(value(composite, Y_IMAGE, P_IMAGE, weight), expected.mean())


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1, 1), ()])
def test_weights_of_samples_act_on_the_values(shape):
    weight = uniform(4, seed=6).reshape(shape) if shape else np.float32(2.0)
    expected = np.ravel(weight) * SQUARES.mean(axis=(1, 2, 3))
    close(value(OfPixels(reduction="none"), Y_IMAGE, P_IMAGE, weight), expected)


def test_a_mask_of_pixels_acts_inside_beside_weights_of_samples():
    mask = uniform(4, 3, 2, seed=7) > 0.5
    mask[:, 0, 0] = True
    y_true = np.where(mask[..., None], Y_IMAGE, np.nan)  # what does not count may be anything
    full = np.broadcast_to(mask[..., None], SQUARES.shape)
    expected = WEIGHTS * (full * SQUARES).sum(axis=(1, 2, 3)) / full.sum(axis=(1, 2, 3))
    loss = OfPixels(reduction="none")
    close(value(loss, y_true, masked(P_IMAGE, mask), WEIGHTS), expected)
    slope = gradient(lambda p: loss(y_true, masked(p, mask), WEIGHTS), P_IMAGE)
    assert np.all(np.isfinite(slope)) and np.all(slope[~mask] == 0)


def test_weights_that_do_not_fit_are_an_error():
    with raises(ValueError, "'of_pixels'", "from the left", "(4, 5)", "(4, 3, 2, 2)"):
        OfPixels()(Y_IMAGE, P_IMAGE, np.ones((4, 5), "float32"))


def test_an_axis_for_one_channel_is_added_not_taken_away():
    seen = []

    class Look(OfPixels):
        def call(self, y_true, y_pred, sample_weight=None):
            seen.append((tuple(y_true.shape), tuple(y_pred.shape)))
            return super().call(y_true, y_pred, sample_weight)

    for true, pred in (((4, 3, 2), (4, 3, 2, 1)), ((4, 3, 2, 1), (4, 3, 2))):
        Look()(np.ones(true, "float32"), np.ones(pred, "float32"))
        cl.wrappers.Masked(Look())(np.ones(true, "float32"), np.ones(pred, "float32"))
    assert seen == [((4, 3, 2, 1), (4, 3, 2, 1))] * 4


def test_weights_of_samples_reach_a_loss_whose_samples_see_each_other():
    class Centred(cl.losses.Loss):
        """Squared errors from which the mean error of the batch is taken."""

        couples_batch = True

        def call(self, y_true, y_pred, sample_weight=None):
            error = (y_true - y_pred)[:, 0]
            weight = ops.ones_like(error) if sample_weight is None else sample_weight
            return ops.square(error - ops.sum(weight * error) / ops.sum(weight))

    y_true, y_pred = uniform(4, 1, seed=8), uniform(4, 1, seed=9)
    error = (y_true - y_pred)[:, 0]
    loss = Centred(reduction="none")
    expected = WEIGHTS * (error - np.average(error, weights=WEIGHTS)) ** 2
    close(value(loss, y_true, y_pred, WEIGHTS), expected)
    close(value(loss, y_true, masked(y_pred, WEIGHTS > 0), WEIGHTS), expected)
    close(value(loss, y_true, y_pred, np.float32(2.0)), 2 * (error - error.mean()) ** 2)
    y_true[1] = np.nan  # of weight 0
    close(value(loss, y_true, y_pred, WEIGHTS), expected)


@pytest.mark.parametrize("casts", [True, False])
def test_targets_are_cast_unless_the_class_says_otherwise(casts):
    class Largest(cl.losses.Loss):
        same_shape = False
        casts_target = casts

        def call(self, y_true, y_pred):
            given.append(keras.backend.standardize_dtype(y_true.dtype))
            return y_pred[:, 0] + ops.cast(y_true % 2, y_pred.dtype)

    given, ids = [], np.array([16777217, 16777216], "int32")
    loss = Largest(reduction="none", dtype="float16")
    actual = value(loss, ids, np.zeros((2, 3), "float16"))
    close(actual, [0.0 if casts else 1.0, 0.0])
    assert given[0] == ("float32" if casts else "int32")
    weight = np.array([1.0, 0.0], "float32")
    close(value(loss, ids, np.zeros((2, 3), "float16"), weight), [0.0 if casts else 1.0, 0.0])


def test_a_batch_scalar_is_warned_of_by_name():
    class Total(cl.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred))

    with pytest.warns(UserWarning, match="'my_total' cannot honour the sample_weight"):
        actual = value(Total(name="my_total"), Y_TRUE, Y_PRED, WEIGHTS)
    close(actual, np.abs(Y_TRUE - Y_PRED).mean())


def test_what_would_be_broadcast_is_an_error():
    with raises(ValueError, "'understock'", "broadcast", "Received: y_true of shape (4, 1)"):
        Understock()(uniform(4, 1), uniform(4, 3))


def test_an_error_inside_call_names_the_loss():
    class Broken(cl.losses.Loss):
        def call(self, y_true, y_pred):
            raise RuntimeError("out of stock")

    with raises(RuntimeError, "out of stock", "'shop'"):
        Broken(name="shop")(Y_TRUE, Y_PRED)


def test_a_loss_with_a_call_of_its_own_is_called_whole():
    class Whole(Understock):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return 3 * super().__call__(y_true, y_pred, sample_weight)

    expected = 3 * np.mean(VALUES * WEIGHTS[:, None])
    close(value(cl.CompositeLoss([Whole()]), Y_TRUE, Y_PRED, WEIGHTS), expected)


def test_it_stands_in_a_plain_keras_model():
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=Understock(cost=3.0))
    close(model.evaluate(Y_PRED, Y_TRUE, sample_weight=WEIGHTS, verbose=0), weighted_understock())


def weighted_understock():
    return 1.5 * np.mean(VALUES * WEIGHTS[:, None])


# Configuration.


def reload(loss):
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    return keras.saving.deserialize_keras_object(json.loads(text))


@pytest.mark.backend_free
def test_the_config_comes_from_the_signature():
    loss = Understock(cost=7.0, reduction="sum", name="shop", dtype="float64")
    config = {"cost": 7.0, "reduction": "sum", "name": "shop", "dtype": "float64"}
    assert loss.get_config() == config
    assert reload(loss).get_config() == config


@keras.saving.register_keras_serializable("tests")
class Costly(cl.losses.UnderestimationPenalty):
    """Adds an argument to a loss and hands the others on."""

    def __init__(self, extra=1.0, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra

    def call(self, y_true, y_pred):
        return self.extra + super().call(y_true, y_pred)


def test_arguments_that_are_handed_on_come_back_too():
    loss = Costly(extra=0.5, weight=7.0)
    close(value(reload(loss), Y_TRUE, Y_PRED), value(loss, Y_TRUE, Y_PRED))


@keras.saving.register_keras_serializable("tests")
class Holder(cl.losses.Loss):
    """Its argument is a Keras object."""

    def __init__(self, inner, table=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner
        self.table = table

    def call(self, y_true, y_pred):
        return self.table["factor"] * self.inner.call(y_true, y_pred)


def test_an_argument_may_be_a_keras_object_or_a_dict():
    loss = Holder(keras.losses.MeanAbsoluteError(), table={"factor": 2.0, "unused": [1, 2]})
    loaded = reload(loss)
    assert type(loaded.inner) is keras.losses.MeanAbsoluteError
    assert loaded.table == loss.table
    close(value(loaded, Y_TRUE, Y_PRED), 2 * np.abs(Y_TRUE - Y_PRED).mean())


@pytest.mark.backend_free
def test_names_are_the_class_in_snake_case():
    assert Understock().name == "understock"
    assert cl.losses.AsymmetricError().name == cl.losses.AsymmetricError().name
    assert Understock(name="shop").name == "shop"


@pytest.mark.backend_free
def test_positional_arguments_of_the_base_are_not_the_subclass_s():
    loss = Understock(5.0)
    assert (loss.cost, loss.reduction) == (5.0, "sum_over_batch_size")


@pytest.mark.backend_free
@pytest.mark.parametrize("reduction", ["average", "per_component"])
def test_an_unknown_reduction_is_an_error(reduction):
    with pytest.raises(ValueError, match="reduction"):
        Understock(reduction=reduction)
