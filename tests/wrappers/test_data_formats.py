"""`data_format` of wrappers, and of losses in them: channels first are channels last, moved."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.losses import BinaryFocal, CategoricalFocal, Dice, SparseCategoricalFocal
from combined_losses.wrappers import (
    Activated,
    ClassWeighted,
    Masked,
    MultiScale,
    Normalized,
    OneHot,
    OnSlice,
    PerChannel,
    PerElement,
    Scaled,
    StopGradient,
)
from tests.composite.children import value
from tests.contracts.test_data_formats import (
    check_alike,
    first,
    keras_setting,
    outcome,
    reloaded,
    weight_of,
)
from tests.messages import raises

SHAPE = (4, 8, 5, 3)
RANK = len(SHAPE)
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, 3, SHAPE[:-1])
MASKS = (RANDOM.random(SHAPE) > 0.5).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[IDS]
P = RANDOM.dirichlet(np.ones(3), SHAPE[:-1]).astype("float32")
WITH_HOLES = np.where(RANDOM.random(SHAPE) < 0.2, np.nan, MASKS).astype("float32")
IMPORTANCE = RANDOM.uniform(0.5, 2.0, SHAPE[1:])
KEPT = RANDOM.random(SHAPE[1:]) > 0.3
VOID_IDS = np.where(RANDOM.random(IDS.shape) < 0.2, 255, IDS)


@keras.saving.register_keras_serializable("tests_data_formats")
def softmax_of_the_data(x):
    """A user's activation, which knows where the channels of the data are."""
    return ops.softmax(x, axis=1 if x.shape[1] == 3 else -1)


@keras.saving.register_keras_serializable("tests_data_formats")
def of_green(y_true, y_pred):
    """A user's loss, which knows where the channels of the data are."""
    axis = 1 if y_pred.shape[1] == 3 else -1
    return ops.abs(ops.take(y_true, 1, axis=axis) - ops.take(y_pred, 1, axis=axis))


@keras.saving.register_keras_serializable("tests_data_formats")
def at_least_half(y_true):
    return y_true >= 0.5


