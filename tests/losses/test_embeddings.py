"""What the losses of embeddings claim: limits, invariances, ranges, and who counts."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import compiled, gradient
from tests.messages import raises
from tests.oracles import embeddings as oracles

Contrastive, Pairs = cl.losses.Contrastive, cl.losses.ContrastivePairs
Triplet, NTXent = cl.losses.TripletSemiHard, cl.losses.NTXent
SupCon = cl.losses.SupervisedContrastive
Hard, Lifted = cl.losses.TripletHard, cl.losses.LiftedStructure
Similar, NPairs = cl.losses.MultiSimilarity, cl.losses.NPairs

BATCH_LOSSES = {
    Pairs: oracles.contrastive_pairs,
    Triplet: oracles.triplet_semi_hard,
    NTXent: oracles.nt_xent,
    SupCon: oracles.supervised_contrastive,
    Hard: oracles.triplet_hard,
    Lifted: oracles.lifted_structure,
    Similar: oracles.multi_similarity,
    NPairs: oracles.n_pairs,
}
every_batch_loss = pytest.mark.parametrize("loss", BATCH_LOSSES, ids=lambda loss: loss.__name__)
# Those whose values are means over the anchors that count; of all, every anchor has some term.
every_scaled_loss = pytest.mark.parametrize(
    "loss", [loss for loss in BATCH_LOSSES if loss is not Similar], ids=lambda loss: loss.__name__
)
of_distances = pytest.mark.parametrize("loss", [Pairs, Triplet], ids=lambda loss: loss.__name__)
of_cosines = pytest.mark.parametrize("loss", [NTXent, SupCon], ids=lambda loss: loss.__name__)

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 0, 3, 1, 2, 0])  # 3 is alone
X = RNG.normal(size=(10, 5)).astype("float32")
VIEWS = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def values(loss, labels, x, *weight, **arguments):
    return value(loss(reduction="none", **arguments), labels, x, *weight)


def slope(loss, labels, x, **arguments):
    own = loss(reduction="sum", **arguments)
    return gradient(lambda p: own(labels, p), x)


def cosines(x):
    x = np.float64(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


# Distances of pairs.


def test_similar_pairs_have_their_squared_distance_and_others_what_lacks_of_the_margin():
    y_true, distance = np.array([[1.0], [1.0], [0.0], [0.0], [0.0]]), [0.0, 0.5, 0.0, 0.5, 3.0]
    found = values(Contrastive, y_true, np.reshape(distance, (5, 1)), margin=2.0)
    close(found, [0.0, 0.25, 4.0, 2.25, 0.0])


def test_contrastive_is_linear_in_the_label():
    distance = np.full((3, 1), 0.3)
    same, other, half = values(Contrastive, np.array([[1.0], [0.0], [0.5]]), distance)
    close(half, (same + other) / 2)


def test_all_pairs_are_contrastive_of_their_distances():
    distance = np.linalg.norm(X[:, None] - X, axis=-1)
    same = (LABELS[:, None] == LABELS).astype("float32")
    for a in range(len(X)):
        others = np.arange(len(X)) != a
        rows = same[a : a + 1, others], distance[a : a + 1, others]
        of_pairs = values(Contrastive, *rows, margin=3.0)
        close(values(Pairs, LABELS, X, margin=3.0)[a], of_pairs[0])


# Triplets.


def addons(labels, x, margin=1.0):
    """The sum of TensorFlow Addons over its number of positive pairs, by its description."""
    distance, total, pairs = np.linalg.norm(np.float64(x)[:, None] - x, axis=-1), 0.0, 0
    for a, q in np.argwhere((labels[:, None] == labels) & ~np.eye(len(x), dtype=bool)):
        away = distance[a][labels != labels[a]]
        outside = away[away > distance[a, q]]
        total += max(margin + distance[a, q] - (outside.min() if outside.size else away.max()), 0)
        pairs += 1
    return total / pairs


@pytest.mark.parametrize("margin", [0.5, 1.0, 4.0])
def test_triplets_have_the_mean_of_addons(margin):
    close(value(Triplet(margin), LABELS, X), addons(LABELS, X, margin))


def line(*places):
    return np.array(places, "float32")[:, None]


def test_the_nearest_negative_beyond_the_positive_is_chosen():
    """Not the one that is nearer than it, and not the one that is farther still."""
    x = line(0.0, 1.0, -0.5, 1.5, 1.8)
    found = values(Triplet, np.array([0, 0, 1, 2, 3]), x, margin=1.0)
    # Anchor 0: 1 + 1 - 1.5. Anchor 1: negatives at 0.5, 0.8 and 1.5. Two pairs, five samples.
    close(found, np.array([0.5, 0.5, 0.0, 0.0, 0.0]) * 5 / 2)


def test_without_a_negative_beyond_it_is_the_farthest():
    close(values(Triplet, np.array([0, 0, 1, 2]), line(0.0, 5.0, 1.0, 2.0))[0], (1 + 5 - 2) * 4 / 2)


def test_beyond_means_farther_not_as_far():
    """The negative at 1 is no farther than the positive; that at 1.25 is."""
    found = values(Triplet, np.array([0, 0, 1, 2]), line(0.0, 1.0, -1.0, -1.25))[0]
    close(found, (1 + 1 - 1.25) * 4 / 2)


def test_a_triplet_pulls_the_positive_and_pushes_the_chosen_negative():
    found = slope(Triplet, np.array([0, 0, 1, 2]), line(0.0, 1.0, 1.5, -7.0))[:, 0] * 2 / 4
    # Anchor 0: d_aq - d_an = 1 - 1.5; anchor 1 likewise, 1 - 8 is below its margin.
    close(found, [(-1.0 + 1.0), 1.0, -1.0, 0.0])


def test_the_semi_hard_ones_are_those_of_the_other_class():
    for margin in (0.5, 4.0):
        other = values(Triplet, LABELS, X, margin=margin)
        close(values(Hard, LABELS, X, margin=margin, mining="semihard"), other)


def test_the_hardest_are_the_farthest_and_the_nearest():
    distance = np.linalg.norm(X[:, None] - X, axis=-1)
    same = LABELS[:, None] == LABELS
    far = np.where(same, distance, -np.inf).max(axis=1)
    near = np.where(same, np.inf, distance).min(axis=1)
    found = np.maximum(1 + far - near, 0)[same.sum(axis=1) > 1]
    assert value(Hard(), LABELS, X) == pytest.approx(found.mean(), rel=1e-5)


def test_the_lifted_margin_is_soft():
    """J is at least what the nearest negative alone gives, and at most log(number) more."""
    labels, x = np.array([0, 0, 1, 2, 3]), line(0.0, 3.0, 4.0, 8.0, 9.0)
    found = np.sqrt(2 * values(Lifted, labels, x) / (5 / 2))[:2]
    assert np.all(found >= 3 + 1 - 1) and np.all(found <= 3 + np.log(6))


# Cosines and products.


def test_products_of_unit_vectors_are_cosines():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    close(values(NPairs, LABELS, unit), values(NTXent, LABELS, X, temperature=1.0))


def test_what_is_similar_enough_is_let_go():
    """Positives within epsilon of the nearest negative stay; an anchor lacks one kind: nothing."""
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], "float32")
    assert np.all(values(Similar, [0, 0, 1, 1], x, epsilon=0.1) == 0)
    assert np.all(values(Similar, [0, 0, 1, 1], x) > 0)
    assert np.all(values(Similar, [0, 0, 0, 0], x, epsilon=0.1) == 0)
    wide = values(Similar, [0, 0, 1, 1], x, epsilon=3.0)
    close(wide, values(Similar, [0, 0, 1, 1], x))


def test_two_views_have_the_cross_entropy_of_simclr():
    logits = cosines(X) / 0.5
    np.fill_diagonal(logits, -np.inf)
    other_view = (np.arange(10) + 5) % 10
    expected = -log_softmax(logits, axis=1)[np.arange(10), other_view]
    close(values(NTXent, VIEWS, X), expected)


def test_with_one_positive_both_are_the_same():
    for temperature in (0.1, 1.0):
        both = [values(loss, VIEWS, X, temperature=temperature) for loss in (NTXent, SupCon)]
        close(*both)
        slopes = [slope(loss, VIEWS, X, temperature=temperature) for loss in (NTXent, SupCon)]
        close(*slopes, rtol=1e-4, atol=2e-6)


def test_the_mean_is_that_over_anchors_with_a_positive():
    """The supervised one by SciPy: all others in the denominator."""
    logits, of_anchors = cosines(X) / 0.1, []
    for a in range(10):
        others = np.delete(np.arange(10), a)
        positives = others[LABELS[others] == LABELS[a]]
        if len(positives):
            of_anchors.append(logsumexp(logits[a, others]) - logits[a, positives].mean())
    assert len(of_anchors) == 9
    close(value(SupCon(), LABELS, X), np.mean(of_anchors))


def test_ntxent_is_that_of_optax_where_all_have_equally_many_positives():
    optax = pytest.importorskip("optax")
    close(value(NTXent(), VIEWS, X), float(optax.losses.ntxent(X, VIEWS, temperature=0.5)))


@of_cosines
def test_collapsed_embeddings_know_nothing(loss):
    same = np.full((10, 5), 0.3, "float32")
    close(values(loss, VIEWS, same), np.full(10, math.log(9)))
    close(slope(loss, VIEWS, same), 0 * same, atol=2e-5)  # of slopes of 1 / 0.1 / 0.67 = 15 each


def test_k_positives_cost_at_least_log_k():
    labels = np.repeat(np.arange(4), 5)
    perfect = np.eye(4, dtype="float32")[labels]
    expected = math.log(4 + 15 * math.exp(-1 / 0.05)) - 0.0
    close(value(SupCon(temperature=0.05), labels, perfect), expected)
    assert value(NTXent(temperature=0.05), labels, perfect) < 1e-6


@of_cosines
def test_lengths_and_rotations_do_not_matter(loss):
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0].astype("float32")
    lengths = np.array([1e-3, 1, 7, 1e4, 1e20, 0.1, 1, 2, 3, 1e-5], "float32")[:, None]
    expected = values(loss, LABELS, X)
    close(values(loss, LABELS, X @ rotation), expected, rtol=1e-4)
    close(values(loss, LABELS, X * lengths), expected, rtol=1e-4)
    along = slope(loss, LABELS, X) * X  # nothing is to be had from another length
    close(along.sum(axis=1), np.zeros(10), atol=2e-5)


@of_distances
def test_rotations_and_a_common_offset_do_not_matter(loss):
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0].astype("float32")
    close(values(loss, LABELS, X @ rotation), values(loss, LABELS, X), rtol=1e-4)
    close(slope(loss, LABELS, X).sum(axis=0), np.zeros(5), atol=1e-5)
    whole = np.round(X * 64) / 64  # of few digits: an offset of 1000 leaves them as they are
    close(values(loss, LABELS, whole + 1000), values(loss, LABELS, whole))
    close(slope(loss, LABELS, whole + 1000), slope(loss, LABELS, whole), rtol=1e-4, atol=1e-5)


def test_units_of_distance():
    close(values(Triplet, LABELS, 3 * X, margin=3.0), 3 * values(Triplet, LABELS, X))
    close(values(Pairs, LABELS, 3 * X, margin=3.0), 9 * values(Pairs, LABELS, X))


# All of them.


@every_batch_loss
def test_it_is_its_twin_in_batches_of_all_kinds(loss):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        number, features, classes = rng.integers(2, [16, 6, 6])
        labels, x = rng.integers(0, classes, number), rng.normal(size=(number, features))
        expected, expected_slope = BATCH_LOSSES[loss](labels, x.astype("float32"))
        close(values(loss, labels, x.astype("float32")), expected, 2e-5)
        close(slope(loss, labels, x.astype("float32")), expected_slope, 2e-4, 2e-5)


@every_batch_loss
def test_values_go_with_their_samples(loss):
    order = RNG.permutation(10)
    close(values(loss, LABELS[order], X[order]), values(loss, LABELS, X)[order])


@every_batch_loss
def test_names_and_shape_of_the_labels_do_not_matter(loss):
    expected = values(loss, LABELS, X)
    for renamed in (np.array([7, -1, 100, 3])[LABELS], LABELS[:, None], LABELS.astype("float32")):
        close(values(loss, renamed, X), expected)
    close(values(loss, (LABELS % 2).astype(bool), X), values(loss, LABELS % 2, X))
    close(values(loss, [int(label) for label in LABELS], X), expected)


@every_batch_loss
def test_anchors_without_a_positive_have_no_value_but_where_they_push(loss):
    found = values(loss, LABELS, X, **({"margin": 9.0} if loss is Pairs else {}))
    assert (found[6] > 0) == (loss in (Pairs, Similar))


@every_scaled_loss
def test_a_batch_without_a_positive_has_nothing_to_learn(loss):
    for labels, x in ((np.arange(10), 100 * X), (np.array([4]), X[:1])):
        np.testing.assert_array_equal(values(loss, labels, x), np.zeros(len(x)))
        np.testing.assert_array_equal(slope(loss, labels, x), np.zeros_like(x))


@pytest.mark.parametrize(
    "loss", [Triplet, NTXent, Hard, Lifted, NPairs], ids=lambda loss: loss.__name__
)
def test_a_batch_of_one_class_has_nothing_to_learn(loss):
    labels = np.zeros(10, int)
    np.testing.assert_array_equal(values(loss, labels, X), np.zeros(10))
    np.testing.assert_array_equal(slope(loss, labels, X), np.zeros_like(X))


@every_batch_loss
def test_it_is_the_same_when_compiled(loss):
    own = loss(reduction="none")
    close(value(compiled(lambda y, p: own(y, p)), LABELS, X), values(loss, LABELS, X))


@pytest.mark.parametrize("shape", [(10, 4), (9,), (10, 2, 2), (9, 1)])
@every_batch_loss
def test_labels_of_another_shape_are_an_error(loss, shape):
    received = f"Received: y_true of shape {shape} and y_pred of shape (10, 5)"
    hint = "argmax" if shape == (10, 4) else "(10,) or (10, 1)"
    with raises(ValueError, loss.__name__, hint, received):
        loss()(np.zeros(shape, int), X)


@every_batch_loss
def test_embeddings_of_another_shape_are_an_error(loss):
    with raises(ValueError, loss.__name__, "(batch, features)", "y_pred of shape (10, 5, 1)"):
        loss()(LABELS, X[..., None])
