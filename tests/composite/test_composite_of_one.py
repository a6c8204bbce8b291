"""A composite of one is its child: every loss and function of Keras against Keras's own call.

Every reduction, with masks of the predictions, masks that a loss puts on its values, both, weights
of every shape, dtypes and whole numbers. Where a comparison needs other arguments than Keras is
given, the comment says what Keras does with them.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.names import snake_case
from tests.composite.children import KERAS_CHILDREN, REDUCTIONS, SCALAR_CHILDREN, uniform, value
from tests.masks import masked

pytestmark = pytest.mark.depends_on_version

ROWS_ONLY = ("CTC", "Circle", "Dice", "Tversky")  # they have no steps, or no values of steps
FROM_FUNCTION = keras.losses.MeanSquaredError.__bases__[0]
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def two_steps(array):
    """A batch of 4 as 4 sequences of 2 steps."""
    return np.stack([array, array[[1, 2, 3, 0]]], axis=1)


DATA = {name: (child.y_true, child.y_pred) for name, child in KERAS_CHILDREN.items()}
DATA |= {
    f"{name}, steps": tuple(map(two_steps, DATA[name]))
    for name in KERAS_CHILDREN
    if name not in ROWS_ONLY
}
MAKE = {name: child.make for name, child in KERAS_CHILDREN.items()}


def make(name, **kwargs):
    return MAKE[name.split(",")[0]](**kwargs)


def of_function(name, **kwargs):
    """The loss that Keras makes of the function that belongs to a class; None if it has none."""
    function = getattr(keras.losses, snake_case(name.split(",")[0]), None)
    axis = {"axis": 1} if name in SCALAR_CHILDREN else {}
    try:
        inspect.signature(function).bind("y_true", "y_pred")
    except TypeError:  # None, or one that needs a third argument
        return None
    return FROM_FUNCTION(function, **axis, **kwargs)


every_data = pytest.mark.parametrize("name", DATA)


def expected_of(child, y_true, y_pred, mask, weight, reduction):
    """Keras's own result, from weights that are broadcast to the shape of the values."""
    shape = tuple(value(child("none"), y_true, y_pred).shape)
    is_masked = mask is not None or isinstance(child("none"), keras.losses.Circle)
    if weight is not None and (reduction == "mean_with_sample_weight" or is_masked):
        # Without it Keras would divide by the sum of the weights as they are given, and count a
        # weight of shape (4, 1) once, although it acts on two steps. With a mask of shape (4, 2)
        # such weights are an error on torch.
        weight = np.broadcast_to(np.reshape(weight, fitted(weight, shape)), shape)
    elif weight is not None:
        weight = np.reshape(weight, fitted(weight, shape))  # Keras takes (4,) for columns
    p = y_pred if mask is None else masked(y_pred, mask)
    found = value(child(reduction), y_true, p, weight)
    # Imposed "none" gives one number for each sample: the mean of Keras's values, masked ones as 0.
    return found.reshape(len(found), -1).mean(axis=1) if reduction == "none" else found


def fitted(weight, shape):
    """The shape of a weight for values of `shape`, from the left."""
    size = np.shape(weight)
    while len(size) > len(shape) and size[-1] == 1:
        size = size[:-1]
    return size + (1,) * (len(shape) - len(size))


def weights_for(shape):
    """Weights of every shape that fits values of `shape`."""
    column = np.array([2.0, 0.0, 0.5, 1.0], "float32")
    shapes = [column, column[:, None], np.float32(0.5), uniform(1, seed=7)]
    if len(shape) > 1:
        full = uniform(*shape, seed=8) * (uniform(*shape, seed=9) > 0.4)
        shapes += [full, full[..., None], full[:1]]
    return [None, *shapes]


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def compare(child, data, reduction, masks=(None,)):
    """The child's own reduction, and the same imposed on it, with weights of every shape."""
    shape = tuple(value(child("none"), *data).shape)
    own = cl.CompositeLoss({"a": child(reduction)})
    imposed = cl.CompositeLoss({"a": child("sum")}, reduction=reduction)
    nested = cl.CompositeLoss({"a": cl.CompositeLoss({"b": child(reduction)})})
    for mask in masks:
        for weight in weights_for(shape):
            expected = expected_of(child, *data, mask, weight, reduction)
            y_pred = data[1] if mask is None else masked(data[1], mask)
            for loss in (own, imposed, nested):
                close(value(loss, data[0], y_pred, weight), expected)


