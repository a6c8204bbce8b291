"""Margins between classes, and trees of classes: limits, extremes, invariances."""

import math

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.losses.compiled import slope, values
from tests.messages import raises

L = cl.losses
MARGINS = {"ArcFace": L.ArcFace, "CosFace": L.CosFace}
every_margin = pytest.mark.parametrize("loss", MARGINS.values(), ids=MARGINS)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 12)
COSINES = RNG.uniform(-0.8, 0.8, (12, 5)).astype("float32")


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def cross_entropy(logits, labels=LABELS):
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    return value(entropy, labels, logits.astype("float32"))


@every_margin
def test_without_a_margin_it_is_cross_entropy(loss):
    close(values(loss, LABELS, COSINES, margin=0.0, scale=5.0), cross_entropy(5 * COSINES))
    at_centre = 2 * np.eye(5, dtype="float32")[LABELS] - 1  # where the root passes no slope
    expected = gradient(lambda p: keras.ops.sum(cross_entropy_of(5 * p)), at_centre)
    close(slope(loss, LABELS, at_centre, margin=0.0, scale=5.0), expected)


def cross_entropy_of(logits):
    return keras.losses.sparse_categorical_crossentropy(LABELS, logits, from_logits=True)


def test_arc_face_adds_to_the_angle():
    angles = RNG.uniform(0.1, 2.0, (12, 5))
    moved = angles + 0.5 * np.eye(5)[LABELS]
    found = values(L.ArcFace, LABELS, np.cos(angles).astype("float32"), scale=10.0)
    close(found, cross_entropy(10 * np.cos(moved)))


def test_cos_face_subtracts_from_the_cosine():
    moved = COSINES - 0.35 * np.eye(5)[LABELS]
    close(values(L.CosFace, LABELS, COSINES, scale=10.0), cross_entropy(10 * moved))


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, math.pi / 2])
def test_the_value_falls_with_the_cosine_everywhere(margin):
    """Also beyond pi - margin, where the sum of the angles begins to come back."""
    cosines = np.stack([np.linspace(-1, 1, 201), np.zeros(201)], axis=-1).astype("float32")
    found = values(L.ArcFace, np.zeros(201, int), cosines, margin=margin, scale=5.0)
    assert np.all(np.diff(found) < 0)


@every_margin
def test_cosines_of_1_and_beyond_have_finite_slopes(loss):
    """A sum of squares is 1 only nearly, so that a cosine may be a little more."""
    cosines = np.array([[1, -1], [-1, 1], [1.0000001, 0], [-1.0000001, 0], [0.9999999, 0]])
    labels = np.zeros(5, int)
    found = values(loss, labels, cosines.astype("float32"))
    assert np.all(np.isfinite(found)) and found[0] == 0 and found[1] > 100
    slopes = slope(loss, labels, cosines.astype("float32"))
    assert np.all(np.isfinite(slopes)) and slopes[1, 0] < -60


@every_margin
def test_a_value_near_0_and_its_slope_are_exact(loss):
    """As far as float32 knows numbers, not as far as it knows differences from 1."""
    cosines = np.array([[0.95, 0.5, -0.5]], "float32")
    found = values(loss, [0], cosines, margin=0.0, scale=64.0)
    expected = math.log1p(sum(math.exp(64 * (c - cosines[0, 0])) for c in (0.5, -0.5)))
    close(found, [expected], atol=0)
    slopes = slope(loss, [0], cosines, margin=0.0, scale=64.0)
    close(slopes[0, :1], [64 * math.expm1(-expected)], atol=0)


@every_margin
def test_the_nearest_centre_of_each_class_counts(loss):
    """The centres of a class are beside each other."""
    far = COSINES[..., None] - np.array([0.0, 0.1, 0.2], "float32")
    for order in ([0, 1, 2], [2, 0, 1]):
        flat = far[..., order].reshape(12, 15)
        close(values(loss, LABELS, flat, subcenters=3), values(loss, LABELS, COSINES))
        found = slope(loss, LABELS, flat, subcenters=3).reshape(12, 5, 3)
        close(found.sum(axis=-1), slope(loss, LABELS, COSINES))
        assert np.all(found[..., order.index(1)] == 0)


@every_margin
def test_one_class_alone_costs_nothing(loss):
    assert value(loss(), np.zeros(3, int), COSINES[:3, :1]) == 0


@every_margin
@pytest.mark.parametrize("label", [-1, 5, np.nan])
def test_an_unknown_label_is_nan_and_may_have_a_weight_of_0(loss, label):
    y, weight = np.array([label, 2.0]), np.array([0.0, 1.0], "float32")
    found = values(loss, y, COSINES[:2])
    np.testing.assert_array_equal(np.isnan(found), [True, False])
    close(value(loss(), y, COSINES[:2], weight), value(loss(), [0, 2], COSINES[:2], weight))


@every_margin
def test_shapes_that_do_not_fit_are_an_error(loss):
    with raises(ValueError, "C * 2", "Received: y_pred of shape (12, 5)"):
        loss(subcenters=2)(LABELS, COSINES)
    with raises(ValueError, "of shape (12,) or (12, 1)", "Received: y_true of shape (12, 5)"):
        loss()(COSINES, COSINES)