# What the data format is given to: `make(f)` for losses, or `make(None)` where Keras's setting says
# it. Each with its targets.
WRAPPED = {
    "masked dice": (lambda f: Masked(Dice(data_format=f)), WITH_HOLES),
    "masked focal": (lambda f: Masked(BinaryFocal(data_format=f)), WITH_HOLES),
    "masked classes": (lambda f: Masked(CategoricalFocal(data_format=f)), WITH_HOLES),
    "masked map": (
        lambda f: Masked(BinaryFocal(data_format=f), None, moved_sample(KEPT, f)),
        MASKS,
    ),
    "weighted classes": (
        lambda f: ClassWeighted(CategoricalFocal(data_format=f), [1.0, 2.0, 3.0]),
        ONE_HOT,
    ),
    "weighted ids": (
        lambda f: ClassWeighted(SparseCategoricalFocal(data_format=f), [1.0, 2.0, 3.0]),
        IDS,
    ),
    "weighted mse": (lambda f: ClassWeighted("mse", [1.0, 2.0, 3.0], data_format=f), ONE_HOT),
    "weighted ids of Keras": (
        lambda f: ClassWeighted("sparse_categorical_crossentropy", [1.0, 2.0, 3.0], data_format=f),
        IDS,
    ),
    "one-hot dice": (lambda f: OneHot(Dice(data_format=f), 3, 255), VOID_IDS),
    "one-hot composite": (
        lambda f: OneHot(cl.losses.dice_ce(data_format=f), 3, 255),
        VOID_IDS,
    ),
    "one-hot crossentropy": (
        lambda f: OneHot("categorical_crossentropy", 3, 255, data_format=f),
        VOID_IDS,
    ),
    "scales of mse": (lambda f: MultiScale("mse", (1, 2), data_format=f), MASKS),
    "scales of dice": (lambda f: MultiScale(Dice(data_format=f), (1, 2)), MASKS),
    "scales of a function": (lambda f: MultiScale(of_green, (1, 2), data_format=f), MASKS),
    "activated dice": (lambda f: Activated(Dice(data_format=f), "softmax"), ONE_HOT),
    "activated mse": (lambda f: Activated("mse", "softmax", data_format=f), ONE_HOT),
    "a user's activation": (lambda f: Activated(Dice(data_format=f), softmax_of_the_data), ONE_HOT),
    "channels of dice": (lambda f: PerChannel(Dice(data_format=f), weights=[1.0, 2.0, 0.0]), MASKS),
    "channels of mse": (lambda f: PerChannel("mse", size=3, data_format=f), MASKS),
    "channels of losses": (
        lambda f: PerChannel([Dice(data_format=f), "mae", BinaryFocal(data_format=f)]),
        MASKS,
    ),
    "importance": (
        lambda f: PerChannel("mae", weights=moved_sample(IMPORTANCE, f), data_format=f),
        MASKS,
    ),
    "elements": (lambda f: PerElement(BinaryFocal(data_format=f)), MASKS),
    "scaled": (lambda f: Scaled(BinaryFocal(data_format=f), moved_sample(IMPORTANCE, f)), MASKS),
    "slice": (lambda f: OnSlice(Dice(data_format=f), columns(f)), MASKS),
    "slice of focal": (lambda f: OnSlice(BinaryFocal(data_format=f), columns(f)), MASKS),
    "normalized": (lambda f: Normalized(CategoricalFocal(data_format=f)), ONE_HOT),
    "normalized ids": (lambda f: Normalized(SparseCategoricalFocal(data_format=f)), IDS),
    "normalized channels": (lambda f: Normalized(PerChannel(BinaryFocal(data_format=f))), MASKS),
    "normalized composite": (
        lambda f: Normalized(
            cl.CompositeLoss([CategoricalFocal(data_format=f), BinaryFocal(data_format=f)])
        ),
        ONE_HOT,
    ),
    "normalized by a function": (
        lambda f: Normalized(BinaryFocal(data_format=f), at_least_half),
        MASKS,
    ),
    "normalized by weights": (
        lambda f: Normalized(CategoricalFocal(data_format=f), "weights"),
        ONE_HOT,
    ),
    "stopped": (lambda f: StopGradient(Dice(data_format=f)), MASKS),
    "nested": (
        lambda f: OneHot(
            MultiScale(Masked(Activated(Dice(data_format=f), "softmax"), 0.5), (1, 2)), 3
        ),
        IDS,
    ),
    "composite": (
        lambda f: cl.CompositeLoss([Dice(data_format=f), CategoricalFocal(data_format=f), "mse"]),
        ONE_HOT,
    ),
}


def is_first(data_format):
    return (data_format or keras.config.image_data_format()) == "channels_first"


def moved_sample(array, data_format):
    return np.moveaxis(array, -1, 0) if is_first(data_format) else array


def columns(data_format):
    """The first two channels of some columns."""
    if is_first(data_format):
        return np.s_[:, :2, :, 1:4]
    return np.s_[:, :, 1:4, :2]


KINDS = ["no weights", "samples", "pixels", "entries"]


# What the setting decides is decided before the data are seen: one kind of weights shows it.
@pytest.mark.parametrize(
    "kind, how",
    [
        ("pixels", "given"),
        *(
            pytest.param(kind, how, marks=pytest.mark.thorough)
            for kind, how in (
                *((kind, "given") for kind in KINDS if kind != "pixels"),
                ("samples", "by Keras's setting"),
            )
        ),
    ],
)
@pytest.mark.parametrize("name", WRAPPED)
def test_the_channels_may_be_first(name, kind, how):
    make, y_true = WRAPPED[name]
    if name == "composite" and kind in ("pixels", "entries"):
        pytest.skip("Keras's mse knows of no channels")
    last, weight = make("channels_last"), weight_of(kind, P)
    if how == "given":
        loss = make("channels_first")
    else:
        with keras_setting("channels_first"):
            loss = make(None)
    data = [first(array, RANK) for array in (y_true, P, weight)]
    check_alike(outcome(last, y_true, P, weight), outcome(loss, *data), RANK)


