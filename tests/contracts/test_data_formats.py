"""`data_format`: a loss gives the same numbers whether the channels come first or last."""

import contextlib
import json
import re

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.registry import CASES
from tests.contracts.test_contracts import parameters
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises

FORMATTED = [case for case in CASES if "data_format" in parameters(case.loss, without=())]
every_loss = pytest.mark.parametrize("case", FORMATTED, ids=lambda case: case.loss.__name__)


@contextlib.contextmanager
def keras_setting(data_format):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def images(case):
    """The data of a case with at least two spatial axes, of unlike sizes."""
    y_true, y_pred = case.y_true, case.y_pred
    for size in (2, 3):
        if y_pred.ndim < 4:
            y_true, y_pred = (
                np.stack([np.roll(array, shift, axis=0) for shift in range(size)], axis=1)
                for array in (y_true, y_pred)
            )
    return y_true, y_pred


def first(array, rank):
    """The channels of an array of `rank` on axis 1; others have none."""
    if array is None or array.ndim != rank:
        return array
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def weight_of(kind, y_pred, seed=5):
    """Sample weights, some of them 0, of samples, rows, pixels, or entries."""
    shape = {
        "no weights": None,
        "samples": y_pred.shape[:1],
        "rows": y_pred.shape[:2],
        "pixels": y_pred.shape[:-1],
        "pixels with an axis": (*y_pred.shape[:-1], 1),
        "entries": y_pred.shape,
    }[kind]
    if shape is None:
        return None
    random = np.random.default_rng(seed)
    return (random.uniform(0.5, 2.0, shape) * (random.random(shape) > 0.3)).astype("float32")


def outcome(loss, y_true, y_pred, weight=None, mask=None):
    """Value and gradient; in their place the type of the error, if there is one."""

    def total(p):
        return loss(y_true, p if mask is None else masked(p, mask), weight)

    try:
        return value(total, y_pred), gradient(total, y_pred)
    except RuntimeError as error:  # torch has no gradient of nll_loss for transposed arrays
        assert "grad_input must be contiguous" in str(error)
        return value(total, y_pred), None
    except (ValueError, TypeError, UserWarning) as error:
        return type(error), type(error)


def check_alike(last, first_, rank):
    if isinstance(last[0], type):
        assert first_ == last
        return
    np.testing.assert_allclose(first_[0], last[0], rtol=2e-5, atol=1e-6)
    if last[1] is None:
        return
    slope = np.moveaxis(first_[1], 1, -1) if first_[1].ndim == rank else first_[1]
    np.testing.assert_allclose(slope, last[1], rtol=2e-4, atol=1e-6)


KINDS = ["no weights", "samples", "rows", "pixels", "pixels with an axis", "entries"]


def make(case, **kwargs):
    """The loss with all arguments off their defaults, except `axes`, which the format changes."""
    return case.make(**{k: v for k, v in case.arguments.items() if k != "axes"}, **kwargs)


# What the setting decides is decided before the data are seen: one kind of weights shows it.
every_kind = pytest.mark.parametrize(
    "kind, how",
    [
        ("pixels", "given"),
        ("entries", "by Keras's setting"),
        *(
            pytest.param(kind, "given", marks=pytest.mark.thorough)
            for kind in KINDS
            if kind != "pixels"
        ),
    ],
)
some_kinds = pytest.mark.parametrize(
    "kind",
    [
        "pixels",
        *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("no weights", "samples")),
    ],
)


@every_kind
@every_loss
def test_the_channels_may_be_first(case, kind, how):
    y_true, y_pred = images(case)
    weight = weight_of(kind, y_pred)
    rank = y_pred.ndim
    last = outcome(make(case, data_format="channels_last"), y_true, y_pred, weight)
    if how == "given":
        loss = make(case, data_format="channels_first")
    else:
        with keras_setting("channels_first"):
            loss = make(case)
    data = [first(array, rank) for array in (y_true, y_pred, weight)]
    check_alike(last, outcome(loss, *data), rank)


