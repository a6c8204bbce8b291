"""How do I segment images of an odd size? A U-Net with three outputs, void pixels, a rare class."""

import keras
import numpy as np
from keras import layers

import combined_losses as cl

SIZE, VOID, CLASSES = (31, 27), 255, 3  # background, discs, and dots, which are 2 % of the pixels
OUTPUTS = ["full", "half", "quarter"]


def draw(number, seed):
    """Noisy images of discs and dots; the rim of every disc is labelled by nobody."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    x = rng.normal(0, 0.3, (number, *SIZE, 1)).astype("float32")
    y = np.zeros((number, *SIZE), "uint8")
    for image, label in zip(x, y, strict=True):
        for kind, radius in ((1, rng.uniform(4, 7)), (2, 1.5), (2, 1.5)):
            centre = rng.uniform(4, np.array(SIZE) - 4)
            distance = np.hypot(rows - centre[0], columns - centre[1])
            image[distance < radius] += 1
            label[distance < radius] = kind
            if kind == 1:
                label[np.abs(distance - radius) < 0.7] = VOID
    return x, y


def convolve(x, filters, strides=1):
    return layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(x)


def grow(x, skip):
    """Twice as large, or one row or column less where the size before was odd."""
    x = layers.UpSampling2D()(x)
    surplus = [(0, x.shape[axis] - skip.shape[axis]) for axis in (1, 2)]
    return convolve(layers.Concatenate()([layers.Cropping2D(surplus)(x), skip]), skip.shape[-1])


def unet():
    """31 x 27, 16 x 14 and 8 x 7: each resolution has an output of its own."""
    inputs = keras.Input((*SIZE, 1))
    full = convolve(inputs, 8)
    half = convolve(full, 16, strides=2)
    quarter = convolve(convolve(half, 32, strides=2), 32)
    half = grow(quarter, half)
    full = grow(half, full)
    found = dict(zip(OUTPUTS, (full, half, quarter), strict=True))
    return cl.Model(
        inputs, {name: layers.Conv2D(CLASSES, 1, name=name)(x) for name, x in found.items()}
    )


def pixels_and_regions(weights):
    """Cross-entropy with a weight for each class, and the overlap of the regions; from logits."""
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
    dice = cl.losses.Dice(from_logits=True)
    return cl.CompositeLoss(
        {
            "ce": cl.wrappers.OneHot(
                cl.wrappers.ClassWeighted(entropy, weights), CLASSES, ignore_value=VOID
            ),
            "dice": cl.wrappers.OneHot(dice, CLASSES, ignore_value=VOID),
        },
        weights={"dice": 0.2},
    )


def train(weights, seed, epochs):
    keras.utils.set_random_seed(seed)
    model = unet()
    deep = cl.wrappers.DeepSupervision(pixels_and_regions(weights), outputs=OUTPUTS)
    model.compile(keras.optimizers.Adam(5e-3), loss=cl.CompositeLoss({"deep": deep}))
    x, y = draw(64, seed=0)
    history = model.fit(x, y, batch_size=16, epochs=epochs, verbose=0).history
    return model, {name: curve[-1] for name, curve in history.items()}


def main(seed=0, epochs=15):
    x, y = draw(32, seed=1)
    results = {}
    for name, weights in (("plain", [1.0, 1.0, 1.0]), ("weighted", [1.0, 1.0, 8.0])):
        model, logs = train(weights, seed, epochs)
        found = model.predict(x, verbose=0)["full"].argmax(axis=-1)
        results[f"{name}: dots found"] = float(np.mean(found[y == 2] == 2))
        results[f"{name}: pixels right"] = float(np.mean((found == y)[y != VOID]))
    return {**results, **logs}


if __name__ == "__main__":
    print(main())
