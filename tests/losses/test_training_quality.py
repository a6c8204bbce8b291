"""Losses of qualities and of bins train: anchors on real digits, and edges in two places.

A key is the name of a class. The score of anchors is the intersection over union of the one with
the highest score, that of edges how many are found; neither is a loss. The plain loss, on the same
network, stays below.
"""

import functools

import keras
import numpy as np
from keras import layers

import combined_losses as cl
from tests.losses.test_training_boxes import SIDE, digits_somewhere
from tests.losses.training import make, rows, train

LOGITS = {"from_logits": True}
QUALITIES = {"QualityFocal": LOGITS, "Varifocal": LOGITS}
EDGES = {"DistributionFocal": LOGITS}
TABLES = (QUALITIES, EDGES)


# Anchors.


@functools.cache
def anchors_on_digits():
    """Margins of images, and how well 500 anchors fit the box of the digit, `(300, 500)`."""
    x, boxes = digits_somewhere()
    places = (np.arange(10) + 3.5) / SIDE
    lengths = np.array([4, 8]) / SIDE
    grid = np.meshgrid(places, places, lengths, [6 / SIDE, 8 / SIDE], indexing="ij")
    anchors = np.stack([each.ravel() for each in grid], axis=-1)
    (a0, a1), (b0, b1) = ends(anchors[None]), ends(boxes[:, None])
    shared = np.prod(np.maximum(np.minimum(a1, b1) - np.maximum(a0, b0), 0), axis=-1)
    areas = np.prod(a1 - a0, axis=-1) + np.prod(b1 - b0, axis=-1)
    return x, (shared / (areas - shared)).astype("float32")


def ends(boxes):
    """The two corners of boxes of centre and size."""
    return boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2


def best(iou, scores):
    """The mean intersection over union of the anchor with the highest score of each image."""
    return np.mean(np.take_along_axis(iou, scores.argmax(axis=-1)[:, None], axis=-1))


def scorer(anchors):
    return cl.Sequential(
        [
            keras.Input((2 * SIDE,)),
            layers.Dense(48, activation="relu"),
            layers.Dense(anchors, bias_initializer=keras.initializers.Constant(-2.0)),
        ]
    )


@rows(QUALITIES)
def test_the_anchor_with_the_highest_score_fits_best(key):
    """Anchors that share less than half with the digit are background, of the label 0."""
    x, iou = anchors_on_digits()
    quality = np.where(iou > 0.5, iou, 0).astype("float32")
    before, after = train(scorer(iou.shape[1]), make(key, QUALITIES[key]), x, quality, epochs=8)
    hard = (quality > 0).astype("float32")
    _, plain = train(scorer(iou.shape[1]), make("BinaryFocal", LOGITS), x, hard, epochs=8)
    assert best(iou, before) < 0.3
    assert best(iou, after) > 0.6
    assert best(iou, after) > best(iou, plain) + 0.01


# Edges.


BINS = 33


@functools.cache
def two_digits():
    """How much ink is in each column of two digits on a strip, where both begin, and one of these.

    Which of the two is the target is drawn by chance: no network can know it.
    """
    x, boxes = digits_somewhere()
    columns = x[:, :SIDE]
    begin = (boxes[:, 0] - boxes[:, 2] / 2) * SIDE
    half = len(x) // 2
    strips = np.concatenate([columns[:half], columns[half:]], axis=-1)
    both = np.stack([begin[:half], begin[half:] + SIDE], axis=-1)
    chosen = np.random.default_rng(0).integers(0, 2, half)
    return strips, both, both[np.arange(half), chosen].astype("float32")


def share_found(both, found):
    """How many predictions are within a pixel of one of the edges."""
    return np.mean(np.min(np.abs(both - found[:, None]), axis=-1) <= 1)


def edge_finder(outputs):
    return cl.Sequential(
        [
            keras.Input((2 * SIDE,)),
            layers.Dense(48, activation="relu"),
            layers.Dense(outputs),
        ]
    )


@rows(EDGES)
def test_it_finds_an_edge_that_may_be_in_two_places(key):
    """The most likely bin is one of them; the squared error ends between both."""
    x, both, edge = two_digits()
    before, after = train(edge_finder(BINS), make(key, EDGES[key]), x, edge)
    _, mean = train(edge_finder(1), cl.as_loss("mse"), x, edge[:, None] / BINS)
    assert share_found(both, before.argmax(axis=-1)) < 0.3
    assert share_found(both, after.argmax(axis=-1)) > 0.8
    assert share_found(both, mean[:, 0] * BINS) < 0.4
