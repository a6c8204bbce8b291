"""What is relied on of a known loss; a loss that is not known is given its batch unchanged."""

import functools
import inspect

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.compound import traits_of
from combined_losses._core.traits import Traits, keras_traits
from tests.composite.children import KERAS_CLASSES, WEIGHTS, uniform, value
from tests.contracts.registry import CASES
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises

pytestmark = pytest.mark.depends_on_version


def close(found, expected, rtol=2e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


# What is relied on.


def rmse(y_true, y_pred):
    """The root of a row's mean is no mean of its elements."""
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred), axis=-1))


class RowRMSE(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return rmse(y_true, y_pred)


class RowRMSEOfOurs(cl.losses.UnderestimationPenalty):
    """Derived from an elementwise loss of this library."""

    def call(self, y_true, y_pred):
        return rmse(y_true, y_pred)


class Further(RowRMSEOfOurs):
    """Inherits a `call` of which nothing is known, so nothing is known of this class either."""


@functools.wraps(keras.losses.mean_squared_error)
def wrapped(y_true, y_pred):
    return rmse(y_true, y_pred)


def renamed(y_true, y_pred):
    return rmse(y_true, y_pred)


renamed.__module__ = keras.losses.mean_squared_error.__module__
renamed.__name__ = renamed.__qualname__ = "mean_squared_error"


def squares(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


squares.elementwise = True


@functools.wraps(squares)
def copied(y_true, y_pred):
    """`functools.wraps` copies the attribute `elementwise`."""
    return ops.sqrt(squares(y_true, y_pred))


class Later(keras.losses.Loss):
    """A loss class that a later Keras may bring."""

    __module__ = "keras.src.losses.losses"

    def call(self, y_true, y_pred):
        return rmse(y_true, y_pred)


class LaterFromAFunction(keras.losses.MeanSquaredError.__bases__[0]):
    __module__ = "keras.src.losses.losses"

    def __init__(self, **kwargs):
        super().__init__(renamed, **kwargs)


def wrapped_in_keras():
    """A function of the user's in the class that Keras makes its losses from."""
    return keras.losses.MeanSquaredError.__bases__[0](rmse)


def with_a_call_of_its_own():
    loss = keras.losses.MeanSquaredError()
    loss.call = rmse
    return loss


UNKNOWN = {
    "an instance's call": with_a_call_of_its_own,
    "subclass of Keras's": RowRMSE,
    "subclass of ours": RowRMSEOfOurs,
    "subclass of that": Further,
    "functools.wraps": lambda: wrapped,
    "another's name": lambda: renamed,
    "a copied attribute": lambda: copied,
    "partial": lambda: functools.partial(rmse),
    "a later class": Later,
    "a later function": LaterFromAFunction,
    "a function in Keras's class": wrapped_in_keras,
}
unknown = pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)


@unknown
def test_nothing_is_relied_on_that_is_not_known(make):
    traits = traits_of(cl.CompositeLoss({"a": make()}).losses["a"])
    assert not traits.elementwise
    assert traits.neutral_target is None
    if not isinstance(make(), cl.losses.Loss):
        assert traits == Traits()


@pytest.mark.filterwarnings("ignore:Component 'a' counts only rows")
@unknown
def test_missing_labels_of_a_loss_that_is_not_known_leave_out_rows(make):
    """A mean of elements would give 2.0."""
    nan = np.nan
    y_true = np.array([[1, 3], [nan, nan], [2, 2]], "float32")
    y_pred = np.array([[0, 0], [0, 0], [0, 4]], "float32")
    loss = cl.CompositeLoss({"a": cl.wrappers.Masked(make())})
    expected = (np.sqrt(5) + 2) / 2
    close(value(loss, y_true, y_pred), expected)
    y_true[1, 0] = 7.0  # a row with one label is left out too
    close(value(loss, y_true, y_pred), expected)


def test_that_rows_are_left_out_is_said():
    loss = cl.wrappers.Masked(RowRMSE())
    y_true = np.array([[1, np.nan], [2, 2]], "float32")
    with pytest.warns(UserWarning, match="counts only rows whose labels are all there"):
        loss(y_true, np.zeros((2, 2), "float32"))


class Elementwise(cl.losses.Loss):
    """A user's abstract base, whose attribute describes the `call` of its subclasses."""

    elementwise = True


class Squares(Elementwise):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


class SameCall(keras.losses.MeanSquaredError):
    """Derived, with the `call` of Keras."""

    def __init__(self):
        super().__init__(name="same")


class OfKeras(keras.losses.Loss):
    elementwise = True

    def call(self, y_true, y_pred):
        return squares(y_true, y_pred)


def marked_after_wrapping():
    @functools.wraps(rmse)
    def function(y_true, y_pred):
        return squares(y_true, y_pred)

    function.elementwise = True
    return function


KNOWN = {
    "a base of the user's": Squares,
    "Keras's call": SameCall,
    "a class of the user's": OfKeras,
    "a function": lambda: squares,
    "a wrapped function": marked_after_wrapping,
    "Keras's function": lambda: keras.losses.mean_squared_error,
    "Keras's function in Keras's class": lambda: KERAS_CLASSES["MeanSquaredError"].__bases__[0](
        keras.losses.mean_squared_error
    ),
}


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN)
def test_what_a_loss_says_of_itself_is_relied_on(make):
    y_true = np.array([[1, np.nan], [2, 2]], "float32")
    loss = cl.wrappers.Masked(make())
    close(value(loss, y_true, np.zeros((2, 2), "float32")), 3.0)  # (1 + 4 + 4) / 3