# Trees.

LEVELS = [[0, 0, 1, 1, 2], [0, 0, 0, 0, 1]]
LOGITS = RNG.normal(0.0, 2.0, (12, 5)).astype("float32")
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)


def tree(y, p, **arguments):
    return values(L.TreeCrossEntropy, y, p, **{"levels": LEVELS, **arguments})


def test_without_a_decay_it_is_cross_entropy_whatever_the_tree():
    for levels in (LEVELS, [[0, 1, 2, 0, 1]], [[0] * 5]):
        found = tree(LABELS, LOGITS, levels=levels, decay=0.0, from_logits=True)
        close(found, cross_entropy(LOGITS))


@pytest.mark.parametrize("decay", [-1.0, 0.0, 0.5])
def test_logits_are_those_of_the_probabilities(decay):
    by_logits = tree(LABELS, LOGITS, decay=decay, from_logits=True)
    close(by_logits, tree(LABELS, P, decay=decay), rtol=2e-5)


@pytest.mark.parametrize("decay", [-1.0, -0.2, 0.2, 1.0])
def test_a_stranger_costs_more_than_a_brother_if_the_decay_is_below_0(decay):
    p = np.array([[0.3, 0.7, 0, 0, 0], [0.3, 0, 0.7, 0, 0], [0.3, 0, 0, 0, 0.7]], "float32")
    brother, cousin, stranger = tree([0, 0, 0], p, decay=decay)
    close(brother, math.log(1 / 0.3))
    assert np.sign(cousin - brother) == np.sign(stranger - cousin) == -np.sign(decay)
    close(stranger, math.exp(-2 * decay) * math.log(1 / 0.3))


def test_a_large_decay_tells_brothers_apart_alone():
    own = np.array([[0.2, 0.1, 0.3, 0.3, 0.1]], "float32")
    close(tree([0], own, decay=30.0), [math.log(3 / 2)], rtol=1e-6)


def test_the_names_of_the_groups_do_not_matter():
    renamed = [[7, 7, -3, -3, 100], [2, 2, 2, 2, 1]]
    expected = tree(LABELS, LOGITS, from_logits=True)
    np.testing.assert_array_equal(tree(LABELS, LOGITS, levels=renamed, from_logits=True), expected)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_are_finite_and_have_a_slope(size):
    z = size * np.array([[-1, -1, -1, -1, 1], [-1, 1, -1, -1, -1]], "float32")
    arguments = {"levels": LEVELS, "from_logits": True, "decay": -0.5}
    close(tree([0, 0], z, **arguments)[1], 2 * size, rtol=1e-5)
    slopes = slope(L.TreeCrossEntropy, [0, 0], z, **arguments)
    assert np.all(np.isfinite(slopes)) and np.all(slopes[:, 0] < 0)
    close(slopes[1], [-1, 1, 0, 0, 0])


def test_sure_logits_keep_their_small_values():
    """Of differences of rounded log-probabilities none would be left, or some below 0."""
    z = RNG.normal(0.0, 3.0, (200, 5)) + 20 * np.eye(5)[0]
    odds = np.exp(z[:, 1:] - z[:, :1])
    brother, cousins, stranger = odds[:, 0], odds[:, 1:3].sum(axis=-1), odds[:, 3]
    weights = np.exp([0.0, 5.0, 10.0])
    choices = np.log1p([brother, cousins / (1 + brother), stranger / (1 + brother + cousins)])
    found = tree(np.zeros(200), z.astype("float32"), decay=-5.0, from_logits=True)
    close(found, weights @ choices, rtol=1e-4, atol=0)


def test_no_value_is_below_0_where_probabilities_add_up_to_more_than_1():
    p = np.array([[1.0, 0.25, 0.0, 0.0, 0.5], [0.7, 0.2, 0.1, 0.0000002, 0.0]], "float32")
    close(tree([0, 0], p, decay=0.0), -np.log(p[:, 0]))
    assert np.all(tree([0, 0], p, decay=-10.0) >= 0)


def test_probabilities_of_0_and_1_are_finite():
    p = np.eye(5, dtype="float32")
    for y in range(5):
        assert np.all(np.isfinite(tree(np.full(5, y), p)))
        slopes = slope(L.TreeCrossEntropy, np.full(5, y), p, levels=LEVELS)
        assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("bad", [[[0, 0, 1], [0, 1, 1]], [[0, 1, 1], [0, 1, 2]]])
def test_a_level_that_is_not_coarser_is_an_error(bad):
    with raises(ValueError, "`levels`", "coarser from list to list", f"Received: {bad!r}"):
        L.TreeCrossEntropy(bad)


def test_predictions_of_another_number_of_classes_are_an_error():
    with raises(ValueError, "`levels`", "5 classes", "Received: y_pred of shape (12, 4)"):
        L.TreeCrossEntropy(LEVELS)(LABELS, LOGITS[:, :4])