@pytest.mark.parametrize("kind", ["pixels", pytest.param("no weights", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_mask_of_pixels(name, kind):
    make, y_true = WRAPPED[name]
    if name == "composite":
        pytest.skip("Keras's mse knows of no channels")
    mask, weight = np.random.default_rng(3).random(SHAPE[:-1]) > 0.4, weight_of(kind, P)
    expected = outcome(make("channels_last"), y_true, P, weight, mask)
    data = [first(array, RANK) for array in (y_true, P, weight)]
    check_alike(expected, outcome(make("channels_first"), *data, mask), RANK)


@pytest.mark.parametrize(
    "how, loaded",
    [
        ("by Keras's setting", "channels_last"),
        pytest.param("given", "channels_last", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("name", WRAPPED)
def test_a_config_keeps_the_format(name, how, loaded):
    make, y_true = WRAPPED[name]
    with keras_setting("channels_first"):
        loss = make(None if how != "given" else "channels_first")
    again = reloaded(loss, loaded)
    assert json.dumps(again.get_config()) == json.dumps(loss.get_config())
    data = first(y_true, RANK), first(P, RANK)
    np.testing.assert_array_equal(value(again, *data), value(loss, *data))


@pytest.mark.parametrize("ids", ["(B, H, W)", "(B, 1, H, W)"])
@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("how", ["given", "by Keras's setting"])
def test_ids_have_no_channels(ids, width, how):
    """Also where the last spatial size is 1, or that of the channels."""
    y_true, y_pred = VOID_IDS[:, :3, :width], P[:, :3, :width]
    fits = np.where(y_true == 255, 0, y_true)
    weights, pixels = [1.0, 2.0, 3.0], weight_of("pixels", y_pred)
    with keras_setting("channels_first" if how != "given" else "channels_last"):
        f = None if how != "given" else "channels_first"
        pairs = [
            (ClassWeighted(SparseCategoricalFocal(data_format=f), weights), fits),
            (ClassWeighted("sparse_categorical_crossentropy", weights, data_format=f), fits),
            (SparseCategoricalFocal(data_format=f), fits),
            (OneHot(Dice(data_format=f), 3, 255), y_true),
            (OneHot("categorical_crossentropy", 3, 255, data_format=f), y_true),
        ]
    for loss, target in pairs:
        config = keras.saving.serialize_keras_object(loss)
        config = json.loads(json.dumps(config).replace("channels_first", "channels_last"))
        last = keras.saving.deserialize_keras_object(config)
        given = np.expand_dims(target, 1) if ids == "(B, 1, H, W)" else target
        for weight in (None, pixels):
            expected = outcome(last, target, y_pred, weight)
            assert not isinstance(expected[0], type)
            check_alike(expected, outcome(loss, given, first(y_pred, RANK), weight), RANK)


@pytest.mark.parametrize("size", [3, 5], ids=["as many places as classes", "others"])
@pytest.mark.parametrize("kind", ["CategoricalCrossentropy", "CategoricalFocalCrossentropy"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: Activated(x, ops.relu)], ids=["", "view"])
def test_missing_classes_of_losses_of_keras_that_say_their_axis(size, kind, weighted, view):
    ids = np.random.default_rng(1).integers(0, 3, (4, size, 3))
    y, p = np.eye(3, dtype="float32")[ids], P[:, :size, :3]
    y[0, 0, 0, 1], y[1] = np.nan, np.nan
    weight = np.random.default_rng(2).uniform(0.5, 2, ids.shape) if weighted else None
    make = getattr(keras.losses, kind)
    expected = value(Masked(view(make())), y, p, weight)
    assert expected > 0
    given = Masked(view(make(axis=1)))
    for loss in (given, cl.CompositeLoss({"ce": given})):
        assert value(loss, first(y, RANK), first(p, RANK), weight) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize("width", [3, 5])
def test_losses_of_keras_say_their_axis(width):
    y_true, y_pred = IDS[:, :, :width], P[:, :, :width]
    weights = [1.0, 2.0, 3.0]
    loss = ClassWeighted(keras.losses.SparseCategoricalCrossentropy(axis=1), weights)
    assert loss.data_format == "channels_first"
    if keras.backend.backend() == "torch":  # elsewhere it takes the last axis alone
        last = ClassWeighted(keras.losses.SparseCategoricalCrossentropy(), weights)
        for weight in (None, weight_of("pixels", y_pred)):
            expected = outcome(last, y_true, y_pred, weight)
            check_alike(expected, outcome(loss, y_true, first(y_pred, RANK), weight), RANK)
    one_hot = OneHot(keras.losses.CategoricalCrossentropy(axis=1), 3)
    expected = outcome(OneHot("categorical_crossentropy", 3), y_true, y_pred)
    check_alike(expected, outcome(one_hot, y_true, first(y_pred, RANK)), RANK)


@pytest.mark.parametrize("name", ["channels of dice", "channels of mse", "importance"])
def test_an_axis_that_is_given_says_where_the_channels_are(name):
    """Whatever the format of the losses inside: they see single channels."""
    last = WRAPPED[name][0]("channels_last")
    for child in ("channels_last", "channels_first"):
        inner = last.loss if name != "channels of dice" else Dice(data_format=child)
        weights = last.weights
        if name == "importance":
            weights = np.moveaxis(weights, -1, 0)
        loss = PerChannel(inner, axis=1, weights=weights)
        expected = outcome(last, MASKS, P)
        check_alike(expected, outcome(loss, first(MASKS, RANK), first(P, RANK)), RANK)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda c, f: OneHot(c, 3, data_format=f),
        lambda c, f: MultiScale(c, data_format=f),
        lambda c, f: ClassWeighted(c, [1.0, 2.0], data_format=f),
        lambda c, f: Activated(c, "softmax", data_format=f),
        lambda c, f: PerChannel(c, data_format=f),
        lambda c, f: cl.wrappers.DeepSupervision(c, data_format=f),
    ],
)
def test_a_wrapper_and_its_loss_agree(wrap):
    child = Dice(data_format="channels_first")
    assert wrap(child, None).data_format == "channels_first"
    assert wrap(cl.CompositeLoss([child, "mse"]), None).data_format == "channels_first"
    with keras_setting("channels_first"):
        assert wrap(Dice(data_format="channels_last"), None).data_format == "channels_last"
        assert wrap("mse", None).data_format == "channels_first"
    with raises(ValueError, "one data format", "Dice 'channels_first'", "Received: data_format="):
        wrap(child, "channels_last")
    with raises(ValueError, "one data format", "Dice 'channels_first'", "Jaccard 'channels_last'"):
        wrap(cl.CompositeLoss([child, cl.losses.Jaccard(data_format="channels_last")]), None)


def test_an_error_says_how_its_shapes_are_to_be_read():
    loss = OneHot(Dice(data_format="channels_first"), 4)
    with raises(ValueError, "has 4 classes", "channels last; the data have them on axis 1"):
        loss(IDS, first(P, RANK))


@pytest.mark.parametrize("name", ["one-hot composite", "composite", "channels of dice"])
def test_it_trains(name):
    """With sample weights of pixels where the losses know them, in batches of several sizes."""
    make, y_true = WRAPPED[name]
    losses = []
    for data_format in ("channels_last", "channels_first"):
        keras.utils.set_random_seed(0)
        x = first(P, RANK) if data_format == "channels_first" else P
        y = first(y_true, RANK) if data_format == "channels_first" else y_true
        inputs = keras.Input(x.shape[1:])
        outputs = keras.layers.Rescaling(1.0)(inputs)
        axis = 1 if data_format == "channels_first" else -1
        outputs = keras.layers.BatchNormalization(axis=axis)(outputs)
        outputs = keras.layers.Activation("sigmoid")(outputs)
        model = cl.Model(inputs, outputs)
        model.compile("sgd", loss=make(data_format))
        history = model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history)
    assert losses[0].keys() == losses[1].keys()
    for key in losses[0]:
        np.testing.assert_allclose(losses[1][key], losses[0][key], rtol=1e-4)
