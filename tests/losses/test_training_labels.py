"""Losses of grades, margins, trees, tokens and towers train to a score that the plain loss misses.

The score, of data that were not trained on, is never the loss. The plain loss has as many steps and
the same first weights. Three seeds of the data or more were tried; comments say what they gave, and
the bounds leave room for the worst.
"""

import keras
import numpy as np
from keras import layers, ops
from scipy.special import expit, softmax
from sklearn.datasets import load_digits

import combined_losses as cl
from tests.losses.training import make, predicted, rows, train

GRADES = {
    "Ordinal": {"from_logits": True},
    "Ordinal, corn": {"method": "corn", "from_logits": True},
}
MARGINS = {"ArcFace": {"scale": 16.0}, "CosFace": {"scale": 16.0}}
TREES = {"TreeCrossEntropy": {"levels": [[0, 0, 0, 1, 1, 1, 2, 2, 2]], "from_logits": True}}
NOISY = {"SparseCrossEntropy": {"label_smoothing": 0.5, "from_logits": True}}
DRIFTED = {"ZLoss": {}}
TEACHERS = {"Distillation": {"temperature": 4.0}}
TOWERS = {"InBatchSoftmax": {}}
TABLES = (GRADES, MARGINS, TREES, NOISY, DRIFTED, TEACHERS, TOWERS)