@pytest.mark.backend_free
def test_every_loss_of_keras_in_the_table_is_there_by_its_own_function():
    """The class's `call` is Keras's, and the function is the one of its name."""
    for name, cls in KERAS_CLASSES.items():
        assert keras_traits(cls()) != Traits(), name
        derived = type(name, (cls,), {"call": lambda self, y_true, y_pred: y_pred})
        assert keras_traits(derived()) == Traits(), name


# What our own losses say of their rows, measured.

NEUTRAL = [case for case in CASES if getattr(case.loss, "neutral_target", None) is not None]
ELEMENTWISE = [case for case in CASES if getattr(case.loss, "elementwise", False)]


def takes_weights(case):
    return "sample_weight" in inspect.signature(case.loss.call).parameters


@pytest.mark.parametrize(
    "case",
    [case for case in [*NEUTRAL, *ELEMENTWISE] if not takes_weights(case)],
    ids=lambda case: case.loss.__name__,
)
def test_rows_that_are_said_not_to_see_each_other_do_not(case):
    """Other numbers in one sample change no value of the others."""
    loss = case.make(reduction="none")
    before = value(loss, case.y_true, case.y_pred)
    y_true, y_pred = case.y_true.copy(), case.y_pred.copy()
    y_true[1], y_pred[1] = y_true[2], y_pred[0]
    after = value(loss, y_true, y_pred)
    others = np.arange(len(before)) != 1
    np.testing.assert_array_equal(after[others], before[others])
    if before.ndim > 1:  # and rows of a sample do not see each other
        y_true, y_pred = case.y_true.copy(), case.y_pred.copy()
        y_true[:, 0], y_pred[:, 0] = y_true[:, 1], y_pred[:, 1]
        np.testing.assert_array_equal(value(loss, y_true, y_pred)[:, 1:], before[:, 1:])


# Losses that read other rows see them as they are.

RNG = np.random.default_rng(0)


def anchors(y_true, y_pred):
    """Divides by the number of positives."""
    entropy = keras.losses.binary_crossentropy(y_true[..., None], y_pred[..., None])
    return ops.sum(entropy, axis=-1) / ops.maximum(ops.sum(y_true), 1.0)


def smooth(y_true, y_pred):
    """Reads the next step; one value for each step."""
    following = ops.concatenate([y_pred[:, 1:], y_pred[:, -1:]], axis=1)
    return ops.mean(ops.square(y_pred - y_true) + ops.square(following - y_pred), axis=-1)


def frequencies(y_true, y_pred):
    """Weighs classes by how often they are in the batch."""
    share = ops.mean(y_true, axis=0, keepdims=True)
    return -ops.sum(y_true * ops.log(y_pred + 0.1) / (share + 0.1), axis=-1)


def in_batch_softmax(y_true, y_pred):
    """Every other sample is a negative."""
    scores = ops.matmul(y_pred, ops.transpose(y_true))
    return ops.logsumexp(scores, axis=-1) - ops.sum(y_pred * y_true, axis=-1)


def ranking(y_true, y_pred):
    """Lists with padding -1, which the loss knows; a list of scores each."""
    there = ops.cast(y_true >= 0, y_pred.dtype)
    scores = ops.where(y_true >= 0, y_pred, -1e9)
    gain = ops.maximum(y_true, 0.0) / ops.maximum(ops.sum(ops.maximum(y_true, 0.0)), 1.0)
    return -ops.sum(there * gain * ops.log(ops.softmax(scores, axis=-1) + 1e-6), axis=-1)


SHAPED = {
    "anchors": (anchors, (RNG.random((4, 30)) < 0.2).astype("float32"), uniform(4, 30, seed=2)),
    "smooth": (smooth, uniform(4, 6, 3, seed=3), uniform(4, 6, 3, seed=4)),
    "frequencies": (frequencies, np.eye(3, dtype="float32")[[0, 1, 1, 2]], uniform(4, 3, seed=5)),
    "in-batch softmax": (in_batch_softmax, uniform(4, 3, seed=6), uniform(4, 3, seed=7)),
    "ranking": (
        ranking,
        np.array([[3, 1, -1], [2, 0, 1], [1, -1, -1], [0, 4, 2]], "float32"),
        uniform(4, 3, seed=8),
    ),
}
STEPS = np.array([[1, 1, 1, 0, 0, 0], [1] * 6, [1, 1, 0, 0, 0, 0], [1] * 5 + [0]], "float32")


