"""Predictions outside [0, 1] where probabilities are meant: bounded values, slopes back inside."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.registry import CASES
from tests.gradients import gradient, value_and_gradient
from tests.oracles import classification

L = cl.losses
P = np.array([-2.0, -1.0, -0.5, 0.0, 1e-8, 0.5, 1.0, 1 + 1e-7, 1.5, 3.0], "float32")
GAMMAS = [0.0, 0.3, 1.0, 1.5, 2.0, 5.0]
ALPHAS = [None, 0.0, 0.25, 1.0]
LABELS = [0.0, 0.3, 0.5, 0.8, 1.0]
LARGEST = -np.log(1e-7) + 1  # at a probability of 0; Keras, which clips at 1e-7, has 1 less

every_gamma = pytest.mark.parametrize("gamma", GAMMAS)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def column(p):
    return np.asarray(p).reshape(-1, 1)


def of_nearest(y, **arguments):
    """The twin's values and slopes at the nearest probability; 0 for slopes that lead outside."""
    nearest = np.clip(np.float64(P), 0, 1)
    truth = np.full(P.shape, y)
    values, slope = classification.binary_focal(column(truth), column(nearest), **arguments)
    back = ((P < 0) & (y > 0)) | ((P > 1) & (y < 1)) | ((P >= 0) & (P <= 1))
    return values, np.where(back, slope[:, 0], 0.0)


# The three focal losses.


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("y", LABELS)
@every_gamma
def test_binary_is_that_of_the_nearest_probability(gamma, alpha, y):
    loss = L.BinaryFocal(gamma, alpha, reduction="none")
    truth = column(np.full(P.shape, y, "float32"))
    values, slope = value_and_gradient(loss, truth, column(P))
    expected, expected_slope = of_nearest(y, gamma=gamma, alpha=alpha)
    close(values, expected)
    # In float32 1 - 1e-8 is 1, the logarithm of which is 0 and not 1e-8.
    close(slope[:, 0], expected_slope, rtol=1e-4, atol=2e-3)
    assert np.all(values >= 0) and np.all(values <= LARGEST * 1.001)


@every_gamma
def test_it_grows_away_from_the_label_and_points_back(gamma):
    for y, wrong in ((1.0, P < 0), (0.0, P > 1)):
        loss = L.BinaryFocal(gamma, reduction="none")
        truth = column(np.full(P.shape, y, "float32"))
        values, slope = value_and_gradient(loss, truth, column(P))
        toward = -slope[:, 0] if y == 1 else slope[:, 0]  # above 0: descent leads to the label
        order = values if y == 0 else values[::-1]
        assert np.all(np.diff(order) >= 0)
        assert np.all(toward >= 0)
        assert np.all(toward[wrong] > 1)
        assert np.all(values[wrong] >= -np.log(1e-7))


@pytest.mark.parametrize("prices", [None, [0.5, 2.0]])
@every_gamma
def test_categorical_and_sparse_are_those_of_the_nearest_probability(gamma, prices):
    p = np.stack([P, P[::-1]], axis=-1)
    nearest = np.clip(np.float64(p), 0, 1)
    truth = np.eye(2, dtype="float32")[np.arange(len(P)) % 2]
    labels = np.arange(len(P)) % 2
    expected, slope = classification.categorical_focal(truth, nearest, gamma, prices)
    own = truth > 0
    slope = np.where(own & (p <= 1), slope, 0.0)  # above 1 it is right
    for loss, y in ((L.CategoricalFocal, truth), (L.SparseCategoricalFocal, labels)):
        loss = loss(gamma, prices, reduction="none")
        values, found = value_and_gradient(loss, y, p)
        close(values, expected)
        close(found, slope, rtol=1e-4)
        assert np.all(values >= 0) and np.all(values <= 2 * LARGEST * 1.001)
        assert np.all(found[own & (p < 0)] < -0.5)


def test_soft_classes_are_sloped_too():
    truth = np.full((len(P), 2), [0.7, 0.3], "float32")
    p = np.stack([P, np.full(P.shape, 0.5, "float32")], axis=-1)
    slope = gradient(lambda p: L.CategoricalFocal(reduction="sum")(truth, p), p)
    assert np.all(slope[P < 0, 0] < -1e5) and np.all(slope[P > 1, 0] == 0)


