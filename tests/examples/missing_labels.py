"""How do I train on several targets when most labels are missing? Wines, 60 % of labels unknown."""

import keras
import numpy as np
from sklearn.datasets import load_wine
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

import combined_losses as cl

TARGETS = ["flavanoids", "color_intensity", "proline"]


def load():
    """Three measurements from the ten others, all in units of their standard deviation."""
    wine = load_wine()
    table = (wine.data - wine.data.mean(axis=0)) / wine.data.std(axis=0)
    targets = np.isin(wine.feature_names, TARGETS)
    return table[:, ~targets], table[:, targets]


def score(x, y, x_test, y_test, seed):
    keras.utils.set_random_seed(seed)
    loss = cl.CompositeLoss(
        {
            name: cl.wrappers.OnSlice(cl.wrappers.Masked("mse"), np.s_[:, i : i + 1])
            for i, name in enumerate(TARGETS)
        }
    )
    model = cl.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(len(TARGETS), kernel_regularizer="l2"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    model.fit(x, y, batch_size=32, epochs=40, verbose=0)
    return float(r2_score(y_test, keras.ops.convert_to_numpy(model(x_test))))


def main(seed=0, missing=0.6):
    x, y = load()
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    known = np.where(np.random.default_rng(0).random(y.shape) < missing, np.nan, y)
    complete = ~np.isnan(known).any(axis=1)
    # The complete rows again and again, so that both models make the same number of steps.
    again = np.resize(np.flatnonzero(complete), len(x))
    return {
        "complete rows": int(complete.sum()),
        "score of complete rows": score(x[again], y[again], x_test, y_test, seed),
        "score of all rows, masked": score(x, known, x_test, y_test, seed),
    }


if __name__ == "__main__":
    print(main())
