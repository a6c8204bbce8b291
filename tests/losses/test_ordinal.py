"""Grades as chains of answers, and kappa of maps and sequences: limits, extremes, invariances."""

import keras
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.losses.compiled import slope, values
from tests.masks import masked
from tests.messages import raises

Ordinal, Kappa = cl.losses.Ordinal, cl.losses.WeightedKappa
METHODS = ("coral", "corn")
every_method = pytest.mark.parametrize("method", METHODS)

RNG = np.random.default_rng(0)
GRADES = RNG.integers(0, 5, 20)
LOGITS = RNG.normal(0.0, 2.0, (20, 4)).astype("float32")
P = 1 / (1 + np.exp(-LOGITS))


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


# Ordinal.


@every_method
def test_two_grades_are_binary_cross_entropy(method):
    y, z = GRADES % 2, LOGITS[:, :1]
    entropy = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    expected = value(entropy, y[:, None].astype("float32"), z)
    close(values(Ordinal, y, z, method=method, from_logits=True), expected)
    for target in (y, y[:, None]):
        close(values(Ordinal, target, P[:, :1], method=method), expected)


def test_corn_is_the_probability_of_the_grade_in_the_chain():
    reached = np.concatenate([np.ones((20, 1)), np.cumprod(np.float64(P), axis=-1)], axis=-1)
    shares = reached * np.concatenate([1 - np.float64(P), np.ones((20, 1))], axis=-1)
    close(shares.sum(axis=-1), 1)
    expected = -np.log(shares[np.arange(20), GRADES])
    close(values(Ordinal, GRADES, P, method="corn"), expected)
    close(values(Ordinal, GRADES, LOGITS, method="corn", from_logits=True), expected)


@every_method
def test_logits_are_those_of_the_probabilities(method):
    arguments = {"method": method, "importance": [1.0, 2.0, 0.0, 0.5]}
    by_logits = values(Ordinal, GRADES, LOGITS, from_logits=True, **arguments)
    close(by_logits, values(Ordinal, GRADES, P, **arguments))


def test_the_price_grows_with_the_distance():
    """Of predictions that are sure of one grade."""
    answers = np.float32(np.arange(5)[:, None] > np.arange(4)) * 0.98 + 0.01
    for truth in range(5):
        found = values(Ordinal, np.full(5, truth), answers)
        assert np.all(np.diff(found[truth:]) > 0) and np.all(np.diff(found[: truth + 1]) < 0)


@every_method
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_wrong_answers_have_a_slope_of_1(method, size):
    y, z = np.array([0, 4]), np.array([[size] * 4, [-size] * 4], "float32")
    arguments = {"method": method, "from_logits": True}
    first = 4 if method == "coral" else 1  # of grade 0 only the first answer counts
    close(values(Ordinal, y, z, **arguments), [first * size, 4 * size])
    expected = [[1.0] * first + [0.0] * (4 - first), [-1.0] * 4]
    close(slope(Ordinal, y, z, **arguments), expected)


@every_method
def test_probabilities_of_0_and_1_are_finite_and_lead_back(method):
    y, p = np.array([0, 4]), np.array([[1.0] * 4, [0.0] * 4], "float32")
    assert np.all(np.isfinite(values(Ordinal, y, p, method=method)))
    found = slope(Ordinal, y, p, method=method)
    assert np.all(np.isfinite(found)) and found[0, 0] > 0 and np.all(found[1] < 0)


@every_method
@pytest.mark.parametrize("label", [-1, 5, 255, np.nan])
def test_an_unknown_grade_is_nan_and_may_have_a_weight_of_0(method, label):
    y, z = np.array([label, 2.0]), LOGITS[:2]
    found = values(Ordinal, y, z, method=method, from_logits=True)
    np.testing.assert_array_equal(np.isnan(found), [True, False])
    weight, loss = np.array([0.0, 1.0], "float32"), Ordinal(method, from_logits=True)
    close(value(loss, y, z, weight), value(loss, [0, 2], z, weight))
    assert np.all(np.isfinite(gradient(lambda p: loss(y, p, weight), z)))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_importance_may_be_an_array(dtype):
    importance, p = [1.0, 2.0, 0.0, 0.5], P.astype(dtype)
    found = values(Ordinal, GRADES, p, importance=np.array(importance))
    close(found, values(Ordinal, GRADES, p, importance=importance), rtol=0, atol=0)