def masks_of(shape):
    """No mask, a mask of samples, and a mask of values in which one sample counts nothing."""
    some = uniform(*shape, seed=5) > 0.4
    some[2] = False
    return [None, some] if len(shape) < 2 else [None, some, np.ones(shape, bool)]


@every_reduction
@every_data
def test_every_class_of_keras(name, reduction):
    shape = tuple(value(make(name, reduction="none"), *DATA[name]).shape)
    compare(lambda r: make(name, reduction=r), DATA[name], reduction, masks_of(shape))


@every_reduction
@every_data
def test_every_function_of_keras(name, reduction):
    """A function in a list is what Keras makes of it in `compile`."""
    if of_function(name) is None:
        pytest.skip("Keras has no function of this name that takes targets and predictions")
    data, function = DATA[name], of_function(name).fn
    if name in SCALAR_CHILDREN:  # a function is given no axis
        loss = cl.CompositeLoss([function], reduction="sum")
        close(value(loss, *data), value(FROM_FUNCTION(function), *data))
        return
    shape = tuple(value(of_function(name, reduction="none"), *data).shape)
    loss = cl.CompositeLoss([function], reduction=reduction)
    for mask in masks_of(shape):
        y_pred = data[1] if mask is None else masked(data[1], mask)
        for weight in weights_for(shape)[:3]:
            expected = expected_of(
                lambda r: of_function(name, reduction=r), *data, mask, weight, reduction
            )
            close(value(loss, data[0], y_pred, weight), expected)


# Masks that a loss puts on its values.


class FromTarget(keras.losses.Loss):
    """A user's loss that masks the rows whose target is below 0.3."""

    def call(self, y_true, y_pred):
        values = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return masked(values, ops.min(y_true, axis=-1) > 0.3)


LEAST = 0.13


class OfSamples(keras.losses.Loss):
    """The same for whole samples: the mask has fewer axes than the values."""

    def call(self, y_true, y_pred):
        values = ops.mean(ops.square(y_true - y_pred), axis=-1)
        keep = ops.min(y_true, axis=tuple(range(1, len(y_true.shape)))) > LEAST
        return masked(values, keep)


class OnOurBase(cl.losses.Loss):
    """The same, on the base of this library."""

    def call(self, y_true, y_pred):
        return FromTarget().call(y_true, y_pred)


LOGITS = uniform(4, 5, 3, seed=1, low=-2.0, high=2.0)
LABELS = np.random.default_rng(0).integers(0, 3, (4, 5))
VOID = np.where(uniform(4, 5, seed=2) > 0.6, 255, LABELS)
VOID[2] = 255  # a sample without a label
PARTNERLESS = np.array([0, 0, 1, 2])  # the last two have no partner


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255, **kwargs)


def sparse_in_front(**kwargs):
    """The classes along axis 1."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=255, axis=1, **kwargs
    )


OWN_MASK = {
    "ignore_class": (sparse, VOID, LOGITS),
    "ignore_class, axis 1": (sparse_in_front, VOID, np.moveaxis(LOGITS, -1, 1)),
    "ignore_class, a column": (sparse, VOID[:, :1], LOGITS[:, 0]),
    "Circle": (keras.losses.Circle, PARTNERLESS, DATA["Circle"][1]),
    "of a user": (FromTarget, uniform(4, 5, 3, seed=3), uniform(4, 5, 3, seed=4)),
    "on our base": (OnOurBase, uniform(4, 5, 3, seed=3), uniform(4, 5, 3, seed=4)),
    "all masked": (sparse, np.full((4, 5), 255), LOGITS),
}
own_mask = pytest.mark.parametrize("kind", OWN_MASK)


def keras_call(loss, *data):
    """What Keras's own `Loss.__call__` gives, also of a loss on our base."""
    return ops.convert_to_numpy(keras.losses.Loss.__call__(loss, *data))


