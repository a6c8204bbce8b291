"""Smoothed labels, and prices of single classes, in the focal losses and the presets."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.cases.classification import one_hot, probabilities
from tests.gradients import gradient
from tests.messages import raises

L = cl.losses
LABELS = np.random.default_rng(0).integers(0, 4, (5, 3))
ONE_HOT = one_hot(LABELS)
TAGS = (probabilities(5, 3, 4, seed=1) > 0.25).astype("float32")
P, LOGITS = probabilities(5, 3, 4, seed=2), 3 * np.log(probabilities(5, 3, 4, seed=3))
PRICES = [0.2, 0.4, 0.7, 0.9]
kinds = pytest.mark.parametrize("from_logits", [False, True])


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def data(from_logits):
    return LOGITS if from_logits else P


@kinds
def test_without_gamma_it_is_that_of_keras(from_logits):
    y_pred, options = data(from_logits), {"from_logits": from_logits, "label_smoothing": 0.2}
    binary, categorical = keras.losses.binary_crossentropy, keras.losses.categorical_crossentropy
    own = L.BinaryFocal(0.0, reduction="none", **options)
    close(value(own, TAGS, y_pred), ops.convert_to_numpy(binary(TAGS, y_pred, **options)))
    own = L.CategoricalFocal(0.0, reduction="none", **options)
    close(
        value(own, ONE_HOT, y_pred), ops.convert_to_numpy(categorical(ONE_HOT, y_pred, **options))
    )


@kinds
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_integer_labels_are_smoothed_as_one_hot_ones(gamma, from_logits):
    options = {"from_logits": from_logits, "label_smoothing": 0.3, "reduction": "none"}
    for prices in (None, PRICES):
        sparse = L.SparseCategoricalFocal(gamma, prices, **options)
        dense = L.CategoricalFocal(gamma, prices, **options)
        y_pred = data(from_logits)
        close(value(sparse, LABELS, y_pred), value(dense, ONE_HOT, y_pred))
        slopes = [
            gradient(lambda p, f=f, y=y: f(y, p), y_pred)
            for f, y in ((sparse, LABELS), (dense, ONE_HOT))
        ]
        close(*slopes, rtol=1e-4)


def test_an_unknown_label_is_nan_still():
    loss = L.SparseCategoricalFocal(label_smoothing=0.1, reduction="none")
    found = value(loss, np.array([0, -1, 4]), P[0])
    assert list(np.isnan(found)) == [False, True, True]


@kinds
def test_smoothed_labels_are_soft_labels(from_logits):
    soft = TAGS * 0.8 + 0.1
    for options in ({}, {"alpha": 0.3}, {"alpha": PRICES, "pos_weight": 3.0}):
        own = L.BinaryFocal(label_smoothing=0.2, from_logits=from_logits, **options)
        plain = L.BinaryFocal(from_logits=from_logits, **options)
        close(value(own, TAGS, data(from_logits)), value(plain, soft, data(from_logits)))


@kinds
def test_a_right_logit_is_pulled_back(from_logits):
    """To 1 - s / 2."""
    least = np.array([[0.9]], "float32")
    least = np.log(least / (1 - least)) if from_logits else least
    loss = L.BinaryFocal(0.0, label_smoothing=0.2, from_logits=from_logits)
    slopes = [
        gradient(lambda p: loss(np.ones((1, 1)), p), least + step) for step in (-0.01, 0, 0.01)
    ]
    assert slopes[0] < 0 < slopes[2]
    close(slopes[1], 0.0, atol=1e-5)


# Prices of single classes.


@kinds
@pytest.mark.parametrize("name, number", [("alpha", 0.3), ("pos_weight", 2.5)])
def test_a_list_of_equal_numbers_is_the_number(name, number, from_logits):
    one = L.BinaryFocal(from_logits=from_logits, reduction="none", **{name: number})
    same = L.BinaryFocal(from_logits=from_logits, reduction="none", **{name: [number] * 4})
    close(value(same, TAGS, data(from_logits)), value(one, TAGS, data(from_logits)))


@kinds
def test_each_class_has_its_own(from_logits):
    y_pred, options = data(from_logits), {"from_logits": from_logits, "reduction": "none"}
    both = L.BinaryFocal(alpha=PRICES, pos_weight=(1.0, 2.0, 3.0, 4.0), **options)
    of_class = [L.BinaryFocal(alpha=PRICES[c], pos_weight=c + 1.0, **options) for c in range(4)]
    parts = [value(f, TAGS[..., c, None], y_pred[..., c, None]) for c, f in enumerate(of_class)]
    close(value(both, TAGS, y_pred), np.mean(parts, axis=0))
    mean = L.BinaryFocal(alpha=PRICES, pos_weight=[1.0, 2.0, 3.0, 4.0], from_logits=from_logits)
    for wrapper in (cl.wrappers.PerChannel(mean, size=4),):
        curves = cl.CompositeLoss({"a": wrapper}).components(TAGS, y_pred)
        close([float(curves[f"a/channel_{c}"]) for c in range(4)], np.mean(parts, axis=(1, 2)))
    elements = cl.CompositeLoss({"a": cl.wrappers.PerElement(mean, size=(3, 4))})
    found = elements.components(TAGS, y_pred)
    expected = np.stack(parts, axis=-1).mean(axis=0)
    close([float(v) for k, v in found.items() if k != "a"], expected.ravel())


def test_missing_tags_and_weights_of_tags_keep_their_price():
    there = np.random.default_rng(1).random(TAGS.shape) < 0.6
    missing = np.where(there, TAGS, np.nan).astype("float32")
    loss = L.BinaryFocal(alpha=PRICES, pos_weight=[1.0, 2.0, 3.0, 4.0])
    single = [
        value(
            L.BinaryFocal(alpha=PRICES[c], pos_weight=c + 1.0, reduction="none"),
            TAGS[..., c, None],
            P[..., c, None],
        )
        for c in range(4)
    ]
    elements = np.stack(single, axis=-1)
    close(value(cl.wrappers.Masked(loss), missing, P), elements[there].mean())
    weight = np.random.default_rng(2).random(TAGS.shape).astype("float32")
    close(value(loss, TAGS, P, weight), np.mean(weight * elements))
    total = L.BinaryFocal(alpha=PRICES, pos_weight=[1.0, 2.0, 3.0, 4.0], reduction="sum")
    close(value(total, TAGS, P, weight), np.sum(weight * elements) / 4)
    first = np.moveaxis(TAGS, -1, 1), np.moveaxis(P, -1, 1)
    of_first = L.BinaryFocal(
        alpha=PRICES, pos_weight=[1.0, 2.0, 3.0, 4.0], data_format="channels_first"
    )
    close(value(of_first, *first), np.mean(elements))


@kinds
def test_a_positive_is_priced_as_in_torch(from_logits):
    """`binary_cross_entropy_with_logits(pos_weight=)`: -w y log p - (1 - y) log(1 - p)."""
    y_pred, weight = data(from_logits), np.array([0.5, 1.0, 2.0, 8.0])
    p = 1 / (1 + np.exp(-np.float64(y_pred))) if from_logits else np.float64(y_pred)
    expected = -np.mean(weight * TAGS * np.log(p) + (1 - TAGS) * np.log(1 - p), axis=-1)
    loss = L.BinaryFocal(0.0, pos_weight=[*weight], from_logits=from_logits, reduction="none")
    close(value(loss, TAGS, y_pred), expected)


@pytest.mark.parametrize("name", ["alpha", "pos_weight"])
def test_a_list_must_have_a_number_for_each_class(name):
    with raises(ValueError, f"`{name}` of BinaryFocal", "each of the 4 classes", "[0.5, 0.5]"):
        L.BinaryFocal(**{name: [0.5, 0.5]})(TAGS, P)


def test_extreme_logits_stay_finite_with_a_price():
    z = np.array([[100.0, -100.0, 0.0]], "float32")
    for y in (np.zeros((1, 3)), np.ones((1, 3))):
        for gamma in (0.0, 0.5, 2.0):
            loss = L.BinaryFocal(gamma, pos_weight=3.0, label_smoothing=0.1, from_logits=True)
            assert np.isfinite(value(loss, y, z))
            assert np.all(np.isfinite(gradient(lambda p, f=loss, y=y: f(y, p), z)))
    loss = L.BinaryFocal(0.0, pos_weight=3.0, from_logits=True)
    close(value(loss, np.ones((1, 1)), np.array([[-100.0]])), 300.0)


# The presets: the cross-entropy or focal part alone.

PRESETS = {
    L.dice_bce: "bce",
    L.dice_ce: "ce",
    L.dice_focal: "focal",
    L.generalized_dice_focal: "focal",
    L.unified_focal: "focal",
    L.combo: "cross_entropy",
}


@pytest.mark.backend_free
def test_every_preset_has_it():
    assert {preset.__name__ for preset in PRESETS} == set(L.presets.__all__)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_a_preset_smooths_the_labels_of_its_pixels_alone(preset):
    share = 0.2
    for multilabel in (False, True):
        categorical = preset in (L.dice_ce, L.generalized_dice_focal) and not multilabel
        soft = ONE_HOT * (1 - share) + share / (4 if categorical else 2)
        found = preset(label_smoothing=share, multilabel=multilabel).components(ONE_HOT, P)
        of_soft = preset(multilabel=multilabel).components(soft.astype("float32"), P)
        of_hard = preset(multilabel=multilabel).components(ONE_HOT, P)
        for name, part in found.items():
            expected = of_soft if name == PRESETS[preset] else of_hard
            close(float(part), float(expected[name]))
    with raises(ValueError, "`label_smoothing`", "Received: 1.0"):
        preset(label_smoothing=1.0)
