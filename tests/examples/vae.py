"""How do I train a convolutional VAE and watch reconstruction and KL divergence apart?"""

import keras
from keras import layers, ops
from sklearn.datasets import load_digits

import combined_losses as cl


def kl(code):
    mean, log_variance = code
    return 0.5 * ops.sum(mean**2 + ops.exp(log_variance) - 1 - log_variance, axis=-1)


def main(seed=0, beta=3e-4, epochs=10):
    keras.utils.set_random_seed(seed)
    x = load_digits().images[..., None] / 16.0
    image = keras.Input((8, 8, 1))
    h = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    h = layers.Flatten()(h)
    mean, log_variance = layers.Dense(8)(h), layers.Dense(8)(h)
    noise = layers.GaussianNoise(1.0)(ops.zeros_like(mean))  # none outside training
    h = layers.Dense(4 * 4 * 16, activation="relu")(mean + ops.exp(log_variance / 2) * noise)
    h = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(layers.Reshape((4, 4, 16))(h))
    decoded = layers.Conv2D(1, 3, padding="same")(h)
    model = cl.Model(image, {"image": decoded, "mean": mean, "log_variance": log_variance})

    reconstruction = cl.wrappers.OnOutput("mse", "image", name="reconstruction")
    divergence = cl.wrappers.OnOutput(kl, ("mean", "log_variance"))
    model.compile(keras.optimizers.Adam(3e-3), loss=reconstruction + beta * divergence)
    return model.fit(x, x, batch_size=64, epochs=epochs, verbose=0).history


if __name__ == "__main__":
    print({name: values[-1] for name, values in main().items()})