def test_values_are_bounded_as_those_of_keras():
    """One more at the most, which is the tangent between 0 and 1e-7."""
    for y in (0.0, 1.0):
        truth = column(np.full(P.shape, y, "float32"))
        loss, of_keras = L.BinaryFocal(0.0, reduction="none"), keras.losses.binary_crossentropy
        expected = keras.ops.convert_to_numpy(of_keras(truth, column(P)))
        assert np.all(np.abs(value(loss, truth, column(P)) - expected) < 1.2)


# float16: 65504 is its largest number.


def losses_in_float16():
    for gamma in GAMMAS:
        for alpha in ALPHAS:
            yield L.BinaryFocal(gamma, alpha, reduction="sum"), "mask"
        yield L.CategoricalFocal(gamma, multilabel=True, reduction="sum"), "mask"
        for prices in (None, [0.5, 40.0]):
            yield L.CategoricalFocal(gamma, prices, reduction="sum"), "one-hot"
            yield L.SparseCategoricalFocal(gamma, prices, reduction="sum"), "labels"
            yield L.CategoricalFocal(gamma, prices, multilabel=True, reduction="sum"), "mask"


@pytest.mark.parametrize("wrap", [lambda loss: loss, lambda loss: cl.CompositeLoss([loss])])
def test_slopes_are_finite_in_float16_and_values_those_of_float32(wrap):
    tiny = np.array([6e-8, 1e-6, 1e-4, 0.999], "float16")  # the first is its smallest number
    p = np.concatenate([P.astype("float16"), tiny])
    for loss, kind in losses_in_float16():
        half = np.stack([p, p[::-1]], axis=-1)
        labels = np.arange(len(p)) % 2
        truth = labels if kind == "labels" else np.eye(2, dtype="float32")[labels]
        found, expected = wrap(loss), half.astype("float32")
        close(value(found, truth, half), value(found, truth, expected))
        slope = gradient(lambda p, f=found, y=truth: f(y, p), half)
        assert slope.dtype == np.float16
        assert np.all(np.isfinite(slope)), (type(loss).__name__, loss.gamma)
        own = gradient(lambda p, f=found, y=truth: f(y, p), expected)
        steep = np.abs(own) > 1e-4
        assert np.all(np.sign(slope[steep]) == np.sign(own[steep]))
        gentle = np.abs(own) < 300
        close(np.float32(slope[gentle]), own[gentle], rtol=2e-3, atol=1e-6)


