"""How do I learn an embedding in which neighbours are alike? Digits, ten labelled images of each.

A classifier learns to separate classes, not to gather them: fewer of the hundred images that are
nearest to a given one show the same digit than with a contrastive term beside it. (The one image
that is nearest shows it as often either way.)
"""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

import combined_losses as cl


def load(labelled, seed):
    """Images to train on, as many of each digit, and others to search."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16 - 0.3).astype("float32")
    split = train_test_split(x, y, train_size=10 * labelled, stratify=y, random_state=seed)
    return split[0], split[2], split[1], split[3]


def train(loss, x, y, seed, steps):
    keras.utils.set_random_seed(seed)
    image = keras.Input((64,))
    hidden = layers.Dense(64, activation="relu")(image)
    embedding = layers.Dense(32)(hidden)
    digit = layers.Dense(10)(layers.LeakyReLU()(embedding))
    model = cl.Model(image, {"embedding": embedding, "digit": digit})
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    # All images in every step, many steps in an epoch.
    again = np.tile(np.arange(len(x)), steps)
    model.fit(x[again], {"digit": y[again]}, len(x), shuffle=False, verbose=0)
    return model


def neighbours(model, x, y, number=100):
    """How many of the nearest images, by angle, show the same digit: their share."""
    embedding = keras.ops.convert_to_numpy(model(x)["embedding"])
    search = NearestNeighbors(n_neighbors=number + 1, metric="cosine").fit(embedding)
    nearest = search.kneighbors(embedding, return_distance=False)[:, 1:]  # the first is itself
    return float(np.mean(y[nearest] == y[:, None]))


def main(seed=0, labelled=10, steps=200):
    x, y, x_test, y_test = load(labelled, seed)
    digit = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    terms = {"digit": cl.wrappers.OnOutput(digit, "digit")}
    plain = train(cl.CompositeLoss(terms), x, y, seed, steps)
    alike = cl.losses.SupervisedContrastive(temperature=0.1)
    terms["alike"] = cl.wrappers.OnOutput(alike, "embedding", target="digit")
    both = train(cl.CompositeLoss(terms), x, y, seed, steps)
    return {
        "cross-entropy": neighbours(plain, x_test, y_test),
        "with the contrastive term": neighbours(both, x_test, y_test),
    }


if __name__ == "__main__":
    print(main())