def cross_entropy():
    return cl.as_loss(keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def network(features, *inner):
    return cl.Sequential([keras.Input((features,)), *inner])


def trained(model, loss, data, unseen, epochs):
    train(model, loss, *data, epochs=epochs)
    return predicted(model, unseen)


def shuffled_digits(seed):
    order = np.random.default_rng(seed).permutation(1797)
    x, y = load_digits(return_X_y=True)
    return (x[order] / 16).astype("float32"), y[order].astype("int32")


# Grades: ten of them, sixty samples.


def graded(samples, seed):
    """A score with noise, cut into grades; it depends on twelve features."""
    rng = np.random.default_rng(seed)
    way = np.random.default_rng(99).normal(size=12)
    x = rng.normal(size=(samples, 12)).astype("float32")
    score = x @ way / np.linalg.norm(way) + 0.3 * rng.normal(size=samples)
    return x, np.clip(np.floor(5 + 2.5 * score), 0, 9).astype("int32")


class OneScore(layers.Layer):
    """The same score for all answers, with a bias each: what "coral" asks for."""

    def build(self, shape):
        self.way = self.add_weight(shape=(shape[-1], 1))
        self.biases = self.add_weight(shape=(9,), initializer="zeros")

    def call(self, x):
        return x @ self.way + self.biases


def mean_error(more, truth):
    """In grades, of the median: the grade that is best for absolute errors."""
    return np.mean(np.abs(np.sum(more > 0.5, axis=-1) - truth))


@rows(GRADES)
def test_it_grades_by_few_samples(key):
    """`coral` 0.67 to 0.78 grades off, `corn` 1.34 to 1.54, cross-entropy 1.27 to 1.49."""
    data, (unseen, truth) = graded(60, seed=0), graded(1000, seed=100)
    coral = "method" not in GRADES[key]
    head = OneScore() if coral else layers.Dense(9)
    answers = expit(trained(network(12, head), make(key, GRADES[key]), data, unseen, 20))
    own = mean_error(answers if coral else np.cumprod(answers, axis=-1), truth)
    logits = trained(network(12, layers.Dense(10)), cross_entropy(), data, unseen, 20)
    plain = mean_error(1 - np.cumsum(softmax(logits, axis=-1), axis=-1)[:, :-1], truth)
    constant = mean_error(np.mean(data[1][:, None] > np.arange(9), axis=0), truth)
    if coral:  # which knows that the grades have one order
        assert own < 0.9 and plain > 1.15
    assert own < 1.7 < 1.9 < constant


# Margins.


class Cosines(layers.Layer):
    """With one centre for each of ten classes."""

    def build(self, shape):
        self.centres = self.add_weight(shape=(shape[-1], 10))

    def call(self, x):
        return ops.normalize(x, axis=-1) @ ops.normalize(self.centres, axis=0)


def mean_average_precision(embeddings, labels):
    """Where each looks up all others, the nearest by angle first."""
    e = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
    order = np.argsort(-(e @ e.T) + 9 * np.eye(len(e)), axis=-1)[:, :-1]
    hits = labels[order] == labels[:, None]
    precision = np.cumsum(hits, axis=-1) / np.arange(1, len(e))
    return np.mean(np.sum(precision * hits, axis=-1) / hits.sum(axis=-1))


@rows(MARGINS)
def test_digits_find_those_of_their_kind(key):
    """0.85 to 0.90; the embeddings before a softmax 0.78 to 0.79."""
    x, y = shuffled_digits(seed=0)
    found = []
    for head, loss in ((Cosines(), make(key, MARGINS[key])), (layers.Dense(10), cross_entropy())):
        embedding = [layers.Dense(32, activation="relu"), layers.Dense(8)]
        train(network(64, *embedding, head), loss, x[:400], y[:400])
        unseen = predicted(keras.Sequential([keras.Input((64,)), *embedding]), x[400:800])
        found.append(mean_average_precision(unseen, y[400:800]))
    assert found[0] > 0.83 and found[1] < 0.81


# Trees.


def grouped(samples, seed):
    """Nine blurred classes in three groups, which differ less than the classes in them."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    y = rng.integers(0, 9, samples)
    groups, classes = fixed.normal(size=(3, 10)), fixed.normal(size=(9, 10))
    x = 0.5 * groups[y // 3] + classes[y] + rng.normal(size=(samples, 10))
    return x.astype("float32"), y.astype("int32")


@rows(TREES)
def test_fewer_mistakes_leave_the_group(key):
    """Of all predictions 0.17 to 0.20 do, by cross-entropy 0.33, by a decay of 0.5 0.40 to 0.42.

    The network sees two features, too few for nine classes.
    """
    data, (unseen, truth) = grouped(300, seed=0), grouped(2000, seed=100)
    found = {}
    for decay in (-2.0, 0.0, 0.5):
        model = network(10, layers.Dense(2), layers.Dense(9))
        loss = make(key, {**TREES[key], "decay": decay})
        best = trained(model, loss, data, unseen, 15).argmax(axis=-1)
        found[decay] = np.mean(best // 3 != truth // 3)
    assert found[-2.0] < 0.25 and found[0.0] > 0.28 and found[0.5] > 0.35


# Labels of which every third is wrong.


@rows(NOISY)
def test_wrong_labels_do_less_harm(key):
    """Right 0.61 to 0.64 of the time, against 0.54 to 0.58; where it is wrong, it is 0.3 sure of
    itself, against 0.7.
    """
    rng = np.random.default_rng(0)
    x, truth = shuffled_digits(seed=0)
    y = np.where(rng.random(1797) < 0.4, rng.integers(0, 10, 1797), truth).astype("int32")
    right, sure = [], []
    for loss in (make(key, NOISY[key]), cross_entropy()):
        model = network(64, layers.Dense(64, activation="relu"), layers.Dense(10))
        z = trained(model, loss, (x[:300], y[:300]), x[300:], 10)
        hit = z.argmax(axis=-1) == truth[300:]
        right.append(np.mean(hit))
        sure.append(np.mean(softmax(z, axis=-1).max(axis=-1)[~hit]))
    assert right[0] > right[1] + 0.01
    assert sure[0] < 0.4 and sure[1] > 0.6


# Logits that have drifted.


@rows(DRIFTED)
def test_drifted_logits_come_back(key):
    """From a log-partition of 22 to 0.5 or 0.6; by cross-entropy alone to 28."""
    x, y = shuffled_digits(seed=0)
    drift, right = [], []
    parts = {"z": make(key, DRIFTED[key]), "entropy": cross_entropy()}
    for loss in (cl.CompositeLoss(parts, weights={"z": 0.01}), cross_entropy()):
        model = network(64, layers.Dense(10, bias_initializer=keras.initializers.Constant(20.0)))
        z = trained(model, loss, (x[:400], y[:400]), x[400:], 25)
        drift.append(np.mean(np.log(np.exp(z).sum(axis=-1))))
        right.append(np.mean(z.argmax(axis=-1) == y[400:]))
    assert drift[0] < 3 and drift[1] > 22
    assert min(right) > 0.9


# A teacher's answers.


@rows(TEACHERS)
def test_a_student_knows_a_digit_that_it_never_saw(key):
    """The answers tell how much each image looks like an 8: 0.49 to 0.67 of them are found."""
    x, y = shuffled_digits(seed=0)

    def net():
        return network(64, layers.Dense(32, activation="relu"), layers.Dense(10))

    teacher, others = net(), y[:900] != 8
    answers = trained(teacher, cross_entropy(), (x[:900], y[:900]), x[:900], 6)
    eights = y[900:] == 8
    found = []
    for loss, target in ((make(key, TEACHERS[key]), answers), (cross_entropy(), y[:900])):
        z = trained(net(), loss, (x[:900][others], target[others]), x[900:], 6)
        right = z.argmax(axis=-1) == y[900:]
        found.append((np.mean(right[eights]), np.mean(right)))
    assert found[0][0] > 0.35 and found[0][1] > 0.88
    assert found[1][0] == 0


# Two towers.

ITEMS = 40


def visits(number, seed):
    """Users, vectors, and the item that each takes, by its popularity and by taste."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(5)
    users = rng.normal(size=(number, 4))
    scores = 1.2 * users @ fixed.normal(size=(ITEMS, 4)).T - 1.3 * np.log(1 + np.arange(ITEMS))
    return users.astype("float32"), (scores + rng.gumbel(size=scores.shape)).argmax(-1)


def towers():
    """For a user and an item: their vectors; the item's has a bias."""
    user, item = keras.Input((4,), name="user"), keras.Input((), name="item", dtype="int32")
    query = layers.Dense(8)(layers.Dense(32, activation="relu")(user))
    query = ops.concatenate([query, ops.ones_like(query[:, :1])], axis=-1)
    vector = layers.Embedding(ITEMS, 9)(item)
    return cl.Model({"user": user, "item": item}, ops.stack([query, vector], axis=1))


@rows(TOWERS)
def test_what_users_take_is_among_the_first_five(key):
    """0.80 to 0.81 with the correction, 0.67 to 0.68 without.

    What is not corrected for is that popular items are negatives too often: of them 0.88 to 0.89
    are found, against 0.68 to 0.70. Of the 30 rare ones about as many, 0.64 to 0.66, in both.
    """
    (users, ids), (unseen, truth) = visits(2000, seed=0), visits(4000, seed=100)
    log_q = np.log(np.bincount(ids, minlength=ITEMS) + 0.1)
    found = []
    for own in (log_q - np.log(np.exp(log_q).sum()), None):
        model = towers()
        keras.utils.set_random_seed(0)
        loss = make(key, {**TOWERS[key], "log_q": own})
        model.compile(keras.optimizers.Adam(0.02), loss=loss)
        data = {"user": users, "item": ids.astype("int32")}
        model.fit(data, ids, batch_size=200, epochs=8, verbose=0, shuffle=False)
        every = {"user": np.zeros((ITEMS, 4), "float32"), "item": np.arange(ITEMS, dtype="int32")}
        items = predicted(model, every)[:, 1]
        queries = predicted(model, {"user": unseen, "item": np.zeros(4000, "int32")})[:, 0]
        first = np.argsort(-(queries @ items.T), axis=-1)[:, :5]
        hits = np.any(first == truth[:, None], axis=-1)
        found.append((np.mean(hits), np.mean(hits[truth >= 10])))
    assert found[0][0] > 0.76 and found[1][0] < 0.72
    assert min(found[0][1], found[1][1]) > 0.58