def test_answers_of_another_number_are_an_error():
    with raises(ValueError, "`importance`", "each of the 4 answers", "Received: [1.0, 2.0]"):
        Ordinal(importance=[1.0, 2.0])(GRADES, LOGITS)
    with raises(ValueError, "of shape (20,) or (20, 1)", "Received: y_true of shape (20, 4)"):
        Ordinal()(LOGITS, LOGITS)


# Kappa of maps and sequences.

MAP = RNG.integers(0, 4, (3, 4, 5))
GUESSES = RNG.integers(0, 4, (3, 4, 5))
SHARES = RNG.dirichlet(np.ones(4), (3, 4, 5)).astype("float32")
WEIGHT = (RNG.random((3, 4, 5)) * (RNG.random((3, 4, 5)) > 0.3)).astype("float32")


def one_hot(labels):
    return np.eye(4, dtype="float32")[labels]


@pytest.mark.parametrize("power, name", [(1, "linear"), (2, "quadratic")])
def test_the_mean_is_1_minus_the_kappa_of_all_positions(power, name):
    expected = 1 - cohen_kappa_score(MAP.ravel(), GUESSES.ravel(), weights=name)
    for target in (MAP, MAP[..., None], one_hot(MAP)):
        close(value(Kappa(4, power), target, one_hot(GUESSES)), expected)


def test_of_each_sample_it_is_that_of_the_sample_alone():
    loss = Kappa(4, over="sample", reduction="none")
    expected = [
        1 - cohen_kappa_score(y.ravel(), p.ravel(), weights="quadratic")
        for y, p in zip(MAP, GUESSES, strict=True)
    ]
    close(value(loss, MAP, one_hot(GUESSES)), expected)
    alone = [value(Kappa(4), MAP[i : i + 1], SHARES[i : i + 1]) for i in range(3)]
    close(value(loss, MAP, SHARES), alone)


def test_one_position_is_a_sample():
    y, p = MAP.reshape(-1), SHARES.reshape(-1, 4)
    close(value(Kappa(4), y[:, None], p[:, None]), value(Kappa(4), y, p))
    close(value(Kappa(4), MAP, SHARES), value(Kappa(4), y, p))


def test_weights_of_positions_act_in_all_means():
    """Those of each sample have the same sum, so that samples count alike."""
    weight = WEIGHT / WEIGHT.sum(axis=(1, 2), keepdims=True)
    expected = 1 - cohen_kappa_score(
        MAP.ravel(), GUESSES.ravel(), weights="quadratic", sample_weight=weight.ravel()
    )
    close(value(Kappa(4), MAP, one_hot(GUESSES), weight), expected)
    close(value(Kappa(4), MAP, masked(one_hot(GUESSES), weight > 0), weight), expected)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_positions_of_weight_0_are_not_there(over):
    loss, counts = Kappa(4, over=over), np.float32(np.arange(5) < 3)
    weight = np.broadcast_to(counts, (3, 4, 5)).copy()
    expected = value(loss, MAP[..., :3], SHARES[..., :3, :])
    y, p = MAP.copy(), SHARES.copy()
    y[..., 3:], p[..., 3:, :] = -1, np.nan
    close(value(loss, y, p, weight), expected)
    slopes = gradient(lambda p: loss(y, p, weight), p)
    inner = gradient(lambda p: loss(MAP[..., :3], p), SHARES[..., :3, :])
    close(slopes, np.concatenate([inner, np.zeros((3, 4, 2, 4))], axis=2))
    close(value(cl.wrappers.Masked(loss, mask_value=-1), y, SHARES), expected)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_a_sample_without_a_weight_has_the_value_0(over):
    weight = np.float32(np.arange(3)[:, None, None] > 0) * np.ones((3, 4, 5), "float32")
    found = value(Kappa(4, over=over, reduction="none"), MAP, SHARES, weight)
    assert found[0] == 0
    alone = value(Kappa(4, over=over, reduction="none"), MAP[1:], SHARES[1:])
    close(found[1:], alone)
    nothing = gradient(lambda p: Kappa(4, over=over)(MAP, p, 0 * weight), SHARES)
    np.testing.assert_array_equal(nothing, 0 * SHARES)


def test_a_sample_of_one_class_teaches_nothing():
    y = np.full((3, 4, 5), 2)
    loss = Kappa(4, over="sample")
    close(value(loss, y, SHARES), 1)
    close(gradient(lambda p: loss(y, p), SHARES), 0 * SHARES, atol=1e-6)


def test_the_channels_may_be_first():
    p = np.moveaxis(SHARES, -1, 1)
    loss = Kappa(4, data_format="channels_first")
    close(value(loss, MAP, np.ascontiguousarray(p), WEIGHT), value(Kappa(4), MAP, SHARES, WEIGHT))
