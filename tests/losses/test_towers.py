"""Pairs from two towers: which items are negatives, the correction for popularity, extremes."""

import json
import math

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises

RNG = np.random.default_rng(0)
QUERY, ITEM = RNG.normal(size=(2, 6, 3)).astype("float32")
PAIRS = np.stack([QUERY, ITEM], axis=1)
SHARES = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
TWICE = np.array([0, 1, 0, 2, 3, 0])  # three pairs have the same item


def loss(temperature=0.5, **arguments):
    return cl.losses.InBatchSoftmax(temperature, **{"reduction": "none", **arguments})


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_it_is_cross_entropy_with_the_diagonal():
    scores, entropy = (
        QUERY @ ITEM.T / 0.5,
        keras.losses.CategoricalCrossentropy(from_logits=True, reduction="none"),
    )
    expected = value(entropy, np.eye(6, dtype="float32"), scores)
    for ids in (np.arange(6), np.arange(6)[:, None], np.array([9, 3, 7, 100, 4, 0])):
        close(value(loss(), ids, PAIRS), expected)


def test_the_correction_is_that_of_keras_rs():
    """Of its layer SamplingProbabilityCorrection, keras-rs 0.4.0, on torch."""
    theirs = [4.0091476, 1.5362808, 0.36309373, 1.0314964, 0.13489361, 3.4920404]
    close(value(loss(log_q=np.log(SHARES)), np.arange(6), PAIRS), theirs)


def test_other_pairs_of_the_same_item_are_no_negatives():
    found = value(loss(), TWICE, PAIRS)
    for a in range(6):
        rivals = [a, *(j for j in range(6) if TWICE[j] != TWICE[a])]
        scores = np.float64(QUERY[a] @ ITEM[rivals].T) / 0.5
        close(found[a], np.log(np.exp(scores).sum()) - scores[0])


def test_items_that_are_equally_frequent_need_no_correction():
    corrected = loss(log_q=np.full(6, -math.log(6)))
    close(value(corrected, TWICE, PAIRS), value(loss(), TWICE, PAIRS))


def test_with_all_items_in_proportion_it_is_the_softmax_over_the_items():
    """Half of the pairs have the item 0; the correction then counts each item once."""
    ids = np.array([0, 0, 0, 1, 2, 3])
    towers = np.stack([QUERY, ITEM[ids]], axis=1)
    corrected = value(loss(log_q=np.log([0.5, 1 / 6, 1 / 6, 1 / 6])), ids, towers)
    scores = np.float64(QUERY @ ITEM[:4].T) / 0.5
    expected = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(6), ids]
    close(corrected[3:], expected[3:])


def test_pairs_of_weight_0_are_not_there():
    weight = np.array([1, 0, 2, 1, 0, 1], "float32")
    kept, own = weight > 0, loss(log_q=np.log(SHARES), reduction="sum")
    ids, bad = np.where(kept, TWICE, -1), PAIRS.copy()
    bad[~kept] = np.nan
    expected = value(own, TWICE[kept], PAIRS[kept], weight[kept])
    close(value(own, ids, bad, weight), expected)
    slopes = gradient(lambda p: own(ids, p, weight), bad)
    close(slopes[kept], gradient(lambda p: own(TWICE[kept], p, weight[kept]), PAIRS[kept]))
    np.testing.assert_array_equal(slopes[~kept], 0)


def test_missing_ids_leave_their_pairs_out():
    known = np.array([1, 0, 1, 1, 0, 1], bool)
    ids = np.where(known, TWICE, -1)
    masked = cl.wrappers.Masked(loss(reduction="mean"), mask_value=-1)
    close(value(masked, ids, PAIRS), value(loss(reduction="mean"), TWICE[known], PAIRS[known]))


@pytest.mark.parametrize("ids", [np.zeros(6, int), np.zeros((6, 1), int)])
def test_without_a_negative_it_is_0(ids):
    close(value(loss(), ids, PAIRS), np.zeros(6), rtol=0, atol=0)
    assert value(loss(), ids[:1], PAIRS[:1]) == 0
    np.testing.assert_array_equal(gradient(lambda p: loss()(ids, p), PAIRS), 0)


def test_equal_towers_are_chance():
    same = np.broadcast_to(PAIRS[:1], PAIRS.shape).copy()
    close(value(loss(), np.arange(6), same), math.log(6))


def test_large_ids_are_not_rounded():
    ids = 2**24 + np.arange(6)
    close(value(loss(), ids, PAIRS), value(loss(), np.arange(6), PAIRS))


@pytest.mark.parametrize("unknown", [-1, 6])
def test_an_item_without_a_probability_makes_all_values_nan(unknown):
    ids = np.array([0, 1, unknown, 2, 3, 4])
    assert np.all(np.isnan(value(loss(log_q=np.log(SHARES)), ids, PAIRS)))
    assert np.all(np.isfinite(value(loss(), ids, PAIRS)))


@pytest.mark.parametrize("size", [100.0, 1e9])
def test_large_scores_are_finite_and_have_a_slope(size):
    """Each query points away from its item."""
    pairs = np.array([[[size, 0], [-1, 0]], [[0, size], [0, -1]]], "float32")
    close(value(loss(1.0), [0, 1], pairs), [size, size])
    slopes = gradient(lambda p: loss(1.0)([0, 1], p), pairs)
    close(slopes[:, 0], [[1, -1], [-1, 1]])
    close(slopes[:, 1], size * np.array([[-1, 1], [1, -1]]))


def test_an_array_of_probabilities_comes_back_from_the_config():
    own = loss(log_q=np.log(SHARES).astype("float32"))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(own)))
    again = keras.saving.deserialize_keras_object(config)
    close(value(again, TWICE, PAIRS), value(own, TWICE, PAIRS), rtol=0, atol=0)


def test_a_million_items_come_back_from_a_file(tmp_path):
    """As a list in the config, Keras would read them for minutes."""
    log_q = np.log(RNG.dirichlet(np.ones(10**6)) + 1e-12)
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Reshape((2, 2))])
    model.compile("sgd", loss=cl.CompositeLoss({"pairs": cl.losses.InBatchSoftmax(log_q=log_q)}))
    data = QUERY, np.arange(6) * 10**5
    before = model.evaluate(*data, verbose=0)
    model.save(tmp_path / "towers.keras")
    again = keras.models.load_model(tmp_path / "towers.keras")
    assert again.evaluate(*data, verbose=0) == pytest.approx(before, rel=1e-6)
    np.testing.assert_array_equal(again.loss.losses["pairs"].log_q, log_q)


def test_shapes_that_are_no_pairs_are_an_error():
    with raises(ValueError, "keras.ops.stack([query, item], axis=1)", "of shape (6, 3)"):
        loss()(np.arange(6), QUERY)
    with raises(ValueError, "(batch, 2, D)", "Received: y_pred of shape (6, 3, 2)"):
        loss()(np.arange(6), np.swapaxes(PAIRS, 1, 2))
    with raises(ValueError, "InBatchSoftmax", "Received: y_true of shape (5,)"):
        loss()(np.arange(5), PAIRS)
    with raises(ValueError, "sample_weight", "(6, 2)"):
        loss()(np.arange(6), PAIRS, np.ones((6, 2), "float32"))
