"""How do I denoise photographs without blurring them? A small network, a photograph, two losses.

It learns on the upper part of `china.jpg`, and is compared on the lower one: the similarity of
what it makes of a noisy image to the clean one, trained with the mean absolute error, and trained
with 0.84 times the multi-scale similarity plus 0.16 times that error (Zhao et al. 2017).
"""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_sample_image  # opening it takes Pillow

import combined_losses as cl

SIZE = 32


def crops(photograph, number, rng):
    """Clean pieces of a photograph in [0, 1], and the same with noise."""
    height, width = photograph.shape[:2]
    corners = zip(
        rng.integers(0, height - SIZE, number), rng.integers(0, width - SIZE, number), strict=True
    )
    clean = np.stack([photograph[i : i + SIZE, j : j + SIZE] for i, j in corners])
    return clean, clean + 0.1 * rng.normal(size=clean.shape).astype("float32")


def denoiser():
    image = keras.Input((SIZE, SIZE, 3))
    h = image
    for _ in range(2):
        h = layers.Conv2D(16, 3, padding="same", activation="relu")(h)
    return cl.Model(image, image + layers.Conv2D(3, 3, padding="same")(h))


def similarity(loss, train, test, seed, epochs):
    keras.utils.set_random_seed(seed)
    model = denoiser()
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train[0]) // 8)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    model.fit(train[1], train[0], batch_size=8, epochs=epochs, verbose=0)
    denoised = np.clip(model.predict(test[1], verbose=0), 0, 1)
    return 1 - float(cl.losses.SSIM()(test[0], denoised))


def main(seed=0, epochs=10):
    rng = np.random.default_rng(seed)
    photograph = (load_sample_image("china.jpg") / 255).astype("float32")
    train, test = crops(photograph[:260], 200, rng), crops(photograph[260:], 50, rng)
    scales = cl.losses.MultiScaleSSIM(power_factors=(0.5, 0.5))
    both = 0.84 * scales + 0.16 * cl.as_loss("mae")
    return {
        "noisy": 1 - float(cl.losses.SSIM()(*test)),
        "mae": similarity(cl.as_loss("mae"), train, test, seed, epochs),
        "ms-ssim and mae": similarity(both, train, test, seed, epochs),
    }


if __name__ == "__main__":
    print(main())
