"""Small objects, thick slices, rare positives, few tags: trained to a score that plain losses miss.

The data are made on the spot; the score, of data that were not trained on, is never the loss. Each
training is that of the plain loss, with as many steps and the same first weights. Five seeds of the
data were tried; the bounds leave room for the worst.
"""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.ndimage import distance_transform_edt
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

import combined_losses as cl
from tests.losses.training import predicted, train

L = cl.losses


def cross_entropy():
    return L.BinaryFocal(gamma=0.0, from_logits=True)


def trained(model, loss, data, unseen, epochs):
    train(model, loss, *data, epochs=epochs)
    return predicted(model, unseen)


# Small objects: 9 faint pixels of 256, in one image of eight.


def faint_objects(images, seed):
    """Noise, `(images, 16, 16, 1)`, brighter by two deviations where an object is; and its mask."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, 16, 16, 1), "float32")
    for mask in masks[: images // 8]:
        row, column = rng.integers(0, 13, 2)
        mask[row : row + 3, column : column + 3] = 1.0
    noise = rng.normal(size=masks.shape)
    return (noise + 2.0 * masks).astype("float32"), masks


def finder():
    return cl.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(8, 5, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )


def test_dice_over_the_batch_finds_objects_that_most_images_lack():
    """With Dice of each image, false alarms in seven empty images outweigh the missed object."""
    x, y = faint_objects(256, seed=100)
    ious = {}
    for over in ("sample", "batch"):
        loss = L.Dice(over=over, from_logits=True)
        found = trained(finder(), loss, faint_objects(64, seed=0), x, epochs=8) > 0
        ious[over] = np.sum(found * y) / np.sum(found | (y > 0))
    assert ious["batch"] > 0.3
    assert ious["sample"] < 0.05


# Thick slices: 5 mm apart, with pixels of 1 mm.

SPACING = [5.0, 1.0, 1.0]


def volumes(seed):
    """Four volumes of 11 slices, `(4, 11, 12, 12, 4)`: kinds of tissue in noise; and an object.

    Of two kinds a quarter lies outside the object: of the third 3 to 4 slices away, which is 20 mm,
    of the fourth 1 to 3 pixels away.
    """
    rng = np.random.default_rng(seed)
    kind = np.zeros((4, 11, 12, 12), int)
    kind[:, 4:7, 3:9, 3:9] = 1
    kind[:, 4:7, 3:6, 3:6] = 2
    kind[:, 4:7, 6:9, 6:9] = 3
    masks = (kind[..., None] > 0).astype("float32")
    for volume in kind:
        row, column = rng.integers(3, 7, 2)
        volume[rng.choice([0, 10]), row : row + 3, column : column + 3] = 2
        row, column = rng.choice([0, 9]), rng.integers(3, 7)
        volume[rng.integers(4, 7), row : row + 3, column : column + 3] = 3
    x = np.eye(4)[kind] + 0.1 * rng.normal(size=(*kind.shape, 4))
    return x.astype("float32"), masks


def surface_distance(mask, found):
    """How far, on average, found voxels lie from the object and its voxels from those, in mm."""
    far = [
        distance_transform_edt(~other, sampling=SPACING)[each]
        for each, other in ((found, mask), (mask, found))
    ]
    return np.mean(np.concatenate(far))


# A weight at which the distances have a say beside cross-entropy.
CONTOURS = {"HausdorffDistance": 80.0, "SignedDistanceBoundary": 20.0}


@pytest.mark.parametrize("name", CONTOURS)
def test_spacing_leaves_no_false_alarms_that_are_far_in_millimetres(name):
    x, y = volumes(seed=50)
    distances = {}
    for spacing in (None, SPACING):
        contour = getattr(L, name)(from_logits=True, spacing=spacing)
        model = cl.Sequential([keras.Input((11, 12, 12, 4)), layers.Dense(1)])
        loss = cross_entropy() + CONTOURS[name] * contour
        found = trained(model, loss, volumes(seed=0), x, epochs=20) > 0
        pairs = zip(y[..., 0] > 0, found[..., 0], strict=True)
        distances[spacing is None] = np.mean([surface_distance(*pair) for pair in pairs])
    assert distances[False] < 0.45
    assert distances[False] < 0.8 * distances[True]


# One positive of a hundred.


def rare_positives(rows, seed):
    """Rows of 8 numbers: 90 % easy negatives, 9 % that differ from positives by a sign; labels."""
    rng = np.random.default_rng(seed)
    positives = rows // 100
    x, y = rng.normal(size=(rows, 8)), np.zeros((rows, 1))
    x[10 * positives :, 0] -= 4.0
    side = rng.choice([-1.5, 1.5], 10 * positives)
    other = np.where(np.arange(10 * positives) < positives, side, -side)
    x[: 10 * positives, 1:3] = np.stack([side, other], axis=1)
    x[: 10 * positives, 1:3] += 0.5 * rng.normal(size=(10 * positives, 2))
    y[:positives] = 1.0
    return x.astype("float32"), y.astype("float32")


def test_the_hardest_rows_alone_teach_to_find_one_of_a_hundred():
    """In 60 steps. Plain cross-entropy needs four times as many for the same order of the rows."""
    x, y = rare_positives(20000, seed=90)
    hardest = cl.wrappers.Hardest(cross_entropy(), fraction=0.02, over="batch")
    precisions, recalls = [], []
    for loss in (cross_entropy(), hardest):
        model = cl.Sequential(
            [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(1)]
        )
        found = trained(model, loss, rare_positives(4000, seed=0), x, epochs=6)
        precisions.append(average_precision_score(y, found))
        recalls.append(np.mean(found[y > 0] > 0))
    assert precisions[1] > 0.8 and recalls[1] > 0.4
    assert precisions[0] < 0.6 and recalls[0] < 0.25


# Two of forty tags, half of them not labelled.


def strips(images, labels, strips, seed):
    """Four places for a digit, half of them empty, `(strips, 256)`; which digit is where."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(labels), (strips, 4))
    there = rng.random((strips, 4, 1)) < 0.5
    x = there * images[chosen] / 16 + 0.1 * rng.normal(size=(strips, 4, 64))
    tags = there * np.eye(10)[labels[chosen]]
    return x.reshape(strips, 256).astype("float32"), tags.reshape(strips, 40).astype("float32")


def test_negatives_that_fade_out_and_may_be_wrong_rank_few_of_many_tags():
    """Longer trainings, of either, change nothing."""
    digits = load_digits()
    x, tags = strips(digits.data[:900], digits.target[:900], 600, seed=0)
    labelled = tags * (np.random.default_rng(1).random(tags.shape) < 0.5)
    unseen, truth = strips(digits.data[900:], digits.target[900:], 600, seed=50)
    precisions = []
    asymmetric = L.AsymmetricFocal(gamma_pos=0.0, margin=0.2, from_logits=True)
    for loss in (cross_entropy(), asymmetric):
        model = cl.Sequential(
            [keras.Input((256,)), layers.Dense(64, activation="relu"), layers.Dense(40)]
        )
        found = trained(model, loss, (x, labelled.astype("float32")), unseen, epochs=12)
        precisions.append(average_precision_score(truth, found, average="macro"))
    assert precisions[1] > precisions[0] + 0.05
    assert precisions[1] > 0.43
