"""Region losses once for the whole batch, and the other ways to count: squares, logs, a choice."""

import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.compound import as_node
from tests.composite.children import value
from tests.gradients import gradient
from tests.losses.compiled import slope, values
from tests.messages import raises

L = cl.losses
COUNTED = (L.Dice, L.Jaccard, L.Tversky, L.FocalTversky, L.GeneralizedDice)
EVERY = (*COUNTED, L.MatthewsCorrelation, L.LovaszHinge, L.LovaszSoftmax, L.CenterlineDice)
every = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.__name__)
counted = pytest.mark.parametrize("loss", COUNTED, ids=lambda loss: loss.__name__)
FLAT = [loss for loss in EVERY if loss is not L.CenterlineDice]  # which see no neighbours

RNG = np.random.default_rng(0)
TRUTH = np.eye(3, dtype="float32")[RNG.integers(0, 3, (4, 4, 5))]
TRUTH[2] = np.eye(3)[0]  # a sample of background alone
P = RNG.dirichlet([1.0, 1.0, 1.0], (4, 4, 5)).astype("float32")
LOGITS = RNG.normal(0.0, 2.0, TRUTH.shape).astype("float32")


def close(actual, expected, rtol=2e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


# `over="batch"`.


@every
def test_one_sample_is_its_own_batch(loss):
    alone = TRUTH[:1], P[:1]
    close(values(loss, *alone, over="batch"), values(loss, *alone))
    close(slope(loss, *alone, over="batch"), slope(loss, *alone))


@pytest.mark.parametrize("loss", FLAT, ids=lambda loss: loss.__name__)
def test_a_batch_is_one_large_image(loss):
    one = [array.reshape(1, -1, 5, 3) for array in (TRUTH, P)]
    expected = values(loss, *one)
    close(values(loss, TRUTH, P, over="batch"), np.repeat(expected, 4))
    close(slope(loss, TRUTH, P, over="batch"), 4 * slope(loss, *one).reshape(P.shape))


@every
def test_every_reduction_of_one_number_is_that_number(loss):
    weight = np.array([1.0, 0.5, 0.0, 2.0], "float32")
    for data in ((), (weight,)):
        number = values(loss, TRUTH, P, *data, over="batch")[0]
        for reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
            close(value(loss(over="batch", reduction=reduction), TRUTH, P, *data), number)


@every
def test_weights_of_samples_and_pixels_act_together_inside(loss):
    of_samples = np.array([1.0, 0.5, 0.0, 2.0], "float32")
    of_pixels = RNG.integers(0, 3, (4, 4, 5)).astype("float32")
    mask = (of_pixels > 1).astype("float32")
    own = loss(over="batch", reduction="none")
    expected = values(loss, TRUTH, P, of_samples[:, None, None] * mask, over="batch")
    missing = np.where(mask[..., None] > 0, TRUTH, -1.0).astype("float32")
    close(
        value(loss(over="batch", reduction="none", ignore_value=-1), missing, P, of_samples),
        expected,
    )
    whole = np.broadcast_to(of_samples[:, None, None], (4, 4, 5)).astype("float32")
    close(value(own, TRUTH, P, of_samples), value(own, TRUTH, P, whole))


@every
def test_without_any_weight_it_is_0_and_absent(loss):
    nothing = np.zeros(4, "float32")
    takes_none = hasattr(loss(), "smooth") and loss is not L.CenterlineDice
    for smooth in ({}, {"smooth": 0.0}) if takes_none else ({},):
        own = loss(over="batch", **smooth)
        assert value(own, TRUTH, P, nothing) == 0
        assert np.all(gradient(lambda p, own=own: own(TRUTH, p, nothing), P) == 0)
    batch = Batch(TRUTH, P, nothing).replaced(asks_presence=True)
    assert not bool(as_node("part", loss(over="batch")).evaluate(batch).present)


@every
def test_missing_labels_leave_the_sums(loss):
    if loss is L.LovaszHinge:
        pytest.skip("its channels are independent")
    missing = TRUTH.copy()
    missing[1, 2:] = np.nan
    there = (~np.isnan(missing[..., 0])).astype("float32")
    expected = values(loss, TRUTH, P, there, over="batch")
    close(value(cl.wrappers.Masked(loss(over="batch", reduction="none")), missing, P), expected)
    ignoring = loss(over="batch", reduction="none", ignore_value=float("nan"))
    close(value(ignoring, missing, P), expected)


@every
def test_in_a_composite_it_adds_up(loss):
    own, other = loss(over="batch"), L.Dice()
    both = cl.CompositeLoss({"batch": own, "sample": other}, {"batch": 0.5})
    close(value(both, TRUTH, P), 0.5 * value(own, TRUTH, P) + value(other, TRUTH, P))
    curves = cl.CompositeLoss({"c": cl.wrappers.PerChannel(own, size=3)}).components(TRUTH, P)
    for c in range(3):
        expected = value(own, TRUTH[..., c : c + 1], P[..., c : c + 1])
        close(float(curves[f"c/channel_{c}"]), expected)


def test_lovasz_takes_the_classes_of_the_batch():
    """A class that only one sample lacks has a price there too."""
    truth, p = TRUTH[[0, 2]], P[[0, 2]]
    alone = gradient(lambda p: L.LovaszSoftmax()(truth, p), p)
    assert np.all(alone[1, ..., 1:] == 0)
    together = gradient(lambda p: L.LovaszSoftmax(over="batch")(truth, p), p)
    assert np.any(together[1, ..., 1:] != 0)


def test_lovasz_counts_every_channel_with_multilabel():
    """The largest false positive of an absent one, as in a single channel."""
    marked = values(L.LovaszSoftmax, TRUTH[2:3], P[2:3], multilabel=True)
    own = [
        values(L.LovaszSoftmax, TRUTH[2:3, ..., c, None], P[2:3, ..., c, None]) for c in range(3)
    ]
    close(marked, np.mean(own, axis=0))
    close(own[1], P[2, ..., 1].max())


def test_small_objects_that_most_samples_lack_are_found_over_the_batch():
    """False alarms of half a pixel in seven empty samples do not outweigh the missed object."""
    truth, p = np.zeros((2, 8, 4, 4, 1), "float32")
    truth[0, 1, 1] = 1.0
    p[1:, 0, 0] = 0.5
    sample, batch = (
        gradient(lambda p, o=o: L.Dice(over=o)(truth, p), p) for o in ("sample", "batch")
    )
    object_, alarm = (0, 1, 1, 0), (1, 0, 0, 0)
    assert sample[alarm] > 0 and sample[object_] < 0
    assert abs(batch[object_] / batch[alarm]) > 3 * abs(sample[object_] / sample[alarm])


# `power=2`.


def test_dice_of_squares_is_that_of_v_net():
    hard = TRUTH[..., 1:2].astype("float64")
    p = np.float64(P[..., 1:2])
    axes = (1, 2, 3)
    both, squares = 2 * np.sum(p * hard, axes), np.sum(p**2, axes) + np.sum(hard**2, axes)
    expected = 1 - (both + 1) / (squares + 1)
    close(values(L.Dice, TRUTH[..., 1:2], P[..., 1:2], power=2), expected)


@counted
def test_squares_have_no_slope_at_the_truth_and_are_never_negative(loss):
    soft = P[..., :1]
    for truth in (TRUTH, soft):
        assert np.all(values(loss, truth, P[..., : truth.shape[-1]], power=2) >= 0)
    assert np.all(values(loss, TRUTH, TRUTH, power=2) == 0)
    close(slope(loss, TRUTH, TRUTH, power=2), 0.0)


# `log`.


@counted
def test_the_logarithm_is_that_of_what_the_loss_leaves(loss):
    binary = (TRUTH[..., 1:2], P[..., 1:2])
    plain = np.float64(values(loss, *binary))
    close(values(loss, *binary, log=True), -np.log1p(-plain))
    steeper = slope(loss, *binary) / (1 - plain).reshape(-1, 1, 1, 1)
    close(slope(loss, *binary, log=True), steeper, rtol=1e-4)


@counted
def test_the_logarithm_is_exact_near_0_and_finite_at_1(loss):
    full = np.ones((1, 64, 64, 1), "float32")
    near = full - np.float32(2.0**-12)
    plain = np.float64(values(loss, full, near))
    close(values(loss, full, near, log=True), -np.log1p(-plain), rtol=1e-6, atol=0)
    wrong = values(loss, full, 0 * full, log=True, smooth=0.0)
    close(wrong, 1 - np.log(1e-7))
    assert np.all(np.isfinite(slope(loss, full, 0 * full, log=True, smooth=0.0)))
    assert np.all(values(loss, full, full, log=True) == 0)


# `classes`.


@pytest.mark.parametrize("loss", [*COUNTED, L.MatthewsCorrelation], ids=lambda loss: loss.__name__)
def test_classes_are_channels_after_the_activation(loss):
    powers = np.exp(np.float64(LOGITS))
    p = (powers / powers.sum(-1, keepdims=True)).astype("float32")
    expected = values(loss, TRUTH[..., [0, 2]], p[..., [0, 2]])
    for classes in ([0, 2], [2, 0], (2, 0)):
        close(values(loss, TRUTH, LOGITS, classes=classes, from_logits=True), expected)
    found = slope(loss, TRUTH, LOGITS, classes=[0, 2], from_logits=True)
    assert np.any(found[..., 1] != 0)  # the softmax reads it
    assert np.all(slope(loss, TRUTH, P, classes=[0, 2])[..., 1] == 0)
    same = values(loss, TRUTH, P, include_background=False)
    close(values(loss, TRUTH, P, classes=[1, 2]), same)


@pytest.mark.parametrize("loss", [*COUNTED[:4], L.MatthewsCorrelation], ids=lambda c: c.__name__)
def test_class_weights_are_those_of_all_channels(loss):
    price = [0.0, 5.0, 2.0]
    one = values(loss, TRUTH[..., 2:], P[..., 2:])
    close(values(loss, TRUTH, P, classes=[2, 0], class_weight=price), one)
    with raises(ValueError, "`class_weight` of", "above 0 among those that count"):
        loss(classes=[0], class_weight=price)


@counted
def test_what_is_dropped_may_be_anything(loss):
    truth = TRUTH.copy()
    truth[..., 1] = np.nan
    own = loss(classes=[0, 2])
    close(value(own, truth, P), value(own, TRUTH, P))
    assert np.all(np.isfinite(gradient(lambda p: own(truth, p), P)))


def test_classes_that_cannot_be():
    both = "`classes` and `include_background` of Dice", "leave one out", "Received: classes=[1]"
    with raises(ValueError, *both):
        L.Dice(classes=[1], include_background=False)
    with raises(ValueError, "`classes` of Dice must name channels from 0 to 2", "Received: [1, 3]"):
        L.Dice(classes=[1, 3])(TRUTH, P)


def test_squares_are_no_counts_of_a_correlation():
    with raises(ValueError, "`power` of MatthewsCorrelation must be 1", "Received: 2"):
        L.MatthewsCorrelation(power=2)