@every_reduction
@own_mask
def test_the_mask_that_a_loss_puts_on_its_values(kind, reduction):
    make, y_true, y_pred = OWN_MASK[kind]
    if kind == "ignore_class, axis 1" and keras.backend.backend() != "torch":
        pytest.skip("Keras has another axis on torch alone")
    shape = tuple(keras_call(make(reduction="none"), y_true, y_pred).shape)
    own = cl.CompositeLoss({"a": make(reduction=reduction)})
    imposed = cl.CompositeLoss({"a": make(reduction="sum")}, reduction=reduction)
    for mask in masks_of(shape):
        seen = y_pred if mask is None else masked(y_pred, mask)
        for weight in weights_for(shape):
            fitted_weight = weight
            if weight is not None:
                fitted_weight = np.broadcast_to(np.reshape(weight, fitted(weight, shape)), shape)
            expected = keras_call(make(reduction=reduction), y_true, seen, fitted_weight)
            if reduction == "none":
                expected = expected.reshape(len(expected), -1).mean(axis=1)
            for loss in (own, imposed):
                close(value(loss, y_true, seen, weight), expected)


def test_three_valid_pixels_of_eight():
    y_true, logits = (
        np.array([[0, 1, 255, 255], [255, 255, 255, 2]]),
        np.zeros((2, 4, 3), "float32"),
    )
    close(value(cl.CompositeLoss([sparse()]), y_true, logits), np.log(3))


def test_a_mask_of_samples_on_values_of_steps():
    """Keras itself would match such a mask with the columns."""
    y_true, y_pred = uniform(4, 5, 3, seed=3), uniform(4, 5, 3, seed=4)
    keep = y_true.min(axis=(1, 2)) > LEAST
    assert keep.any() and not keep.all()
    expected = np.square(y_true - y_pred)[keep].mean()
    close(value(cl.CompositeLoss([OfSamples()]), y_true, y_pred), expected)


class Misfit(keras.losses.Loss):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def call(self, y_true, y_pred):
        return masked(ops.mean(ops.square(y_true - y_pred), axis=-1), np.ones(self.shape, bool))


@pytest.mark.parametrize("shape", [(3,), (4, 5, 3), (5, 4)])
def test_a_mask_of_another_shape_than_the_values_is_an_error(shape):
    loss = cl.CompositeLoss({"odd": Misfit(shape)})
    with pytest.raises(ValueError, match=r"'odd' puts on its values.*\(4, 5\).*Received: mask of"):
        loss(uniform(4, 5, 3), uniform(4, 5, 3, seed=1))


# Dtypes and whole numbers.

EPSILON = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-6}


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX without x64
@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("name", [name for name in DATA if "steps" not in name])
def test_every_dtype_of_a_loss(name, dtype):
    """Half precision is right to its own rounding: Keras also adds up in it, we in float32."""
    if name == "CTC" and dtype != "float32":
        pytest.skip("Keras has it in float32 alone")
    if name == "Circle" and dtype == "float16" and keras.backend.backend() == "torch":
        pytest.skip("torch has no logsumexp of float16 here")
    expected = ops.cast(make(name, dtype=dtype)(*DATA[name]), "float32")
    found = value(cl.CompositeLoss([make(name, dtype=dtype)]), *DATA[name])
    close(found, ops.convert_to_numpy(expected), rtol=EPSILON[dtype])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("name", [n for n in DATA if "steps" not in n and n != "CTC"])
def test_every_dtype_of_the_data(name, dtype):
    """Predictions that are whole numbers are cast, as Keras casts them."""
    y_true, y_pred = DATA[name]
    if np.dtype(dtype).kind != "f":
        y_pred = np.abs(np.round(3 * y_pred)) + (np.arange(y_pred.shape[-1]) == 0)
    y_pred = y_pred.astype(dtype)
    for weight in (None, np.array([2.0, 0.0, 0.5, 1.0], "float32")):
        expected = value(make(name), y_true, y_pred, weight)
        close(value(cl.CompositeLoss([make(name)]), y_true, y_pred, weight), expected)


