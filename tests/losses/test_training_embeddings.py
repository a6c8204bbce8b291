"""Losses of embeddings train: two layers, from scratch, on digits, scored on others.

As in `test_training.py`, the bounds are out of reach for the network before training.
"""

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

import combined_losses as cl
from tests.losses.real_data import digits
from tests.losses.training import make, predicted, rows, start, train

# Arguments. The score is the share of digits whose nearest neighbour is of their kind.
NEIGHBOURS = {
    "ContrastivePairs": {},
    "TripletSemiHard": {},
    "NTXent": {},
    "SupervisedContrastive": {},
    "TripletHard": {},
    "LiftedStructure": {},
    "MultiSimilarity": {},
    "NPairs": {"l2": 0.02},
    "ProxyAnchor": {"num_classes": 10, "dim": 5},
}
# The score is how well distances tell pairs of one digit from others, the area under the curve.
SIAMESE = {"Contrastive": {}}
TABLES = (NEIGHBOURS, SIAMESE)

LEARNED = slice(0, 300)
OTHERS = slice(300, 600)


def labels():
    return load_digits().target[:600]


def encoder(features):
    return [layers.Dense(32, activation="relu"), layers.Dense(features)]


def neighbours(embedding, labels):
    """Those of the second half, in the first."""
    half = len(labels) // 2
    nearest = KNeighborsClassifier(1).fit(embedding[:half], labels[:half])
    return nearest.score(embedding[half:], labels[half:])


@rows(NEIGHBOURS)
def test_neighbours_become_alike(key):
    x, y = digits(), labels()
    model = cl.Sequential([keras.Input((64,)), *encoder(5)])
    start(model)
    before = neighbours(predicted(model, x[OTHERS]), y[OTHERS])
    train(model, make(key, NEIGHBOURS[key]), x[LEARNED], y[LEARNED])
    after = neighbours(predicted(model, x[OTHERS]), y[OTHERS])
    assert after >= 0.7
    assert before < 0.5


def pairs(rows, seed):
    """Images by two, `(1000, 2, 64)`, about half of them of one digit, and whether they are."""
    rng = np.random.default_rng(seed)
    x, y = digits()[rows], labels()[rows]
    one = rng.integers(0, len(x), 1000)
    same = [rng.choice(np.flatnonzero(y == y[i])) for i in one]
    other = np.where(rng.random(1000) < 0.5, same, rng.integers(0, len(x), 1000))
    return np.stack([x[one], x[other]], axis=1), (y[one] == y[other])[:, None].astype("float32")


def siamese():
    """The same layers for both images, and the distance of what they give."""
    images = keras.Input((2, 64))
    embeddings = images
    for layer in encoder(3):
        embeddings = layer(embeddings)
    square = ops.sum(ops.square(embeddings[:, 0] - embeddings[:, 1]), axis=-1, keepdims=True)
    return cl.Model(images, ops.sqrt(square + 1e-6))


@rows(SIAMESE)
def test_distances_tell_whether_two_are_alike(key):
    (x, y), (x_other, y_other) = pairs(LEARNED, seed=0), pairs(OTHERS, seed=1)
    model = siamese()
    start(model)
    before = roc_auc_score(y_other, -predicted(model, x_other))
    train(model, make(key, SIAMESE[key]), x, y)
    after = roc_auc_score(y_other, -predicted(model, x_other))
    assert after >= 0.85
    assert before < 0.7
