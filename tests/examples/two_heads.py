"""How do two heads share one loss? A network that predicts a number and how sure it is of it."""

import keras
from keras import layers, ops
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import combined_losses as cl


def likelihood(y_true, heads):
    """Minus the log-likelihood of a normal distribution, but for a constant."""
    mean, log_variance = heads
    return ops.mean((y_true - mean) ** 2 * ops.exp(-log_variance) + log_variance, axis=-1) / 2


def train(loss, x, y, epochs):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((x.shape[1],))
    h = layers.Dense(32, activation="relu")(inputs)
    outputs = {"mean": layers.Dense(1)(h), "log_variance": layers.Dense(1)(h)}
    model = cl.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model


def main(epochs=40):
    x, y = load_diabetes(return_X_y=True)
    x, y = 20 * x, ((y - y.mean()) / y.std())[:, None]
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
    mean = cl.wrappers.OnOutput("mse", "mean")
    both = cl.CompositeLoss(
        {
            "likelihood": cl.wrappers.OnOutput(likelihood, ("mean", "log_variance")),
            "error": cl.wrappers.StopGradient(mean),  # to watch
        }
    )
    model = train(both, x_train, y_train, epochs)
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    # The same mean with the best constant variance: that of its errors.
    constant = (1 + ops.log(scores["error_loss"])) / 2
    return {**scores, "constant_variance": float(constant)}


if __name__ == "__main__":
    print(main())