def as_function(function):
    return function


def as_keras_loss(function):
    class OfUser(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return function(y_true, y_pred)

    return OfUser()


def on_our_base(function):
    class OfUser(cl.losses.Loss):
        def call(self, y_true, y_pred):
            return function(y_true, y_pred)

    return OfUser()


def that_couples(function):
    class OfUser(cl.losses.Loss):
        couples_batch = True

        def call(self, y_true, y_pred):
            return function(y_true, y_pred)

    return OfUser()


def called_whole(function):
    class OfUser(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return super().__call__(y_true, y_pred, sample_weight)

        def call(self, y_true, y_pred):
            return function(y_true, y_pred)

    return OfUser()


KINDS = [as_function, as_keras_loss, on_our_base, that_couples, called_whole]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_shaped = pytest.mark.parametrize("name", SHAPED)


def plain(function, y_true, y_pred, weight):
    """Plain Keras: the values of the batch as it is, then the weights."""
    values = ops.convert_to_numpy(function(ops.array(y_true), ops.array(y_pred)))
    return np.mean(values * weight)


def weights_of(name):
    return STEPS if name == "smooth" else WEIGHTS


@every_kind
@every_shaped
def test_rows_of_weight_0_are_seen_as_they_are(name, kind):
    function, y_true, y_pred = SHAPED[name]
    expected = plain(function, y_true, y_pred, weights_of(name))
    loss = cl.CompositeLoss([kind(function)])
    close(value(loss, y_true, y_pred, weights_of(name)), expected)
    parts = loss.components(y_true, y_pred, weights_of(name))
    close(ops.convert_to_numpy(next(iter(parts.values()))), expected)


@pytest.mark.parametrize("kind", KINDS[:4])
@every_shaped
def test_masked_rows_are_seen_as_they_are(name, kind):
    function, y_true, y_pred = SHAPED[name]
    mask = weights_of(name) > 0
    values = ops.convert_to_numpy(function(ops.array(y_true), ops.array(y_pred)))
    loss = cl.CompositeLoss([kind(function)])
    close(value(loss, y_true, masked(y_pred, mask)), values[mask].mean())


@every_kind
@every_shaped
def test_what_does_not_count_has_no_gradient(name, kind):
    """The gradient of the others is the one that plain Keras gives."""
    function, y_true, y_pred = SHAPED[name]
    weight = weights_of(name)
    slope = gradient(lambda p: cl.CompositeLoss([kind(function)])(y_true, p, weight), y_pred.copy())
    weights = ops.convert_to_tensor(weight)
    expected = gradient(lambda p: ops.mean(function(ops.array(y_true), p) * weights), y_pred)
    close(
        slope,
        np.where(
            weight.reshape(*weight.shape, *[1] * (y_pred.ndim - weight.ndim)) == 0, 0.0, expected
        ),
        rtol=1e-5,
    )


@every_kind
@every_shaped
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["target", "prediction", "both"])
def test_what_is_not_finite_does_no_harm_there(name, kind, bad, where):
    function, y_true, y_pred = SHAPED[name]
    weight, y_true, y_pred = weights_of(name), y_true.copy(), y_pred.copy()
    if where != "prediction":
        y_true[weight == 0] = bad
    if where != "target":
        y_pred[weight == 0] = bad
    loss = cl.CompositeLoss([kind(function)])
    assert np.isfinite(value(loss, y_true, y_pred, weight))
    slope = gradient(lambda p: loss(y_true, p, weight), y_pred)
    assert np.all(np.isfinite(slope))
    assert np.all(slope[weight == 0] == 0.0)


def test_what_is_not_finite_and_counts_is_seen():
    function, y_true, y_pred = SHAPED["smooth"]
    y_pred = y_pred.copy()
    y_pred[0, 0] = np.nan
    assert np.isnan(value(cl.CompositeLoss([function]), y_true, y_pred, STEPS))


class Rows(cl.losses.Loss):
    """Says that its rows do not influence each other."""

    neutral_target = 1.0

    def call(self, y_true, y_pred):
        seen_by_rows.append((ops.convert_to_numpy(y_true), ops.convert_to_numpy(y_pred)))
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


seen_by_rows: list = []


def test_a_class_attribute_tells_that_rows_do_not_see_each_other():
    seen_by_rows.clear()
    y_true, y_pred = uniform(4, 3), uniform(4, 3, seed=1)
    cl.CompositeLoss([Rows()])(y_true, y_pred, WEIGHTS)
    seen_true, seen_pred = seen_by_rows[-1]
    assert np.all(seen_true[1] == 1.0)
    assert np.all(seen_pred[1] == 0.5)
    np.testing.assert_array_equal(seen_true[[0, 2, 3]], y_true[[0, 2, 3]])


class Coupled(Rows):
    """Overrides `call`, so the attribute of its base class does not describe it."""

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) / ops.sum(y_true)


