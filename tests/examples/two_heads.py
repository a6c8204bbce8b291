"""How do two heads share one loss? A network that predicts a number and how sure it is of it."""

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import combined_losses as cl


def likelihood(y_true, heads):
    """Minus the log-likelihood of a normal distribution, but for a constant."""
    mean, log_variance = heads
    return ops.mean((y_true - mean) ** 2 * ops.exp(-log_variance) + log_variance, axis=-1) / 2


def main(seed=0, epochs=20):
    keras.utils.set_random_seed(seed)
    x, y = load_diabetes(return_X_y=True)
    x, y = 20 * x, ((y - y.mean()) / y.std())[:, None]
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)

    inputs = keras.Input((x.shape[1],))
    h = layers.Dense(16, activation="relu")(inputs)
    outputs = {"mean": layers.Dense(1)(h), "log_variance": layers.Dense(1)(h)}
    model = cl.Model(inputs, outputs)
    loss = cl.CompositeLoss(
        {
            "likelihood": cl.wrappers.OnOutput(likelihood, ("mean", "log_variance")),
            "error": cl.wrappers.StopGradient(cl.wrappers.OnOutput("mse", "mean")),  # to watch
        }
    )
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    history = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0).history

    heads = {name: ops.convert_to_numpy(head) for name, head in model(x_test).items()}
    sure = heads["log_variance"] < np.median(heads["log_variance"])
    errors = (heads["mean"] - y_test) ** 2
    return {
        "error of the surer half": float(errors[sure].mean()),
        "error of the other half": float(errors[~sure].mean()),
        **{name: values[-1] for name, values in history.items()},
    }


if __name__ == "__main__":
    print(main())
