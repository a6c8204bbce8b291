"""What `DistributionFocal` claims: cross-entropy on a bin, the entropy between two."""

import math

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient, value_and_gradient
from tests.messages import raises

DFL = cl.losses.DistributionFocal
LOGITS = np.random.default_rng(0).normal(0, 2, (6, 5)).astype("float32")


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_on_a_bin_it_is_cross_entropy():
    bins = np.array([0, 1, 2, 3, 4, 4])
    sparse = cl.losses.SparseCategoricalFocal(0.0, from_logits=True, reduction="none")
    for low, high in ((0.0, None), (-3.0, 5.0)):
        step = 1.0 if high is None else (high - low) / 4
        loss = DFL(low, high, from_logits=True, reduction="none")
        y = (low + step * bins).astype("float32")
        close(value(loss, y, LOGITS), value(sparse, bins, LOGITS))


@pytest.mark.parametrize("place", [0.0, 0.25, 0.5, 0.9])
def test_its_minimum_is_the_entropy_of_the_shares(place):
    shares = [share for share in (1 - place, place) if share]
    p = np.float32([[0, 1 - place, place, 0]])
    y = np.float32([1 + place])
    entropy = -sum(share * math.log(share) for share in shares)
    close(value(DFL(), y, p), entropy)
    z = np.log(np.maximum(p, 1e-12))
    close(value(DFL(from_logits=True), y, z), entropy)
    close(gradient(lambda z: DFL(from_logits=True)(y, z), z), 0)
    # The mean of the bins is then the target.
    close(np.sum(p * np.arange(4)), 1 + place)


def test_a_target_outside_counts_as_the_nearest_end():
    loss = DFL(-1.0, 1.0, from_logits=True, reduction="none")
    ends = np.float32([-1, 1, -1, 1, 1, -1])
    outside = np.float32([-5, 1.01, -1e30, np.inf, 3, -np.inf])
    close(value(loss, outside, LOGITS), value(loss, ends, LOGITS))


def test_shapes():
    z = np.random.default_rng(1).normal(size=(3, 4, 6)).astype("float32")
    y = np.random.default_rng(2).uniform(0, 5, (3, 4)).astype("float32")
    loss = DFL(from_logits=True, reduction="none")
    found = value(loss, y, z)
    assert found.shape == (3, 4)
    close(value(loss, y[..., None], z), found)
    for i in range(4):
        close(value(loss, y[:, i], z[:, i]), found[:, i])
        close(value(loss, y[:, i : i + 1], z[:, i]), found[:, i])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_extreme_is_finite(dtype):
    y = np.array([0, 1.5, 2, 7, -1], dtype)
    far = 100 * np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1]]
    hard = np.eye(3, dtype=dtype)[[1, 0, 0, 0, 2]]
    for from_logits, data in ((True, far), (True, -far), (False, hard), (False, 2 * hard - 0.5)):
        loss = DFL(from_logits=from_logits, reduction="none")
        found, slope = value_and_gradient(loss, y, data.astype(dtype))
        assert np.all(np.isfinite(found)) and np.all(np.isfinite(slope))
        assert np.all(found >= 0)


def test_edges_may_be_missing_one_by_one():
    z = np.random.default_rng(1).normal(size=(3, 4, 6)).astype("float32")
    y = np.random.default_rng(2).uniform(0, 5, (3, 4)).astype("float32")
    there = np.random.default_rng(3).random(y.shape) < 0.6
    loss = DFL(from_logits=True)
    holes = np.where(there, y, np.nan).astype("float32")
    close(value(cl.wrappers.Masked(loss), holes, z), value(loss, y[there], z[there]))
    weights = there.astype("float32")
    own = DFL(from_logits=True, reduction="mean_with_sample_weight")
    close(value(own, holes, z, weights), value(loss, y[there], z[there]))


def test_bins_are_those_of_the_scaled_target():
    y = np.float32([0, 10, 25, 40, 33, 12])
    scaled = cl.wrappers.Scaled(DFL(from_logits=True), 10.0)
    close(value(scaled, y, LOGITS), value(DFL(from_logits=True), y / 10, LOGITS))


def test_it_needs_two_bins_and_a_range():
    parts = ("DistributionFocal needs predictions", "K >= 2 bins", "Received: low=")
    with raises(ValueError, *parts, "y_pred of shape (3, 1)"):
        DFL()(np.zeros((3, 1)), np.zeros((3, 1)))
    with raises(ValueError, *parts, "low=5.0, high=None"):
        DFL(5.0)(np.zeros(6), LOGITS)
