"""How do I train a convolutional VAE and watch reconstruction and KL divergence apart?"""

import keras
from keras import layers, ops
from sklearn.datasets import load_digits

import combined_losses as cl


class Sampling(layers.Layer):
    """mean + exp(log_variance / 2) * noise"""

    def call(self, moments):
        mean, log_variance = ops.split(moments, 2, axis=-1)
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean))


def kl(moments):
    mean, log_variance = ops.split(moments, 2, axis=-1)
    return 0.5 * ops.sum(mean**2 + ops.exp(log_variance) - 1 - log_variance, axis=-1)


def main(beta=0.02, epochs=15):
    keras.utils.set_random_seed(0)
    x = load_digits().images[..., None] / 16.0
    image = keras.Input((8, 8, 1))
    h = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    moments = layers.Dense(2 * 8)(layers.Flatten()(h))
    h = layers.Dense(4 * 4 * 16, activation="relu")(Sampling()(moments))
    h = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(layers.Reshape((4, 4, 16))(h))
    model = cl.Model(image, {"image": layers.Conv2D(1, 3, padding="same")(h), "moments": moments})
    reconstruction = cl.wrappers.OnOutput("mse", "image", name="reconstruction")
    divergence = cl.wrappers.OnOutput(cl.wrappers.PredictionOnly(kl), "moments", name="kl")
    model.compile(keras.optimizers.Adam(3e-3), loss=reconstruction + beta / 64 * divergence)
    return model.fit(x, x, batch_size=64, epochs=epochs, verbose=0).history


if __name__ == "__main__":
    print({name: values[-1] for name, values in main().items()})