def test_lists_of_whole_numbers():
    close(value(cl.CompositeLoss(["mse"]), [[1, 2], [3, 4]], [[1, 0], [3, 8]]), 5.0)


@pytest.mark.parametrize("loss", [cl.CompositeLoss(["mse"]), cl.losses.Expectile()])
def test_other_ways_to_give_numbers(loss):
    y_true, y_pred = np.array([1.0, 2.0]), np.array([1.0, 4.0])
    weight = np.array([1.0, 3.0])
    expected, weighted = value(loss, y_true, y_pred), value(loss, y_true, y_pred, weight)
    close(value(loss, list(y_true), list(y_pred)), expected)
    close(value(loss, y_true, y_pred, list(np.float32(weight))), weighted)
    close(value(loss, y_true, y_pred, [weight]), weighted)  # as Keras hands on `[weight]` in `fit`
    for dtype in ("uint8", "uint16", "uint32", "uint64", ">f4", ">i4"):
        close(value(loss, y_true.astype(dtype), y_pred.astype(dtype)), expected)


def test_sample_weights_in_a_list_in_a_plain_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    x, y, weight = uniform(4, 2), uniform(4, 1, seed=1), np.array([2.0, 0.0, 0.5, 1.0], "float32")
    found = []
    for loss in ("mse", cl.CompositeLoss(["mse"])):
        model.compile("sgd", loss=loss)
        found.append(model.evaluate(x, [y], sample_weight=[weight], verbose=0))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


WRAPPED = {
    "Scaled": cl.wrappers.Scaled("mse", 2.0),
    "OnSlice": cl.wrappers.OnSlice("mse", np.s_[..., :1]),
    "Masked": cl.wrappers.Masked("mse"),
    "PerChannel": cl.wrappers.PerChannel("mse", size=2),
    "PerElement": cl.wrappers.PerElement("mse", size=(4, 2)),
    "MultiScale": cl.wrappers.MultiScale("mse", scales=(1, 2)),
    "Activated": cl.wrappers.Activated("mse", "sigmoid"),
    "StopGradient": cl.wrappers.StopGradient("mse"),
    "PredictionOnly": cl.wrappers.PredictionOnly(lambda p: ops.mean(p, axis=-1)),
    "own": cl.losses.Charbonnier(),
    "function": lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred), axis=-1),
    "of the batch": lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred)),
}


@pytest.mark.filterwarnings("ignore:Component 'a' cannot honour")
@pytest.mark.parametrize("loss", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_whole_numbers_in_wrappers_and_functions(loss, dtype):
    y_true = uniform(4, 4, 2)
    whole = np.round(uniform(4, 4, 2, seed=1, high=3.0)).astype(dtype)
    loss = cl.CompositeLoss({"a": loss})
    for weight in (None, np.array([2.0, 0.0, 0.5, 1.0], "float32")):
        expected = value(loss, y_true, whole.astype("float32"), weight)
        close(value(loss, y_true, whole, weight), expected)


# A batch of no samples.


@every_reduction
@pytest.mark.parametrize("weighted", [False, True])
def test_an_empty_batch_is_0(weighted, reduction):
    """Keras returns an empty array."""
    scalar = lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred))  # noqa: E731
    children = {"mse": "mse", "own": cl.losses.Charbonnier()}
    if reduction != "none":
        children |= {"scalar": scalar} if not weighted else {}
    weight = np.zeros(0, "float32") if weighted else None
    for shape in ((0, 3), (0, 2, 3)):
        loss = cl.CompositeLoss(children, reduction=reduction)
        found = value(loss, np.zeros(shape, "float32"), np.zeros(shape, "float32"), weight)
        np.testing.assert_array_equal(found, np.zeros((0,) if reduction == "none" else ()))
        own = cl.CompositeLoss([keras.losses.Huber(reduction=reduction)])
        found = value(own, np.zeros(shape, "float32"), np.zeros(shape, "float32"), weight)
        np.testing.assert_array_equal(found, np.zeros((0,) if reduction == "none" else ()))