def test_the_attribute_is_not_inherited_by_another_call():
    y_true, y_pred = uniform(4, 3), uniform(4, 3, seed=1)
    values = np.square(y_true - y_pred).mean(axis=-1) / y_true.sum()
    close(value(cl.CompositeLoss([Coupled()]), y_true, y_pred, WEIGHTS), np.mean(values * WEIGHTS))


@pytest.mark.parametrize("axis", [1, -1, 2])
@pytest.mark.parametrize("cls", ["CategoricalCrossentropy", "CosineSimilarity"])
def test_the_axis_of_the_classes_is_not_taken_for_one_of_the_weights(cls, axis):
    """There are as many classes as steps, so weights of steps fit both axes by their size."""
    child = getattr(keras.losses, cls)(axis=axis)
    y_true, y_pred = uniform(4, 3, 3, seed=1), uniform(4, 3, 3, seed=2)
    weight = (uniform(4, 3, seed=3) > 0.5).astype("float32")
    where = np.expand_dims(weight, axis) == 0
    bad = np.where(np.broadcast_to(where, y_true.shape), np.nan, y_true).astype("float32")
    expected = value(child, y_true, y_pred, weight)
    close(value(cl.CompositeLoss([child]), y_true, y_pred, weight), expected)
    close(value(cl.CompositeLoss([child]), bad, y_pred, weight), expected)
    slope = gradient(lambda p: cl.CompositeLoss([child])(bad, p, weight), y_pred)
    close(slope, gradient(lambda p: child(y_true, p, weight), y_pred), rtol=1e-4)


@pytest.mark.parametrize("cls", ["CategoricalCrossentropy", "CosineSimilarity"])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 3), (4, 3, 3, 1), (4, 1, 3)])
def test_the_axis_of_the_classes_in_images(cls, shape):
    """There are as many classes as rows and columns, so weights fit all axes by their size."""
    child = getattr(keras.losses, cls)(axis=1)
    y_true, y_pred = uniform(4, 3, 3, 3, seed=1), uniform(4, 3, 3, 3, seed=2)
    weight = (uniform(*shape, seed=3) > 0.5).astype("float32")
    size = shape[:3] + (1,) * (3 - len(shape[:3]))
    full = np.broadcast_to(weight.reshape(size), (4, 3, 3))
    bad = np.where(np.expand_dims(full, 1) == 0, np.nan, y_true).astype("float32")
    expected = value(child, y_true, y_pred, full)
    close(value(cl.CompositeLoss([child]), bad, y_pred, weight), expected)
    slope = gradient(lambda p: cl.CompositeLoss([child])(bad, p, weight), y_pred)
    close(slope, gradient(lambda p: child(y_true, p, full), y_pred), rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras has it on torch alone")
@pytest.mark.parametrize("ignore_class", [None, 2])
def test_the_axis_of_sparse_classes(ignore_class):
    child = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, axis=1, ignore_class=ignore_class
    )
    labels, logits = RNG.integers(0, 3, (4, 3, 3)), uniform(4, 3, 3, 3)
    for shape in [(4,), (4, 3), (4, 3, 3)]:
        weight = (uniform(*shape, seed=3) > 0.5).astype("float32")
        full = np.broadcast_to(weight.reshape(shape + (1,) * (3 - len(shape))), (4, 3, 3)).copy()
        bad = np.where(full == 0, np.where(labels == ignore_class, labels, -9), labels)
        expected = value(child, labels, logits, full)
        close(value(cl.CompositeLoss([child]), bad, logits, weight), expected)


def test_a_mask_of_ones_own_beside_labels_that_are_no_classes():
    """A row of weight 0 may hold any label; one that is ignored stays ignored."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    labels, logits = np.array([0, -7, 255, 2]), uniform(4, 3)
    weight = np.array([1.0, 0.0, 0.0, 2.0], "float32")
    expected = value(loss, np.array([0, 1, 255, 2]), logits, weight)
    close(value(cl.CompositeLoss([loss]), labels, logits, weight), expected)


def test_an_error_inside_a_loss_still_names_it():
    with raises(ValueError, "'odd'", "begin with the batch axis"):
        cl.CompositeLoss({"odd": lambda t, p: ops.mean(p, axis=0)})(
            uniform(4, 3), uniform(4, 3), WEIGHTS
        )