@some_kinds
@every_loss
def test_a_mask_of_pixels(case, kind):
    y_true, y_pred = images(case)
    mask = np.random.default_rng(3).random(y_pred.shape[:-1]) > 0.4
    weight, rank = weight_of(kind, y_pred), y_pred.ndim
    last, first_ = (make(case, data_format=f) for f in ("channels_last", "channels_first"))
    expected = outcome(last, y_true, y_pred, weight, mask)
    found = outcome(first_, first(y_true, rank), first(y_pred, rank), weight, mask)
    check_alike(expected, found, rank)


@some_kinds
@every_loss
def test_missing_labels(case, kind):
    """Whole rows or single entries may be missing."""
    y_true, y_pred = images(case)
    weight, rank = weight_of(kind, y_pred), y_pred.ndim
    y_true = y_true.astype("float32")
    y_true[np.random.default_rng(3).random(y_true.shape) < 0.2] = np.nan
    last, first_ = (
        cl.wrappers.Masked(make(case, data_format=f)) for f in ("channels_last", "channels_first")
    )
    expected = outcome(last, y_true, y_pred, weight)
    check_alike(expected, outcome(first_, first(y_true, rank), first(y_pred, rank), weight), rank)


@every_loss
def test_in_float16(case):
    y_true, y_pred = images(case)
    last, first_ = (
        make(case, data_format=f, dtype="float16") for f in ("channels_last", "channels_first")
    )
    y_pred, rank = y_pred.astype("float16"), y_pred.ndim
    expected = outcome(last, y_true, y_pred)
    found = outcome(first_, first(y_true, rank), first(y_pred, rank))
    check_alike(expected, found, rank)
    assert found[1].dtype == "float16" and np.all(np.isfinite(found[1]))


@every_loss
def test_call_alone_knows_the_format(case):
    y_true, y_pred = images(case)
    last, first_ = (make(case, data_format=f) for f in ("channels_last", "channels_first"))
    data = first(y_true, y_pred.ndim), first(y_pred, y_pred.ndim)
    np.testing.assert_allclose(
        value(first_.call, *data), value(last.call, y_true, y_pred), rtol=2e-5, atol=1e-6
    )


@every_loss
def test_sequences_are_channels_last_unless_the_argument_is_given(case):
    """Keras's setting acts only on predictions of rank 4 or more."""
    y_true, y_pred = images(case)
    y_true, y_pred = y_true[:, 0], y_pred[:, 0]
    last = make(case, data_format="channels_last")
    with keras_setting("channels_first"):
        by_setting = make(case)
    given = make(case, data_format="channels_first")
    expected = outcome(last, y_true, y_pred)
    check_alike(expected, outcome(by_setting, y_true, y_pred), rank=4)
    if case.loss._least_rank == 3:
        found = outcome(given, first(y_true, 3), first(y_pred, 3))
        check_alike(expected, found, rank=3)
    else:  # these are images without channels
        check_alike(expected, outcome(given, y_true, y_pred), rank=4)


@pytest.mark.parametrize(
    "without, how",
    [
        ("y_true", "given"),
        *(
            pytest.param(*what, marks=pytest.mark.thorough)
            for what in (("y_pred", "given"), ("y_true", "by Keras's setting"))
        ),
    ],
)
@every_loss
def test_the_axis_of_one_channel_may_be_left_out(case, without, how):
    """Either array may lack the axis, with the channels first as with the channels last."""
    if not getattr(case.loss, "needs_target", True):
        pytest.skip("it does not look at the target")
    y_true, y_pred = images(case)
    if y_true.ndim == y_pred.ndim:
        y_true = y_true[..., :1]
    y_pred = y_pred[..., :1]
    kwargs = {k: v for k, v in case.arguments.items() if k not in ("axes", "class_weight")}
    last = case.make(**kwargs, data_format="channels_last")
    with keras_setting("channels_first"):
        loss = case.make(**kwargs, data_format="channels_first" if how == "given" else None)
    data = [y_true, y_pred, first(y_true, 4), first(y_pred, 4)]
    if without == "y_true":
        data[0], data[2] = (array.reshape(y_pred.shape[:-1]) for array in (data[0], data[2]))
    else:
        data[1], data[3] = (array.reshape(y_pred.shape[:-1]) for array in (data[1], data[3]))
    for weight in (None, weight_of("pixels", y_pred)):
        expected = outcome(last, *data[:2], weight)
        check_alike(expected, outcome(loss, *data[2:], weight), rank=4)