def test_a_model_in_mixed_precision_learns_from_a_probability_of_0():
    """Its output is 0 in float16, and its truth 1: no step of the optimizer is not a number."""
    inputs = keras.Input((1,), dtype="float16")
    dense = keras.layers.Dense(1, "relu", dtype="mixed_float16", bias_initializer="zeros")
    model = cl.Model(inputs, dense(inputs))
    model.compile(keras.optimizers.SGD(1e-6), loss=cl.CompositeLoss([L.BinaryFocal()]))
    model.fit(np.zeros((4, 1), "float16"), np.ones((4, 1)), verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


# The other losses of probabilities.

REGIONS = [
    case
    for case in CASES
    if hasattr(case.make(), "ignore_value") and hasattr(case.make(), "from_logits")
]


@pytest.mark.parametrize("case", REGIONS, ids=lambda case: case.loss.__name__)
def test_a_region_loss_is_that_of_the_nearest_probability(case):
    p = np.random.default_rng(0).normal(0.5, 1.5, case.y_pred.shape).astype("float32")
    truth = np.where(case.y_true == 1, 1.0, 0.0).astype("float32")
    loss = case.make(reduction="none")
    values, slope = value_and_gradient(loss, truth, p)
    nearest = np.clip(p, 0, 1)
    close(values, value(loss, truth, nearest))
    most = 2 if case.loss is L.MatthewsCorrelation else 1
    assert np.all(values >= 0) and np.all(values <= most + 1e-6)
    at_nearest = gradient(lambda p: loss(truth, p), nearest)
    back = (p < 0) & (truth > 0) | (p > 1) & (truth < 1)
    inside = (p >= 0) & (p <= 1)
    close(slope, np.where(back | inside, at_nearest, 0.0), atol=1e-5)


def test_dice_of_a_prediction_below_0_was_0_without_a_slope():
    y, p = np.ones((1, 1, 1, 1), "float32"), np.full((1, 1, 1, 1), -2.0, "float32")
    assert value(L.Dice(), y, p) == 0.5
    assert gradient(lambda p: L.Dice()(y, p), p).item() < -0.1


def test_kappa_is_that_of_the_nearest_probability():
    labels = np.array([0, 1, 2, 1])
    p = np.random.default_rng(1).normal(0.5, 1.5, (4, 3)).astype("float32")
    loss = L.WeightedKappa(3, reduction="none")
    expected, _ = classification.weighted_kappa(labels, np.clip(np.float64(p), 0, 1), 3)
    close(value(loss, labels, p), expected)
    assert np.all(expected >= 0)
    slope = gradient(lambda p: loss(labels, p), p)
    right = np.eye(3)[labels] == 1
    assert np.all(slope[(p > 1) & right] == 0) and np.all(slope[(p < 0) & ~right] == 0)


def test_kappa_has_finite_slopes_in_float16():
    """Where all are of one class, and taken for it, chance is 0 and the slope 1e7."""
    labels = np.array([0, 0, 0])
    for p in (np.eye(3)[labels], np.full((3, 3), 1e-5), np.eye(3)[[0, 1, 2]]):
        half, loss = p.astype("float16"), L.WeightedKappa(3)
        close(value(loss, labels, half), value(loss, labels, half.astype("float32")), rtol=1e-4)
        assert np.all(np.isfinite(gradient(lambda p, loss=loss: loss(labels, p), half)))


@pytest.mark.parametrize("method", ["coral", "corn"])
def test_answers_are_those_of_the_nearest_probability(method):
    """Those above the label and those below lead back from both sides."""
    p = np.array([[-0.5, 1.5], [1.5, -0.5], [0.3, -2.0], [3.0, 0.7]], "float32")
    labels, inside = np.array([0, 2, 1, 1]), (p >= 0) & (p <= 1)
    loss = L.Ordinal(method, reduction="none")
    expected, slope = classification.ordinal(labels, np.clip(np.float64(p), 0, 1), method)
    found, slopes = value_and_gradient(loss, labels, p)
    close(found, expected)
    wrong = (labels[:, None] > np.arange(2)) != (p > 0.5)
    close(slopes, np.where(inside | wrong, slope, 0.0), rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_token_is_that_of_the_nearest_probability(smoothing):
    p = np.array([[-0.5, 0.5, 1.0], [0.2, 1.5, -0.2]], "float32")
    loss = L.SparseCrossEntropy(smoothing, reduction="none")
    labels, nearest = np.array([0, 1]), np.clip(np.float64(p), 0, 1)
    expected, slope = classification.sparse_cross_entropy(labels, nearest, smoothing)
    found, slopes = value_and_gradient(loss, labels, p)
    close(found, expected)
    assert slopes[0, 0] < 0 and slopes[1, 1] == 0
    close(slopes[0], slope[0], rtol=1e-4)


def test_leaves_are_those_of_the_nearest_probability():
    p = np.array([[-0.5, 0.5, 1.0], [0.2, 1.5, -0.2]], "float32")
    loss = L.TreeCrossEntropy([[0, 0, 1]], decay=0.5, reduction="none")
    labels, nearest = np.array([0, 2]), np.clip(np.float64(p), 0, 1)
    expected, _ = classification.tree_cross_entropy(labels, nearest, [[0, 0, 1]])
    found, slopes = value_and_gradient(loss, labels, p)
    close(found, expected)
    assert slopes[0, 0] < 0 and slopes[1, 2] < 0


@pytest.mark.parametrize("name", ["Ordinal", "SparseCrossEntropy", "TreeCrossEntropy"])
def test_labels_have_finite_slopes_in_float16(name):
    """At a probability of 0 the slope is 1e7, which float16 cannot hold."""
    required = {"levels": [[0, 0, 1]]} if name == "TreeCrossEntropy" else {}
    loss = getattr(L, name)(**required, dtype="float16")
    for y in range(3):
        p = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1e-4]], "float16")
        slopes = gradient(lambda p, y=y: loss(np.array([y, y]), p), p)
        assert slopes.dtype == "float16" and np.all(np.isfinite(slopes))
        assert np.any(slopes != 0)
