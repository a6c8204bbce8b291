"""`ignore_value=nan`: void pixels are NaN, which equals nothing; in all that has the argument."""

import json

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import uniform, value
from tests.contracts.registry import CASES
from tests.gradients import gradient

IGNORING = [case for case in CASES if hasattr(case.make(), "ignore_value")]
PRESETS = [getattr(cl.losses, name) for name in cl.losses.presets.__all__]
MADE = [*[case.loss for case in IGNORING], *PRESETS]
every = pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)

MAP = np.random.default_rng(0).integers(0, 3, (3, 12, 13))  # with room for the window of SSIM
VOID = np.random.default_rng(1).random(MAP.shape) < 0.3
VOID[0] = True  # a sample of which nothing is known
TRUTH = np.eye(3, dtype="float32")[MAP]
P = uniform(3, 12, 13, 3, seed=2)
NAN = float("nan")


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def marked(number):
    return np.where(VOID[..., None], number, TRUTH).astype("float32")


@every
def test_it_is_as_any_other_number(make):
    of_nan, of_number = make(ignore_value=NAN), make(ignore_value=-1)
    expected = value(of_number, marked(-1), P)
    assert np.isfinite(expected)
    close(value(of_nan, marked(NAN), P), expected)
    slope = gradient(lambda p: of_nan(marked(NAN), p), P)
    close(slope, gradient(lambda p: of_number(marked(-1), p), P))
    assert np.all(np.isfinite(slope)) and np.all(slope[VOID] == 0)


@every
def test_without_void_pixels_nothing_changes(make):
    close(value(make(ignore_value=NAN), TRUTH, P), value(make(), TRUTH, P))


@every
def test_predictions_and_weights_of_void_pixels_do_no_harm(make):
    loss = make(ignore_value=NAN)
    bad = np.where(VOID[..., None], NAN, P).astype("float32")
    if make in PRESETS:
        bad = np.where(VOID[..., None], 0.9, P).astype("float32")
    close(value(loss, marked(NAN), bad), value(loss, marked(NAN), P))
    weight = np.array([1.0, 0.5, 0.0], "float32")
    expected = value(make(ignore_value=-1), marked(-1), P, weight)
    close(value(loss, marked(NAN), P, weight), expected)


@pytest.mark.parametrize("case", IGNORING, ids=lambda case: case.loss.__name__)
def test_it_comes_back_from_the_config(case):
    config = json.loads(json.dumps(case.make(ignore_value=NAN).get_config()))
    loaded = case.loss.from_config(config)
    assert np.isnan(loaded.ignore_value)
    close(value(loaded, marked(NAN), P), value(case.make(ignore_value=-1), marked(-1), P))


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", cl.losses.Dice()], ids=["ce", "dice"])
def test_ids_may_be_nan_too(loss, column):
    ids = np.where(VOID, NAN, MAP).astype("float32")
    ids = ids[..., None] if column else ids
    of_nan = cl.wrappers.OneHot(loss, 3, ignore_value=NAN)
    of_id = cl.wrappers.OneHot(loss, 3, ignore_value=255)
    expected = value(of_id, np.where(VOID, 255, MAP), P)
    assert np.isfinite(expected)
    close(value(of_nan, ids, P), expected)
    assert np.all(np.isfinite(gradient(lambda p: of_nan(ids, p), P)))
    assert value(of_nan, MAP, P) == value(of_id, MAP, P)  # whole numbers hold no NaN
