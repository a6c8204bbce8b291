"""The losses of embeddings where numbers are large, small, equal or unknown, and with weights."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.losses.test_embeddings import (
    BATCH_LOSSES,
    LABELS,
    Contrastive,
    Hard,
    Lifted,
    NPairs,
    NTXent,
    Pairs,
    Similar,
    SupCon,
    Triplet,
    X,
    close,
    every_batch_loss,
    of_cosines,
    of_distances,
    slope,
    values,
)

RNG = np.random.default_rng(1)

# Distances.


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3])
@of_distances
def test_close_pairs_are_exact(loss, apart, offset):
    """Neighbours of one label and of two; |a|^2 + |b|^2 - 2ab would keep no digit of the last."""
    x = np.concatenate([X, X + apart * RNG.normal(size=X.shape)]).astype("float32")
    x, labels = x + np.float32(offset), np.concatenate([LABELS, (LABELS + 1) // 2])
    expected, expected_slope = BATCH_LOSSES[loss](labels, x)
    close(values(loss, labels, x), expected, 3e-5)
    close(slope(loss, labels, x), expected_slope, 1e-3, 1e-3)


@of_distances
def test_equal_embeddings_have_no_slope_between_them(loss):
    same = np.full((10, 5), 1000.3, "float32")
    np.testing.assert_array_equal(slope(loss, LABELS, same), np.zeros_like(same))
    x = X.copy()
    x[1:5] = x[0]
    expected, expected_slope = BATCH_LOSSES[loss](LABELS, x)
    close(values(loss, LABELS, x), expected)
    close(slope(loss, LABELS, x), expected_slope, 1e-4, 1e-5)


def test_collapsed_triplets_have_the_margin():
    """In the mean over the nine that have a positive."""
    same = np.ones((10, 5), "float32")
    for loss in (Triplet(margin=0.7), Hard(0.7), Hard(0.7, "all"), Hard(0.7, distance="cosine")):
        assert value(loss, LABELS, same) == pytest.approx(0.7)
    assert value(Hard(None, "all"), LABELS, same) == pytest.approx(np.log(2))
    np.testing.assert_array_equal(slope(Hard, LABELS, same), np.zeros_like(same))


def test_a_distance_at_the_margin_has_no_slope():
    y_true, distance = np.zeros((3, 1)), np.array([[1.0], [2.0], [0.0]])
    found = gradient(lambda p: Contrastive(reduction="sum")(y_true, p), distance)
    close(found, [[0.0], [0.0], [-2.0]])


@pytest.mark.parametrize("scale", [1e-15, 1e-4, 1e4, 1e15])
@every_batch_loss
def test_large_and_small_embeddings(loss, scale):
    x = (scale * X).astype("float32")
    assert np.all(np.isfinite(values(loss, LABELS, x)))
    assert np.all(np.isfinite(slope(loss, LABELS, x)))


@every_batch_loss
def test_an_embedding_that_is_not_a_number_is_not_passed_over(loss):
    x = X.copy()
    x[0, 0] = np.nan
    assert np.isnan(value(loss(), LABELS, x))


@every_batch_loss
@pytest.mark.parametrize("large", [1e15, 1e20, 3e38, np.inf])
@pytest.mark.parametrize("where", ["all", "one", "a number"])
def test_numbers_whose_squares_overflow_are_finite(loss, large, where):
    """A value that shows it, and no slope that would spoil the network."""
    x = X.copy()
    place = {"all": np.s_[:], "one": np.s_[0], "a number": np.s_[0, 0]}[where]
    x[place] = np.float32(large) * np.sign(x[place])
    found = value(loss(), LABELS, x)
    assert np.isfinite(found) and np.all(np.isfinite(slope(loss, LABELS, x)))
    if loss is Pairs or (loss is Triplet and where == "all"):
        assert found > 1e9


@pytest.mark.parametrize("loss", [Triplet, Pairs])
@pytest.mark.parametrize("large", [1e15, 1e18, 1e20])
def test_embeddings_of_huge_numbers_learn_as_large_ones_do(loss, large):
    """Different embeddings stay different: the same direction, and a value as large."""
    like, huge = ((scale * X).astype("float32") for scale in (1e12, large))
    assert value(loss(), LABELS, huge) > value(loss(), LABELS, like)
    slopes = [np.ravel(slope(loss, LABELS, x)) for x in (like, huge)]
    lengths = [np.linalg.norm(one) for one in slopes]
    close(slopes[1] / lengths[1], slopes[0] / lengths[0])


def test_a_huge_embedding_of_weight_0_changes_nothing():
    x, weight = X.copy(), np.ones(len(X), "float32")
    weight[0] = 0
    expected = value(Triplet(), LABELS, x, weight)
    x[0] = 1e30
    assert value(Triplet(), LABELS, x, weight) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("large", [1e20, 3e38, np.inf])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_distances_whose_squares_overflow_are_finite(label, large):
    y_true, y_pred = np.full((2, 3), label), np.full((2, 3), large, "float32")
    expected = 0 if label == 0 else 1e28  # up to the rounding of a mean
    assert value(Contrastive(), y_true, y_pred) == pytest.approx(expected, rel=4e-7)
    assert np.all(np.isfinite(gradient(lambda p: Contrastive()(y_true, p), y_pred)))


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e4, 1e15])
@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
def test_all_triplets_of_all_distances_are_finite(distance, mining, scale):
    for margin in (1.0, None):
        given = {"margin": margin, "mining": mining, "distance": distance}
        assert np.all(np.isfinite(values(Hard, LABELS, (scale * X).astype("float32"), **given)))
        found = slope(Hard, LABELS, (scale * X).astype("float32"), **given)
        assert np.all(np.isfinite(found)) and np.abs(found).max() > 0


# Cosines.


@pytest.mark.parametrize("sharp", [1e-3, 300.0])
def test_similarities_that_weigh_hardly_and_sharply(sharp):
    expected, _ = BATCH_LOSSES[Similar](LABELS, X, alpha=sharp, beta=sharp)
    close(values(Similar, LABELS, X, alpha=sharp, beta=sharp), expected, 1e-4)
    found = slope(Similar, LABELS, X, alpha=1e6, beta=1e6)
    assert np.all(np.isfinite(found)) and np.abs(found).max() > 0.1


@of_cosines
def test_an_embedding_of_zeros_is_finite(loss):
    x = X.copy()
    x[[0, 4]] = 0
    expected, _ = BATCH_LOSSES[loss](LABELS, x)
    close(values(loss, LABELS, x), expected)
    found = slope(loss, LABELS, x)
    assert np.all(np.isfinite(found))
    assert 1e4 < np.abs(found).max() < 1e9


@pytest.mark.parametrize("temperature", [0.01, 100.0])
@of_cosines
def test_low_and_high_temperatures_of_float16(loss, temperature):
    x = X.astype("float16")
    expected, expected_slope = BATCH_LOSSES[loss](LABELS, x, temperature=temperature)
    own = loss(temperature, reduction="none", dtype="float16")
    close(value(own, LABELS, x), expected, 1e-4, 1e-4)
    close(slope(loss, LABELS, x.astype("float32"), temperature=temperature), expected_slope, 1e-3)
    assert np.all(np.isfinite(gradient(lambda p: own(LABELS, p), x)))


@of_cosines
def test_opposite_views_at_a_low_temperature_still_have_a_slope(loss):
    """Their exponentials are 0 in float32 beside those of the negatives."""
    x = np.array([[1.0, 0.0], [-1.0, 0.01], [1.0, 0.01], [-1.0, 0.0]], "float32")
    labels = np.array([0, 0, 1, 1])
    expected, expected_slope = BATCH_LOSSES[loss](labels, x, temperature=0.01)
    assert expected.min() > 190 and np.abs(expected_slope).max() > 1
    close(values(loss, labels, x, temperature=0.01), expected)
    close(slope(loss, labels, x, temperature=0.01), expected_slope, 1e-3, 1e-3)


# Labels.


IDS = np.array([16777216, 16777217, 16777216, 16777217, 16777218])
SMALL = np.array([0, 1, 0, 1, 2])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rank", [1, 2])
@every_batch_loss
def test_large_ids_are_told_apart(loss, rank, dtype):
    """16777217 as float32 is 16777216."""
    ids = IDS if rank == 1 else IDS[:, None]
    own, weight = loss(reduction="none", dtype=dtype), np.array([1.0, 1.0, 1.0, 1.0, 0.5])
    close(value(own, ids, X[:5]), values(loss, SMALL, X[:5]))
    close(value(own, ids, X[:5], weight), values(loss, SMALL, X[:5], weight))
    composite = cl.CompositeLoss({"a": cl.wrappers.StopGradient(loss()), "b": loss()})
    close(value(composite, ids, X[:5]), 2 * value(loss(), SMALL, X[:5]))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has 32 bits of an integer")
@every_batch_loss
def test_ids_of_64_bits_are_told_apart(loss):
    close(values(loss, SMALL * 2**40, X[:5]), values(loss, SMALL, X[:5]))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@every_batch_loss
def test_a_model_tells_large_ids_apart(loss, policy):
    layer = keras.layers.Rescaling(1.0, dtype=policy)
    for cls in (cl.Sequential, keras.Sequential):
        model = cls([keras.Input((5,)), layer])
        model.compile("sgd", loss=loss())
        found = model.evaluate(X[:5], IDS, batch_size=5, verbose=0)
        x = X[:5].astype("float16").astype("float32") if policy == "mixed_float16" else X[:5]
        assert found == pytest.approx(float(value(loss(), SMALL, x)), rel=1e-4)


@pytest.mark.parametrize("label", [np.nan, 2.0**24, np.inf])
@every_batch_loss
def test_a_label_that_is_none_is_not_passed_over(loss, label):
    labels = LABELS.astype("float32")
    labels[3] = label
    assert np.all(np.isnan(values(loss, labels, X)))
    weight, rest = (np.arange(10) != 3).astype("float32"), np.arange(10) != 3
    known = values(loss, LABELS[rest], X[rest])
    close(values(loss, labels, X, weight)[rest], known)
    if np.isnan(label):
        close(value(cl.wrappers.Masked(loss()), labels, X), known.mean())


# Weights.


@every_batch_loss
def test_weight_0_is_not_there(loss):
    """Value and gradient of the others, also where what stands in for it has their label 0."""
    weight = np.array([1, 0, 1, 1, 1, 0, 1, 0, 1, 1], "float32")
    rest, expected = weight > 0, BATCH_LOSSES[loss](LABELS, X, sample_weight=weight)
    of_rest = BATCH_LOSSES[loss](LABELS[rest], X[rest])
    close(expected[0][rest], of_rest[0])
    x = X.copy()
    x[~rest] = np.nan
    for given in (X, x):
        close(values(loss, LABELS, given, weight), expected[0])
        own = loss(reduction="none")
        found = gradient(lambda p, own=own: own(LABELS, p, weight), given)
        close(found, expected[1], 1e-4, 1e-5)


@pytest.mark.parametrize(
    "loss", [Pairs, Triplet, NTXent, SupCon, Similar], ids=lambda loss: loss.__name__
)
def test_other_weights_act_on_the_values_of_anchors_alone(loss):
    weight = RNG.uniform(0.1, 3.0, 10).astype("float32")
    close(values(loss, LABELS, X, weight), weight * values(loss, LABELS, X))


@pytest.mark.parametrize("loss", [Hard, NPairs, Lifted], ids=lambda loss: loss.__name__)
def test_the_weighted_mean_is_that_over_the_terms_that_count(loss):
    """Label 3 is alone, and its anchor has no term."""
    weight = RNG.uniform(0.1, 3.0, 10).astype("float32")
    same = (LABELS[:, None] == LABELS).sum(axis=1) - 1
    terms = same if loss is Lifted else np.minimum(same, 1)
    of_terms = values(loss, LABELS, X) * terms.sum() / 10  # the sum over the terms of an anchor
    expected = np.sum(weight * of_terms) / np.sum(weight * terms)
    found = value(loss(reduction="mean_with_sample_weight"), LABELS, X, weight)
    assert found == pytest.approx(expected, rel=1e-5)


@every_batch_loss
def test_without_any_sample_there_is_nothing(loss):
    weight = np.zeros(10, "float32")
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight"):
        own = loss(reduction=reduction)
        assert value(own, LABELS, X, weight) == 0
        found = gradient(lambda p, own=own: own(LABELS, p, weight), X)
        np.testing.assert_array_equal(found, np.zeros_like(X))


@pytest.mark.backend_free
def test_names_of_the_family():
    others = {"InBatchSoftmax", "ProxyAnchor", "PairedContrastive", "BarlowTwins", "VICReg"}
    names = {*cl.losses.embeddings.__all__} - others
    assert {Contrastive, *BATCH_LOSSES} == {getattr(cl.losses, name) for name in names}
