"""How do I train a box regressor on what I am scored by? Digits somewhere in a noisy image.

The score is the mean intersection over union of the boxes of their strokes. CIoU is one minus that,
and what it takes to have a slope everywhere; the error of the four numbers steadies the beginning.
"""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import combined_losses as cl

SIDE, TRAINED = 32, 1400


def load():
    """Images, and boxes in units of their side: centre, width and height."""
    rng, digits = np.random.default_rng(0), load_digits().images / 16
    images, boxes = np.zeros((len(digits), SIDE, SIDE)), np.zeros((len(digits), 4))
    for image, box, digit in zip(images, boxes, digits, strict=True):
        digit = np.kron(digit, np.ones(2 * [rng.integers(1, 3)]))  # as it is, or twice as large
        top, left = rng.integers(0, SIDE - len(digit) + 1, 2)
        image[top : top + len(digit), left : left + len(digit)] = digit
        rows, columns = np.nonzero(image > 0.25)
        begin, end = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
        box[:] = np.concatenate([(begin + end) / 2, end - begin]) / SIDE
    return (images + rng.normal(scale=0.2, size=images.shape))[..., None], boxes


def score(boxes, found):
    return 1 - float(cl.losses.IoU("center_xywh")(boxes, found))


def main(seed=0, epochs=10):
    keras.utils.set_random_seed(seed)
    images, boxes = load()
    convolution = {"strides": 2, "padding": "same", "activation": "relu"}
    model = cl.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Conv2D(16, 3, **convolution),
            layers.Conv2D(16, 3, **convolution),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(4, activation="sigmoid"),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(4e-3, 22 * epochs)
    loss = cl.CompositeLoss({"box": cl.losses.CIoU("center_xywh"), "mae": "mae"})
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    model.fit(images[:TRAINED], boxes[:TRAINED], batch_size=64, epochs=epochs, verbose=0)
    unseen, found = boxes[TRAINED:], model.predict(images[TRAINED:], verbose=0)
    mean_box = np.broadcast_to(boxes[:TRAINED].mean(axis=0), unseen.shape)
    return {"mean IoU": score(unseen, found), "of the mean box": score(unseen, mean_box)}


if __name__ == "__main__":
    print(main())
