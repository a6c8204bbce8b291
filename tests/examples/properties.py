"""How do I predict several properties, and how sure I am, when 60 % of the labels are missing?

Five measurements of wines, of which most samples have only some. One network gives each property a
mean and a spread; each has a curve of its own.
"""

import keras
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import combined_losses as cl

PROPERTIES = ["alcohol", "flavanoids", "hue", "color_intensity", "proline"]


def load(missing):
    """Inputs and properties in units of their standard deviation; labels to train on have holes."""
    wine = load_wine()
    table = (wine.data - wine.data.mean(axis=0)) / wine.data.std(axis=0)
    places = [wine.feature_names.index(name) for name in PROPERTIES]
    x, y = np.delete(table, places, axis=1), table[:, places]
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    holes = np.random.default_rng(0).random(y.shape) < missing
    return x, np.where(holes, np.nan, y), x_test, y_test


def train(x, y, epochs):
    """A model of 2 * 5 outputs, the means and then the log-variances, and its history."""
    likelihood = cl.wrappers.Masked(cl.losses.GaussianNLL())
    loss = cl.CompositeLoss(
        {"property": cl.wrappers.PerElement(likelihood, names=PROPERTIES, aggregation="mean")}
    )
    model = cl.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(16, activation="tanh", kernel_regularizer="l2"),
            keras.layers.Dense(2 * len(PROPERTIES), kernel_regularizer=keras.regularizers.L2(1e-3)),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    return model, model.fit(x, y, batch_size=32, epochs=epochs, verbose=0).history


def judge(model, x, y):
    """On complete labels: minus the log-likelihood, the error, and how often 2 sigma hold it."""
    predicted = keras.ops.convert_to_numpy(model(x))
    mean, deviation = predicted[:, :5], np.exp(predicted[:, 5:] / 2)
    return {
        "nll": float(cl.losses.GaussianNLL()(y, predicted)),
        "error": float(np.mean((y - mean) ** 2)),
        "within two sigma": float(np.mean(np.abs(y - mean) < 2 * deviation)),
    }


def main(seed=0, missing=0.6, epochs=20):
    x, known, x_test, y_test = load(missing)
    keras.utils.set_random_seed(seed)
    model, history = train(x, known, epochs)
    keras.utils.set_random_seed(seed)
    # The way around: what is missing is taken for the mean.
    filled, _ = train(x, np.where(np.isnan(known), np.nanmean(known, axis=0), known), epochs)
    return {
        "complete rows": int(np.sum(~np.isnan(known).any(axis=1))),
        **{f"masked, {name}": number for name, number in judge(model, x_test, y_test).items()},
        **{f"filled, {name}": number for name, number in judge(filled, x_test, y_test).items()},
        **{name: values[-1] for name, values in history.items()},
    }


if __name__ == "__main__":
    print(main())