@every_loss
def test_values_have_no_axis_of_channels(case):
    y_true, y_pred = images(case)
    values, moved = (
        value(make(case, data_format=f, reduction="none"), *data)
        for f, data in (
            ("channels_last", (y_true, y_pred)),
            ("channels_first", (first(y_true, y_pred.ndim), first(y_pred, y_pred.ndim))),
        )
    )
    assert moved.shape == values.shape
    np.testing.assert_allclose(moved, values, rtol=2e-5, atol=1e-6)


class TwiceTheDice(cl.losses.Dice):
    """A user's own, by a `call` around that of the library."""

    def call(self, y_true, y_pred, sample_weight=None):
        return 2 * super().call(y_true, y_pred, sample_weight)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrap", [lambda loss: loss, lambda loss: cl.wrappers.MultiScale(loss, (1, 2))]
)
def test_a_subclass_with_a_call_of_its_own(kind, wrap):
    random = np.random.default_rng(0)
    y_true, y_pred = random.random((2, 3, 6, 5, 2), "float32")[0] > 0.5, random.random((3, 6, 5, 2))
    y_pred = y_pred.astype("float32")
    weight = weight_of(kind, y_pred)
    last, loss = (wrap(TwiceTheDice(data_format=f)) for f in ("channels_last", "channels_first"))
    data = [first(array, 4) for array in (y_true, y_pred, weight)]
    check_alike(outcome(last, y_true, y_pred, weight), outcome(loss, *data), rank=4)


# Configs.


def reloaded(loss, data_format):
    """A loss as a program with this setting loads it."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    with keras_setting(data_format):
        return keras.saving.deserialize_keras_object(config)


@pytest.mark.backend_free
@pytest.mark.parametrize("made", ["channels_first", "channels_last"])
@pytest.mark.parametrize("given", [None, "channels_first", "channels_last"])
@every_loss
def test_a_config_keeps_the_format(case, given, made):
    with keras_setting(made):
        loss = make(case, data_format=given)
    assert loss.data_format == (given or made)
    assert loss.get_config()["data_format"] == (given or made)
    for loaded in ("channels_first", "channels_last"):
        again = reloaded(loss, loaded)
        assert json.dumps(again.get_config()) == json.dumps(loss.get_config())
        assert again.data_format == loss.data_format
        if loss.data_format == "channels_first":  # the last axis is the default in any case
            assert again.formats == loss.formats


@every_loss
def test_what_is_loaded_under_another_setting_has_the_same_numbers(case):
    with keras_setting("channels_first"):
        loss = make(case)
    again, (y_true, y_pred) = reloaded(loss, "channels_last"), images(case)
    for data in ((first(y_true, 4), first(y_pred, 4)), (y_true[:, 0], y_pred[:, 0])):
        assert outcome_of_value(again, *data) == outcome_of_value(loss, *data)


def outcome_of_value(loss, *data):
    try:
        return float(value(loss, *data))
    except ValueError as error:
        return str(error)


@pytest.mark.backend_free
@every_loss
def test_files_without_the_argument_hold_losses_of_channels_last(case):
    config = case.make().get_config()
    del config["data_format"]
    with keras_setting("channels_first"):
        assert case.loss.from_config(config).data_format == "channels_last"


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["channels_middle", 1, True, ["channels_last"]])
@every_loss
def test_the_format_is_one_of_two(case, bad):
    with raises(ValueError, "`data_format` of", "'channels_first'", f"Received: {bad!r}"):
        case.make(data_format=bad)


@pytest.mark.backend_free
@every_loss
def test_the_argument_is_documented(case):
    assert re.search(r"^ *data_format: ", case.loss.__doc__, re.MULTILINE)
