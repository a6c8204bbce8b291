"""Losses of tokens and of logits: those of Keras and torch, what does not count, extremes."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.cases.classification import probabilities
from tests.gradients import gradient
from tests.losses.compiled import slope, values
from tests.masks import masked
from tests.messages import raises
from tests.weightings.test_absent import weights_of

L = cl.losses
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 7, (4, 5))
TOKENS[:, 3:] = RNG.integers(0, 2, (4, 2))  # some of them are padding
LOGITS = RNG.normal(0.0, 2.0, (4, 5, 7)).astype("float32")
MANY = RNG.normal(0.0, 2.0, (4, 5, 40)).astype("float32")  # which take another way
P = probabilities(4, 5, 7, seed=1)
WEIGHT = RNG.integers(0, 3, (4, 5)).astype("float32")
kinds = pytest.mark.parametrize("from_logits", [False, True])


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def data(from_logits):
    return LOGITS if from_logits else P


# SparseCrossEntropy.


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_the_smoothed_cross_entropy_of_one_hot_labels(smoothing, from_logits):
    options = {"label_smoothing": smoothing, "from_logits": from_logits}
    keras_loss = keras.losses.CategoricalCrossentropy(reduction="none", **options)
    one_hot, y_pred = np.eye(7, dtype="float32")[TOKENS], data(from_logits)
    expected = value(keras_loss, one_hot, y_pred)
    close(values(L.SparseCrossEntropy, TOKENS, y_pred, **options), expected)
    if from_logits:  # of probabilities Keras takes the slope through their sum
        expected = gradient(lambda p: keras_loss(one_hot, p), y_pred)
        close(slope(L.SparseCrossEntropy, TOKENS, y_pred, **options), expected, rtol=1e-4)


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_it_is_the_focal_loss_that_fades_nothing(smoothing, from_logits):
    options = {"label_smoothing": smoothing, "from_logits": from_logits}
    y_pred = data(from_logits)
    expected = values(L.SparseCategoricalFocal, TOKENS, y_pred, gamma=0.0, **options)
    for labels in (TOKENS, TOKENS[..., None]):
        close(values(L.SparseCrossEntropy, labels, y_pred, **options), expected)
    expected = slope(L.SparseCategoricalFocal, TOKENS, y_pred, gamma=0.0, **options)
    close(slope(L.SparseCrossEntropy, TOKENS, y_pred, **options), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_many_classes_take_another_way_to_the_same_numbers(smoothing, size):
    labels, logits = RNG.integers(0, 40, (4, 5)), size * MANY
    options = {"label_smoothing": smoothing, "from_logits": True}
    for ask in (values, slope):
        expected = ask(L.SparseCategoricalFocal, labels, logits, gamma=0.0, **options)
        close(ask(L.SparseCrossEntropy, labels, logits, **options), expected, atol=1e-6 * size)


REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight")


@kinds
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_is_ignored_is_as_in_the_loss_of_keras(reduction, from_logits):
    """Under every reduction; with weights and masks, as in a component, where they count right."""
    options = {"ignore_class": 0, "from_logits": from_logits, "reduction": reduction}
    theirs = keras.losses.SparseCategoricalCrossentropy(**options)
    own, y_pred = L.SparseCrossEntropy(**options), data(from_logits)
    close(value(own, TOKENS, y_pred), value(theirs, TOKENS, y_pred))
    component, mask = cl.as_loss(theirs), RNG.random((4, 5)) > 0.3
    for weight in (None, WEIGHT, WEIGHT[:, 0]):
        for p in (y_pred, masked(y_pred, mask)):
            expected = value(component, TOKENS, p, weight)
            for found in (own, cl.CompositeLoss({"a": own})):
                close(value(found, TOKENS, p, weight), expected)


@pytest.mark.parametrize("ignored", [-1, 0, 255])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_ignored_positions_are_those_of_weight_0(ignored, smoothing):
    tokens = np.where(TOKENS == 0, ignored, TOKENS)
    void = np.where(tokens[..., None] == ignored, np.nan, LOGITS).astype("float32")
    options = {"label_smoothing": smoothing, "from_logits": True}
    loss = L.SparseCrossEntropy(ignore_class=ignored, **options)
    plain = L.SparseCrossEntropy(reduction="mean_with_sample_weight", **options)
    weight = (TOKENS > 0).astype("float32")
    close(value(loss, tokens, void), value(plain, TOKENS, LOGITS, weight))
    slopes = gradient(lambda p: loss(tokens, p), void)
    close(slopes, gradient(lambda p: plain(TOKENS, p, weight), LOGITS))
    assert np.all(slopes[tokens == ignored] == 0)


def test_where_all_is_ignored_it_is_0_and_absent():
    loss = L.SparseCrossEntropy(ignore_class=0, from_logits=True)
    nothing = np.zeros((4, 5), int)
    assert value(loss, nothing, LOGITS) == 0
    np.testing.assert_array_equal(gradient(lambda p: loss(nothing, p), LOGITS), 0 * LOGITS)
    found = weights_of({"a": loss, "b": L.ZLoss()}, nothing, LOGITS)
    assert found == {"a": 0, "b": 1}


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("label", [-1, 7, 255, np.nan])
def test_an_unknown_label_is_nan(label, smoothing, from_logits):
    tokens, y_pred = TOKENS.astype("float32"), data(from_logits)
    tokens[0, 0] = label
    options = {"label_smoothing": smoothing, "from_logits": from_logits}
    for arguments in (options, {**options, "ignore_class": 0}):
        found = values(L.SparseCrossEntropy, tokens, y_pred, **arguments)
        assert np.isnan(found[0, 0]) and np.isnan(found).sum() == 1
    weight = np.ones((4, 5), "float32")
    weight[0, 0] = 0
    loss = L.SparseCrossEntropy(**options)
    close(value(loss, tokens, y_pred, weight), value(loss, TOKENS, y_pred, weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_large_logits_are_finite_and_have_a_slope(smoothing, size):
    y, z = np.array([0]), size * np.array([[-1.0, 1.0, 0.0, 1.0]], "float32")
    options = {"label_smoothing": smoothing, "from_logits": True}
    found = values(L.SparseCrossEntropy, y, z, **options)
    # The log-probabilities are -2 size, 0, -size and 0, but for log(2).
    close(found, [size * (2 * (1 - smoothing) + 0.75 * smoothing) + np.log(2)])
    share = smoothing / 4
    expected = [[smoothing - 1 - share, 0.5 - share, -share, 0.5 - share]]
    close(slope(L.SparseCrossEntropy, y, z, **options), expected)


def test_no_array_of_one_hot_labels_is_made():
    """Of the size of the logits there are only floats: their logarithms, their slopes."""
    if keras.backend.backend() != "jax":
        pytest.skip("only JAX shows a program as text")
    import jax

    loss = L.SparseCrossEntropy(0.1, from_logits=True)
    for logits, shape in ((LOGITS, "[4,5,7]"), (MANY, "[4,5,40]")):
        program = str(jax.make_jaxpr(lambda z: loss.call(TOKENS, z))(logits))
        assert f"f32{shape}" in program
        assert not any(f"{kind}{shape}" in program for kind in ("i32", "i64", "bool", "u8"))


# ZLoss.


@pytest.mark.parametrize("low", [-1e6, -np.inf])
def test_a_class_that_is_ruled_out_changes_nothing(low):
    """Also beside a cross-entropy, with which it might share a softmax."""
    z = np.concatenate([np.full_like(LOGITS[..., :1], low), LOGITS], axis=-1)
    expected = value(L.ZLoss(), TOKENS, LOGITS)
    composite = cl.CompositeLoss({"a": L.SparseCrossEntropy(from_logits=True), "z": L.ZLoss()})
    close(ops.convert_to_numpy(composite.components(TOKENS + 1, z)["z"]), expected)
    found = gradient(lambda p: composite(TOKENS + 1, p), z)
    assert np.all(found[..., 0] == 0)
    assert np.all(np.isfinite(found))


def test_it_is_the_square_of_the_log_partition():
    close(values(L.ZLoss, TOKENS, LOGITS), np.log(np.exp(np.float64(LOGITS)).sum(-1)) ** 2)
    close(values(L.ZLoss, TOKENS, np.log(P)), 0, atol=1e-6)


def test_weights_and_masks_are_those_of_positions():
    loss, alone = L.ZLoss(reduction="mean_with_sample_weight"), values(L.ZLoss, TOKENS, LOGITS)
    close(value(loss, None, LOGITS, WEIGHT), np.average(alone, weights=WEIGHT))
    mask = WEIGHT > 0
    close(value(L.ZLoss(), None, masked(LOGITS, mask)), alone[mask].mean())
    void = np.where(mask[..., None], LOGITS, np.nan).astype("float32")
    close(value(loss, TOKENS, void, WEIGHT), np.average(alone, weights=WEIGHT))
    assert np.all(np.isfinite(gradient(lambda p: loss(None, p, WEIGHT), void)))


def test_beside_a_cross_entropy_it_has_the_same_number():
    """The two then share one log-softmax."""
    entropy = L.SparseCrossEntropy(from_logits=True)
    both = entropy + 1e-4 * L.ZLoss()
    expected = value(entropy, TOKENS, LOGITS) + 1e-4 * value(L.ZLoss(), TOKENS, LOGITS)
    close(value(both, TOKENS, LOGITS), expected)
    parts = both.components(TOKENS, LOGITS)
    close(ops.convert_to_numpy(parts["z_loss"]), value(L.ZLoss(), TOKENS, LOGITS))
    expected = gradient(lambda p: entropy(TOKENS, p) + 1e-4 * L.ZLoss()(TOKENS, p), LOGITS)
    close(gradient(lambda p: both(TOKENS, p), LOGITS), expected)


def test_training_brings_drifted_logits_back():
    """A number added to all logits changes no probability; only this loss sees it."""
    drifted = ops.convert_to_numpy(ops.log_softmax(LOGITS)) + 20
    for loss, moved in ((L.SparseCrossEntropy(from_logits=True), 0.0), (L.ZLoss(), 40.0)):
        slopes = gradient(lambda p, loss=loss: loss(TOKENS, p), drifted)
        close(slopes.sum(), moved, atol=1e-4)


# Distillation.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_the_divergence_of_softened_answers(temperature):
    teacher = RNG.normal(0.0, 2.0, (4, 5, 7)).astype("float32")
    soft = [ops.softmax(z / temperature) for z in (teacher, LOGITS)]
    expected = temperature**2 * ops.convert_to_numpy(keras.losses.kl_divergence(*soft))
    close(values(L.Distillation, teacher, LOGITS, temperature=temperature), expected, rtol=1e-4)
    slopes = slope(L.Distillation, teacher, LOGITS, temperature=temperature)
    q, p = map(ops.convert_to_numpy, soft)
    close(slopes, temperature * (p - q))


def test_numbers_added_to_all_logits_make_no_difference():
    found = values(L.Distillation, LOGITS + 5, LOGITS - 3)
    close(found, 0, atol=1e-5)


def test_hot_answers_are_compared_by_the_squares_of_their_logits():
    teacher = RNG.normal(size=(4, 5, 7)).astype("float32")
    found = values(L.Distillation, teacher, LOGITS, temperature=100.0)
    close(found, np.var(teacher - LOGITS, axis=-1) / 2, rtol=0.1, atol=5e-3)


def test_what_the_teacher_rules_out_costs_nothing():
    """Tokens that are not allowed have a logit of minus infinity."""
    teacher, student = LOGITS.copy(), LOGITS.copy()
    teacher[..., 0] = -np.inf
    student[..., 0] = 3.0
    assert np.all(np.isfinite(values(L.Distillation, teacher, student)))
    assert np.all(np.isfinite(slope(L.Distillation, teacher, student)))
    student[..., 0] = -np.inf
    close(values(L.Distillation, teacher, student), 0, atol=1e-6)
    assert np.all(np.isfinite(slope(L.Distillation, teacher, student)))


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_opposite_answers_are_finite_and_have_a_slope(size):
    z = size * np.array([[1.0, -1.0]], "float32")
    close(values(L.Distillation, z, -z), [4 * size])  # T^2 (2 size / T)
    close(slope(L.Distillation, z, -z), [[-2.0, 2.0]])


def test_logits_of_another_number_are_an_error():
    with raises(ValueError, "one shape", "Received: y_true of shape (4, 5, 6)"):
        L.Distillation()(LOGITS[..., :6], LOGITS)
