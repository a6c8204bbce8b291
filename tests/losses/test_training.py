"""Losses of pixels, classes and numbers train: two layers, from scratch, on real data.

A key is the name of a class or preset and, where it has several rows, what tells them apart. The
scores are those of scikit-learn, or the intersection over union, never the loss itself; every bound
is out of reach for a constant and for the network before training.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.metrics import cohen_kappa_score, explained_variance_score, r2_score

import combined_losses as cl
from tests.composite.children import value
from tests.losses.real_data import diabetes, digits, eaves, petals, shadow_leaf_petal
from tests.losses.training import make, name_in, rows, train

LOGITS = {"from_logits": True}

# Photographs: arguments, image and truth, and the mean intersection over union of the classes.
SEGMENTS = {
    "Dice": (LOGITS, petals, 0.9),
    "Jaccard": (LOGITS, petals, 0.9),
    "Tversky": ({"fp_weight": 0.3, "fn_weight": 0.7, **LOGITS}, petals, 0.9),
    "FocalTversky": (LOGITS, petals, 0.9),
    "GeneralizedDice": (LOGITS, shadow_leaf_petal, 0.8),
    "MatthewsCorrelation": (LOGITS, petals, 0.9),
    "LovaszHinge": ({}, petals, 0.9),
    "LovaszSoftmax": (LOGITS, shadow_leaf_petal, 0.8),
    "LovaszSoftmax of a mask": (LOGITS, petals, 0.9),
    "BinaryFocal": (LOGITS, petals, 0.9),
    "CategoricalFocal": (LOGITS, shadow_leaf_petal, 0.8),
    "SparseCategoricalFocal": (LOGITS, shadow_leaf_petal, 0.8),
    "AsymmetricFocal": (LOGITS, petals, 0.9),
    "PolyCrossEntropy": (LOGITS, shadow_leaf_petal, 0.8),
    "combo": (LOGITS, petals, 0.9),
    "dice_bce": (LOGITS, petals, 0.9),
    "dice_ce": (LOGITS, shadow_leaf_petal, 0.8),
    "dice_focal": (LOGITS, petals, 0.9),
    "dice_focal of classes": ({"multiclass": True, **LOGITS}, shadow_leaf_petal, 0.8),
    "generalized_dice_focal": (LOGITS, shadow_leaf_petal, 0.8),
    "unified_focal": (LOGITS, petals, 0.9),
}
# The same, of what is added to Dice, with the weight: each outweighs Dice for a part of the way.
BESIDE_DICE = {
    "CenterlineDice": (0.2, LOGITS, eaves, 0.5),
    "BoundaryDisagreement": (10.0, {}, petals, 0.9),
    "SobelEdge": (20.0, {}, petals, 0.9),
    "SignedDistanceBoundary": (5.0, LOGITS, petals, 0.9),
    "HausdorffDistance": (100.0, LOGITS, petals, 0.9),
}
# A table: arguments, and between which bounds the share of targets below the prediction is, for
# each column of it. The explained variance, which an offset does not change, is the same for all.
EXPLAINED_VARIANCE = 0.35
FITS = {
    "Pinball": ({}, (0.4, 0.6)),
    "Pinball, 0.9": ({"quantile": 0.9}, (0.82, 0.97)),
    "Pinball of three": ({"quantile": [0.1, 0.5, 0.9]}, (0.03, 0.18), (0.4, 0.6), (0.82, 0.97)),
    "Expectile": ({}, (0.4, 0.6)),
    "Expectile, 0.9": ({"expectile": 0.9}, (0.68, 0.9)),
    "AsymmetricError": ({"under_weight": 4.0}, (0.6, 0.85)),
    "AsymmetricError from above": ({"over_weight": 8.0, "power": 1.5}, (0.2, 0.4)),
    "Linex": ({"sharpness": 2.0}, (0.6, 0.85)),
    "Linex from above": ({"sharpness": -2.0}, (0.2, 0.43)),
    "Charbonnier": ({}, (0.4, 0.6)),
}
BESIDE_MSE = {"UnderestimationPenalty": ({}, (0.6, 0.85))}
# A table and its uncertainty: arguments.
DISTRIBUTIONS = {
    "GaussianNLL": {},
    "BetaNLL": {},
    "BetaNLL, 1": {"beta": 1.0},
    "GaussianCRPS": {},
}
GRADES = {
    "WeightedKappa": {"num_classes": 4},
    "WeightedKappa, linear": {"num_classes": 4, "power": 1},
}
CODES = {"GaussianKL": {}}
TABLES = (SEGMENTS, BESIDE_DICE, FITS, BESIDE_MSE, DISTRIBUTIONS, GRADES, CODES)


# Photographs.


def segmenter(channels, activation=None):
    return cl.Sequential(
        [
            keras.Input((64, 96, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(channels, 3, padding="same", activation=activation),
        ]
    )


def iou(truth, y_pred, threshold=0.0):
    """The mean intersection over union of the classes."""
    channels = truth.shape[-1]
    if channels == 1:
        found = y_pred > threshold
    else:
        found = np.eye(channels, dtype=bool)[np.argmax(y_pred, axis=-1)]
    true = truth > 0.5
    both, either = (np.sum(mask, axis=(0, 1, 2)) for mask in (true & found, true | found))
    return np.mean(both / either)


def of_constants(truth):
    """The best score of predicting the same everywhere."""
    channels = truth.shape[-1]
    constants = [[-1.0], [1.0]] if channels == 1 else np.eye(channels)
    return max(iou(truth, np.broadcast_to(constant, truth.shape)) for constant in constants)


def check_segments(truth, before, after, bound, threshold=0.0):
    assert iou(truth, after, threshold) >= bound
    assert iou(truth, before, threshold) < bound - 0.3
    assert of_constants(truth) < bound - 0.3


@rows(SEGMENTS)
def test_it_segments_a_photograph(key):
    arguments, data, bound = SEGMENTS[key]
    x, truth = data()
    target = truth.argmax(axis=-1) if name_in(key) == "SparseCategoricalFocal" else truth
    before, after = train(segmenter(truth.shape[-1]), make(key, arguments), x, target, epochs=4)
    check_segments(truth, before, after, bound)


def dice_and(key):
    """Dice plus a weight times the other, both of logits or both of probabilities."""
    weight, arguments, *_ = BESIDE_DICE[key]
    return cl.losses.Dice(**arguments) + weight * make(key, arguments)


@rows(BESIDE_DICE)
def test_it_segments_a_photograph_beside_dice(key):
    _, arguments, data, bound = BESIDE_DICE[key]
    x, truth = data()
    activation, threshold = (None, 0.0) if arguments else ("sigmoid", 0.5)
    before, after = train(segmenter(1, activation), dice_and(key), x, truth)
    check_segments(truth, before, after, bound, threshold)


@pytest.mark.parametrize("key", ["CenterlineDice", "BoundaryDisagreement", "SobelEdge"])
def test_what_is_added_ends_lower_than_with_dice_alone(key):
    _, arguments, data, _ = BESIDE_DICE[key]
    x, truth = data()
    activation = None if arguments else "sigmoid"
    _, alone = train(segmenter(1, activation), cl.losses.Dice(**arguments), x, truth)
    _, beside = train(segmenter(1, activation), dice_and(key), x, truth)
    added = make(key, arguments)
    assert value(added, truth, beside) < 0.9 * value(added, truth, alone)


@pytest.mark.parametrize("key", ["SignedDistanceBoundary", "HausdorffDistance"])
def test_the_distances_also_segment_alone(key):
    """Where neither the truth nor the first prediction is empty."""
    x, truth = petals()
    before, after = train(segmenter(1), make(key, LOGITS), x, truth)
    check_segments(truth, before, after, bound=0.85)


# Tables.


def regressor(outputs, activation=None):
    return cl.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(16, activation="relu"),
            layers.Dense(outputs, activation=activation),
        ]
    )


def check_fit(loss, bounds):
    x, y = diabetes()
    before, after = train(regressor(len(bounds)), loss, x, y)
    for column, (low, high) in enumerate(bounds):
        assert explained_variance_score(y[:, 0], after[:, column]) >= EXPLAINED_VARIANCE
        assert explained_variance_score(y[:, 0], before[:, column]) < EXPLAINED_VARIANCE - 0.1
        assert low < np.mean(y[:, 0] < after[:, column]) < high


@rows(FITS)
def test_it_fits_a_table(key):
    arguments, *bounds = FITS[key]
    check_fit(make(key, arguments), bounds)


@rows(BESIDE_MSE)
def test_it_fits_a_table_beside_the_squared_error(key):
    arguments, *bounds = BESIDE_MSE[key]
    check_fit("mse" + make(key, arguments), bounds)


@rows(DISTRIBUTIONS)
def test_it_fits_a_table_and_knows_how_well(key):
    """68 % of the targets of a Gaussian lie within one deviation; a constant explains nothing."""
    x, y = diabetes()
    before, after = train(regressor(2), make(key, DISTRIBUTIONS[key]), x, y)
    assert r2_score(y[:, 0], after[:, 0]) >= 0.4
    assert r2_score(y[:, 0], before[:, 0]) < 0.2
    deviation = np.exp(after[:, 1] / 2)
    assert 0.5 < np.mean(np.abs(y[:, 0] - after[:, 0]) < deviation) < 0.8


@rows(GRADES)
def test_it_grades_a_table(key):
    """The four quarters of the patients; the kappa of a constant is 0."""
    x, y = diabetes()
    grade = np.searchsorted(np.quantile(y, [0.25, 0.5, 0.75]), y[:, 0])
    before, after = train(regressor(4, "softmax"), make(key, GRADES[key]), x, grade)
    kappas = [
        cohen_kappa_score(grade, y_pred.argmax(axis=-1), weights="quadratic")
        for y_pred in (before, after)
    ]
    assert kappas[1] >= 0.5
    assert kappas[0] < 0.3


# Codes.

CODE = 8


def autoencoder():
    """A variational one of two layers: to the means and log-variances of a code, and back."""
    image = keras.Input((64,))
    code = layers.Dense(2 * CODE)(image)
    mean, log_variance = code[:, :CODE], code[:, CODE:]
    noise = layers.GaussianNoise(1.0)(ops.zeros_like(mean))  # none outside training
    sample = mean + ops.exp(log_variance / 2) * noise
    return cl.Model(image, {"image": layers.Dense(64)(sample), "code": code})


@rows(CODES)
def test_it_keeps_the_codes_of_images_at_their_prior(key):
    """All codes together have its variance of 1; without the divergence it would be 4 to 11."""
    x = digits()
    error = cl.wrappers.OnOutput("mse", "image", name="mse")
    divergence = cl.wrappers.OnOutput(make(key, CODES[key]), "code")
    before, after = train(autoencoder(), error + 0.04 * divergence, x, x)
    explained = [
        explained_variance_score(x, outputs["image"], multioutput="variance_weighted")
        for outputs in (before, after)
    ]
    assert explained[1] >= 0.3
    assert explained[0] < 0.1
    mean, log_variance = after["code"][:, :CODE], after["code"][:, CODE:]
    variance = np.mean(mean**2 + np.exp(log_variance), axis=0)
    assert np.min(variance) > 0.5
    assert np.max(variance) < 2.0
