"""What the Matthews correlation claims: symmetry, chance, hard masks, one kind of pixel only."""

import numpy as np
import pytest

import combined_losses as cl
from tests.losses.compiled import slope, values

Matthews = cl.losses.MatthewsCorrelation

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, (4, 6, 5, 1)).astype("float32")
P = RNG.uniform(0.05, 0.95, TRUTH.shape).astype("float32")
EMPTY, FULL = np.zeros((1, 6, 5, 1), "float32"), np.ones((1, 6, 5, 1), "float32")


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_of_hard_masks_it_is_the_correlation():
    hard = (P > 0.4).astype("float32")
    expected = [
        1 - np.corrcoef(y.ravel(), p.ravel())[0, 1] for y, p in zip(TRUTH, hard, strict=True)
    ]
    close(values(Matthews, TRUTH, hard, smooth=0.0), expected)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 30.0])
def test_object_and_background_may_be_exchanged(smooth):
    close(
        values(Matthews, 1 - TRUTH, 1 - P, smooth=smooth), values(Matthews, TRUTH, P, smooth=smooth)
    )
    exchanged = slope(Matthews, 1 - TRUTH, 1 - P, smooth=smooth)
    close(exchanged, -slope(Matthews, TRUTH, P, smooth=smooth))


def test_it_reaches_from_0_to_2():
    assert np.all(values(Matthews, TRUTH, TRUTH) == 0)
    close(values(Matthews, TRUTH, 1 - TRUTH, smooth=0.0), 2.0)
    close(values(Matthews, TRUTH, np.full_like(P, 0.3), smooth=0.0), 1.0)


@pytest.mark.parametrize("smooth", [1e-3, 1.0, 50.0])
def test_false_alarms_without_an_object_are_pushed_down(smooth):
    assert np.all(values(Matthews, EMPTY, EMPTY, smooth=smooth) == 0)
    assert np.all(values(Matthews, FULL, FULL, smooth=smooth) == 0)
    assert np.all(slope(Matthews, EMPTY, P[:1], smooth=smooth) > 0)
    assert np.all(slope(Matthews, FULL, P[:1], smooth=smooth) < 0)
    # The counts are a = d = s and FP = n.
    expected = EMPTY.size / (smooth + EMPTY.size)
    close(values(Matthews, EMPTY, FULL, smooth=smooth), expected, rtol=1e-4)


@pytest.mark.parametrize("truth", [EMPTY, FULL], ids=["empty", "full"])
def test_without_smoothing_one_kind_of_pixel_is_1_without_a_slope(truth):
    for p in (P[:1], EMPTY, FULL):
        close(values(Matthews, truth, p, smooth=0.0), 1.0)
        assert np.all(slope(Matthews, truth, p, smooth=0.0) == 0)


def test_near_perfection_nothing_cancels():
    """For a share e of errors in both kinds the loss is 2 e: far below what float32 adds to 1."""
    truth = np.repeat([0.0, 1.0], 512).reshape(1, 32, 32, 1).astype("float32")
    for share in (2.0**-10, 2.0**-20):
        p = np.abs(truth - np.float32(share))
        close(values(Matthews, truth, p, smooth=0.0), 2 * share, rtol=1e-5, atol=0)


def test_a_large_image_that_is_all_object():
    """The background that is right is a sum of its own, not what is left of 2^20 pixels."""
    full = np.ones((1, 1024, 1024, 1), "float32")
    p = np.float32(0.999) * full
    missed = float(1 - np.float64(np.float32(0.999))) * 2**20
    a = 2**20 - missed + 1
    # d = 1 and FP = 0
    expected = 1 - a / np.sqrt(a * (a + missed) * (1 + missed))
    close(values(Matthews, full, p), expected, rtol=1e-4)
