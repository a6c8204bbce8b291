"""What the classification losses claim: limits, slopes at extremes, agreement with others."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import cohen_kappa_score

import combined_losses as cl
from combined_losses.losses import focal_formulas
from tests.composite.children import value
from tests.contracts.cases.classification import one_hot, probabilities
from tests.gradients import gradient
from tests.messages import raises
from tests.oracles import classification

Binary = cl.losses.BinaryFocal
Categorical = cl.losses.CategoricalFocal
Sparse = cl.losses.SparseCategoricalFocal
Kappa = cl.losses.WeightedKappa

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, (5, 3))
ONE_HOT, SOFT = one_hot(LABELS), probabilities(5, 3, 4, seed=1)
PROBABILITIES, LOGITS = probabilities(5, 3, 4, seed=2), np.log(probabilities(5, 3, 4, seed=3))
GAMMAS = [0, 0.1, 0.5, 1, 1.5, 2, 3.0, 5]


def close(actual, expected, rtol=1e-5, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def column(*numbers):
    return np.array(numbers, "float32")[:, None]


def unreduced(loss, *arguments, **kwargs):
    return loss(*arguments, reduction="none", **kwargs)


# What each focal loss is when gamma is 0.
CROSS_ENTROPIES = {
    "binary": (Binary, SOFT, keras.losses.binary_crossentropy),
    "categorical": (Categorical, SOFT, keras.losses.categorical_crossentropy),
    "sparse": (Sparse, LABELS, keras.losses.sparse_categorical_crossentropy),
}


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("focal, y_true, keras_loss", CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_gamma_0_is_cross_entropy_as_keras_computes_it(focal, y_true, keras_loss, from_logits):
    y_pred = LOGITS if from_logits else PROBABILITIES
    expected = ops.convert_to_numpy(keras_loss(y_true, y_pred, from_logits=from_logits))
    close(value(unreduced(focal, 0, from_logits=from_logits), y_true, y_pred), expected)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_logits_and_their_probabilities_have_the_same_value(gamma):
    odds = np.log(PROBABILITIES / (1 - PROBABILITIES))
    for loss, y_true, z in ((Binary, SOFT, odds), (Categorical, SOFT, np.log(PROBABILITIES))):
        from_logits = value(unreduced(loss, gamma, from_logits=True), y_true, z)
        close(from_logits, value(unreduced(loss, gamma), y_true, PROBABILITIES))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_classes_with_hard_labels_are_the_binary_loss(gamma, from_logits):
    y, p = (LABELS > 1).astype("float32"), PROBABILITIES[..., 0]
    z = LOGITS[..., 0]
    pair = np.stack([np.zeros_like(z), z] if from_logits else [1 - p, p], axis=-1)
    single = (z if from_logits else p)[..., None]
    expected = value(unreduced(Binary, gamma, from_logits=from_logits), y[..., None], single)
    kwargs = {"from_logits": from_logits}
    close(value(unreduced(Categorical, gamma, **kwargs), np.stack([1 - y, y], -1), pair), expected)
    close(value(unreduced(Sparse, gamma, **kwargs), y, pair), expected)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_integer_labels_are_one_hot_ones(gamma, from_logits):
    arguments = (gamma, [0.5, 1.0, 1.5, 2.0])
    of_one_hot = unreduced(Categorical, *arguments, from_logits=from_logits)
    of_labels = unreduced(Sparse, *arguments, from_logits=from_logits)
    for labels in (LABELS, LABELS[..., None], LABELS.astype("uint8"), LABELS.astype("float32")):
        close(value(of_labels, labels, LOGITS), value(of_one_hot, ONE_HOT, LOGITS))
        close(slope(of_labels, labels, LOGITS), slope(of_one_hot, ONE_HOT, LOGITS), atol=1e-6)


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_categorical_loss_is_linear_in_the_labels(from_logits):
    loss = unreduced(Categorical, 2.0, [0.5, 1.0, 1.5, 2.0], from_logits=from_logits)
    parts = [value(loss, y_true, PROBABILITIES) for y_true in (ONE_HOT, SOFT)]
    mixed = value(loss, 0.3 * ONE_HOT + 0.7 * SOFT, PROBABILITIES)
    close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_two_classes_of_the_binary_loss_are_alike(gamma, from_logits):
    loss, other = (
        unreduced(Binary, gamma, alpha, from_logits=from_logits) for alpha in (0.2, 1 - 0.2)
    )
    swapped = -LOGITS if from_logits else 1 - PROBABILITIES
    y_pred = LOGITS if from_logits else PROBABILITIES
    close(value(other, 1 - SOFT, swapped), value(loss, SOFT, y_pred))


def test_alpha_is_the_weight_of_positives():
    plain = value(unreduced(Binary), column(1, 0), column(0.3, 0.3))
    for alpha in (0.25, 0, 1.0, 1e-4):
        weighted = value(unreduced(Binary, 2.0, alpha), column(1, 0), column(0.3, 0.3))
        close(weighted, plain * np.array([alpha, 1 - alpha]), atol=0)


def test_class_weights_are_not_normalised():
    plain = value(unreduced(Sparse), LABELS, PROBABILITIES)
    weighted = value(unreduced(Sparse, 2.0, [10, 20, 30, 40]), LABELS, PROBABILITIES)
    close(weighted, plain * (10 * LABELS + 10))


@pytest.mark.parametrize("loss", [Categorical, Sparse], ids=lambda loss: loss.__name__)
def test_class_weights_may_be_an_array_in_float16(loss):
    data = LABELS if loss is Sparse else ONE_HOT, PROBABILITIES.astype("float16")
    weights = [1.0, 2.0, 3.0, 4.0]
    found = value(loss(class_weight=np.array(weights)), *data)
    assert found == value(loss(class_weight=weights), *data)


@pytest.mark.parametrize("loss", [Categorical, Sparse], ids=lambda loss: loss.__name__)
def test_probabilities_are_not_divided_by_their_sum(loss):
    """So only that of the true class has a slope."""
    y_true = LABELS if loss is Sparse else ONE_HOT
    slopes = slope(loss(), y_true, PROBABILITIES)
    np.testing.assert_array_equal(slopes[ONE_HOT == 0], 0)
    assert np.all(slopes[ONE_HOT == 1] < 0)


@pytest.mark.parametrize("loss", [Categorical, Sparse], ids=lambda loss: loss.__name__)
def test_adding_a_number_to_all_logits_changes_nothing(loss):
    focal, y_true = loss(from_logits=True), LABELS if loss is Sparse else ONE_HOT
    close(value(focal, y_true, LOGITS + 64), value(focal, y_true, LOGITS))
    slopes = slope(focal, y_true, LOGITS + 64)
    close(slopes, slope(focal, y_true, LOGITS), atol=1e-6)
    close(slopes.sum(axis=-1), 0, atol=1e-7)


def test_the_more_gamma_the_less_the_right_ones_count():
    y_true, y_pred = column(1, 1, 1), column(0.99, 0.6, 1e-4)
    ratios = [value(unreduced(Binary, gamma), y_true, y_pred) for gamma in (0, 1, 2)]
    close(ratios[1] / ratios[0], [0.01, 0.4, 1 - 1e-4])
    close(ratios[2] / ratios[0], [0.01**2, 0.4**2, (1 - 1e-4) ** 2])


# Extremes.


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_logit_of_0_has_its_slope(gamma):
    """As a layer that starts with zeros has; |z| and max(z, 0) have none there to agree on."""
    for label in (0, 0.125, 0.5, 0.875, 1):
        # miss = 1/2 and ce = log(2), of slopes (1 - 2 y) / 4 and 1/2 - y
        own = 0.5**gamma * (0.5 - label) * (1 + gamma * np.log(2))
        loss = Binary(gamma, from_logits=True)
        close(value(loss, column(label), column(0)), 0.5**gamma * np.log(2))
        close(slope(loss, column(label), column(0)), [[own]])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_slope_at_a_confidently_wrong_logit_is_1(gamma):
    loss = unreduced(Binary, gamma, from_logits=True)
    y_true, y_pred = column(1, 0), column(-100, 100)
    close(value(loss, y_true, y_pred), [100, 100])
    np.testing.assert_array_equal(slope(loss, y_true, y_pred), column(-1, 1))
    loss = unreduced(Sparse, gamma, from_logits=True)
    close(value(loss, np.array([0]), np.array([[-100, 100]], "float32")), [200])
    close(slope(loss, np.array([0]), np.array([[-100, 100]], "float32")), [[-1, 1]])


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("label", [0, 1e-3, 0.3, 0.5, 0.9, 1])
def test_binary_logits_are_exact_whatever_their_size(label, gamma):
    """To the relative accuracy of float32, also where next to nothing is missed."""
    y_pred = column(-30, -20, -10, -3, -1e-3, 1e-3, 3, 10, 20, 30)
    y_true = np.full_like(y_pred, label)
    loss = unreduced(Binary, gamma, from_logits=True)
    expected = classification.binary_focal(y_true, y_pred, gamma, from_logits=True)
    close(value(loss, y_true, y_pred), expected[0], atol=1e-33)
    # The slope of a soft label has a zero, near which only its absolute size counts.
    atol = 1e-7 if 0 < label < 1 else 1e-33
    close(slope(loss, y_true, y_pred), expected[1], atol=atol)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_probabilities_of_exactly_0_and_1_are_those_of_the_formula(gamma):
    y_true, y_pred = column(0, 0, 1, 1, 0.5, 0.5), column(0, 1, 0, 1, 0, 1)
    values, slopes = classification.binary_focal(y_true, y_pred, gamma)
    close(value(unreduced(Binary, gamma), y_true, y_pred), values)
    close(slope(unreduced(Binary, gamma), y_true, y_pred), slopes)
    y_true, y_pred = one_hot([0, 1, 2, 3]), one_hot([0, 2, 2, 0])
    values, slopes = classification.categorical_focal(y_true, y_pred, gamma)
    for loss, target in ((Categorical, y_true), (Sparse, np.arange(4))):
        close(value(unreduced(loss, gamma), target, y_pred), values)
        close(slope(unreduced(loss, gamma), target, y_pred), slopes)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_huge_logits_are_finite(gamma):
    y_pred = np.array([[-1e4, 1e4, 0, -100], [100, 1e4, 1e4, 100]], "float32")
    for loss, y_true in (
        (Binary, [[1, 0, 1, 0], [0.5, 1, 0.2, 0]]),
        (Categorical, [[1, 0, 0, 0], [0.5, 0, 0.2, 0.3]]),
        (Sparse, [0, 1]),
    ):
        focal = loss(gamma, from_logits=True)
        assert np.isfinite(value(focal, np.array(y_true), y_pred))
        assert np.all(np.isfinite(slope(focal, np.array(y_true), y_pred)))


def test_float16_logits_do_not_overflow():
    y_true, y_pred = np.zeros((2, 2), "float16"), np.full((2, 2), 60_000, "float16")
    loss = Binary(from_logits=True)
    close(value(loss, y_true, y_pred), 60_000)
    close(gradient(lambda p: loss(y_true, p), y_pred), np.full((2, 2), 0.25), rtol=1e-3)


# Shapes and labels.


@pytest.mark.parametrize("label", [-1, 4, 255, float("nan")])
def test_a_label_out_of_range_is_nan_and_may_have_a_weight_of_0(label):
    y_true, y_pred = np.array([label, 2.0]), PROBABILITIES[0, :2]
    values = value(unreduced(Sparse), y_true, y_pred)
    np.testing.assert_array_equal(np.isnan(values), [True, False])
    assert np.all(np.isnan(value(unreduced(Kappa, 4), y_true, y_pred)))
    weight = np.array([0.0, 1.0], "float32")
    for loss in (Sparse(), Kappa(4)):
        close(value(loss, y_true, y_pred, weight), value(loss, [0, 2], y_pred, weight))


def test_labels_of_another_shape_are_an_error():
    with raises(ValueError, "argmax", "use CategoricalFocal", "Received: y_true of shape (5, 3, 4"):
        Sparse()(ONE_HOT, PROBABILITIES)
    with raises(ValueError, "of shape (5, 3) or (5, 3, 1)", "Received: y_true of shape (5, 2)"):
        Sparse()(LABELS[:, :2], PROBABILITIES)
    with raises(ValueError, "(5,), (5, 1) or (5, 4)", "Received: y_true of shape (5, 3)"):
        Kappa(4)(LABELS, PROBABILITIES[:, 0])
    with raises(ValueError, "Dense(3", "Received: y_pred of shape (5, 4)"):
        Kappa(3)(LABELS[:, 0], PROBABILITIES[:, 0])


@pytest.mark.parametrize("loss", [Categorical, Sparse], ids=lambda loss: loss.__name__)
def test_a_class_without_a_weight_is_an_error(loss):
    with raises(ValueError, "`class_weight`", "each of the 4 classes", "Received: [1.0, 2.0, 3.0]"):
        loss(class_weight=[1.0, 2.0, 3.0])(LABELS if loss is Sparse else ONE_HOT, PROBABILITIES)


# Kappa.

GRADES, GUESSES = RNG.integers(0, 4, 30), RNG.integers(0, 4, 30)
SHARES = probabilities(30, 4, seed=4)
WEIGHT = RNG.integers(0, 3, 30).astype("float32")


@pytest.mark.parametrize("power, name", [(1, "linear"), (2, "quadratic")])
def test_the_mean_is_1_minus_the_kappa_of_scikit_learn(power, name):
    loss = Kappa(4, power, reduction="mean_with_sample_weight")
    kappa = cohen_kappa_score(GRADES, GUESSES, weights=name)
    close(value(loss, GRADES, one_hot(GUESSES)), 1 - kappa)
    kappa = cohen_kappa_score(GRADES, GUESSES, weights=name, sample_weight=WEIGHT)
    close(value(loss, GRADES, one_hot(GUESSES), WEIGHT), 1 - kappa)


def test_labels_may_be_a_column_or_one_hot():
    expected = value(unreduced(Kappa, 4), GRADES, SHARES)
    for y_true in (GRADES[:, None], one_hot(GRADES), one_hot(GRADES).astype("int32")):
        close(value(unreduced(Kappa, 4), y_true, SHARES), expected)


def test_the_kappa_of_a_perfect_prediction_is_0():
    np.testing.assert_array_equal(value(unreduced(Kappa, 4), GRADES, one_hot(GRADES)), np.zeros(30))


def test_chance_is_1_whatever_is_guessed():
    for guess in SHARES[:3]:
        close(value(Kappa(4, 1.5), GRADES, np.tile(guess, (30, 1))), 1)


def test_two_balanced_classes_mistaken_for_each_other_are_2():
    close(value(Kappa(2), [0, 1, 0, 1], np.eye(2, dtype="float32")[[1, 0, 1, 0]]), 2)


def test_a_batch_of_one_class_teaches_nothing():
    """kappa is 0 there; a class too many in the prediction costs as much as it raises chance."""
    y_true = np.full(30, 2)
    close(value(Kappa(4), y_true, SHARES), 1)
    close(slope(Kappa(4), y_true, SHARES), np.zeros((30, 4)), atol=1e-6)


def test_one_class_that_alone_is_predicted_is_0():
    y_true, y_pred = np.full(30, 2), one_hot(np.full(30, 2))
    assert value(Kappa(4), y_true, y_pred) == 0
    assert np.all(np.isfinite(slope(Kappa(4), y_true, y_pred)))


def test_the_order_of_the_classes_may_be_reversed():
    reversed_order = value(unreduced(Kappa, 4, 1.3), 3 - GRADES, SHARES[:, ::-1].copy())
    close(reversed_order, value(unreduced(Kappa, 4, 1.3), GRADES, SHARES))


def test_two_classes_have_no_distances():
    y_true, y_pred = GRADES % 2, np.stack([SHARES[:, 0], 1 - SHARES[:, 0]], axis=1)
    close(value(Kappa(2, 0.5), y_true, y_pred), value(Kappa(2, 3), y_true, y_pred))


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_a_miss_costs_the_power_of_its_distance(power):
    values = value(unreduced(Kappa, 4, power), np.zeros(4, int), one_hot([0, 1, 2, 3]))
    close(values / values[1], np.arange(4.0) ** power)


def test_weights_act_on_the_frequencies():
    values, _ = classification.weighted_kappa(GRADES, SHARES, 4, sample_weight=WEIGHT)
    close(value(unreduced(Kappa, 4), GRADES, SHARES, WEIGHT), WEIGHT * values, atol=1e-6)


def test_the_slope_of_a_weight_of_2_is_that_of_the_sample_twice():
    loss = Kappa(4, reduction="sum")
    times = WEIGHT.astype(int)
    copies = gradient(lambda p: loss(np.repeat(GRADES, times), p), np.repeat(SHARES, times, 0))
    expected = np.zeros((30, 4))
    np.add.at(expected, np.repeat(np.arange(30), times), copies)
    close(gradient(lambda p: loss(GRADES, p, WEIGHT), SHARES), expected, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_weights_that_are_all_0_are_0(reduction):
    loss, weight = Kappa(4, reduction=reduction), np.zeros(30, "float32")
    assert value(loss, GRADES, SHARES, weight) == 0
    slopes = gradient(lambda p: loss(GRADES, p, weight), SHARES)
    np.testing.assert_array_equal(slopes, np.zeros((30, 4)))


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_labels_of_0_and_1_are_no_exception_among_soft_ones(gamma):
    """On torch they take less work where all are such, and only if the slope is of the logits."""
    y = np.array([0, 1, 0, 1, 0, 1, 0.5], "float32")
    z = np.array([-60, 60, 60, -60, 3, 3, 1], "float32")

    def losses(y, z):
        return focal_formulas.binary(y, z, gamma, True, None)

    def by_logits(number):
        return gradient(lambda z: losses(ops.convert_to_tensor(y[:number]), z), z[:number])

    def by_labels(number):
        return gradient(lambda y: losses(y, ops.convert_to_tensor(z[:number])), y[:number])

    hard, mixed = (
        ops.convert_to_numpy(losses(*map(ops.convert_to_tensor, (y[:n], z[:n])))) for n in (6, 7)
    )
    close(hard, mixed[:6], atol=0)
    close(by_logits(6), by_logits(7)[:6], atol=0)
    close(by_labels(6), by_labels(7)[:6], atol=0)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of torch alone")
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_derivatives_taken_forward_are_those_taken_backward(gamma):
    import torch

    loss = cl.losses.BinaryFocal(gamma, from_logits=True)
    y, z = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[0.5, -2.0, 3.0]])
    for arrays in ((y, z), (0.8 * y + 0.1, z)):
        ones = tuple(map(torch.ones_like, arrays))
        forward = torch.func.jvp(loss, arrays, ones)[1]
        backward = sum(each.sum() for each in torch.func.grad(loss, argnums=(0, 1))(*arrays))
        torch.testing.assert_close(forward, backward)
