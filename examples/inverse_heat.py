"""How do I find a constant of an equation from measurements? The diffusivity of a cooling rod.

u_t = D u_xx. 500 noisy measurements of u are known; D is not. A network is fitted to the
measurements and to the equation, and D is trained beside it, by the same optimizer: it is a weight
of the model. D is 0.1, the training begins with 1.

    python examples/inverse_heat.py runs/heat    # writes runs/heat/inverse_heat.png
    python examples/inverse_heat.py --quick      # a few seconds; draws nothing
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import combined_losses as cl

D, START = 0.1, 1.0  # the truth, and where the training begins
QUICK = {"epochs": 6, "steps": 50}
NOISE = 0.02  # standard deviation of the measurements; u is between 0 and 1.3


def exact(points):
    """Two sine waves that decay, each at its own rate."""
    x, t = points[:, :1], points[:, 1:]
    decay = [np.exp(-D * (n * np.pi) ** 2 * t) for n in (1, 2)]
    return np.sin(np.pi * x) * decay[0] + 0.5 * np.sin(2 * np.pi * x) * decay[1]


def measure(count, rng):
    """Places in the rod and times, and the temperatures that were read there."""
    points = rng.random((count, 2))
    return points, exact(points) + NOISE * rng.normal(size=(count, 1))


class Rod(cl.Model):
    """The temperature at each set of points; owns the diffusivity."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hidden = [layers.Dense(24, activation="tanh") for _ in range(3)]
        scale = layers.Rescaling(2.0, offset=-1.0)  # x and t are between 0 and 1
        self.network = keras.Sequential([keras.Input((2,)), scale, *hidden, layers.Dense(1)])
        # Its logarithm is trained, so that it stays positive.
        initial = keras.initializers.Constant(float(np.log(START)))
        self.log_diffusivity = self.add_weight(shape=(), initializer=initial)

    def call(self, x):
        return {f"u_{name}": self.network(points) for name, points in x.items()}

    @property
    def diffusivity(self):
        return ops.exp(self.log_diffusivity)


def equation(rod, x, y, u):
    d = cl.input_gradients(rod.network, x["pde"], derivatives=["t", "xx"], columns="xt")
    return ops.square(d["t"] - rod.diffusivity * d["xx"])


class Follow(keras.callbacks.Callback):
    """Writes the diffusivity into the logs of each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["diffusivity"] = float(ops.convert_to_numpy(self.model.diffusivity))


def train(seed=0, epochs=40, steps=100):
    """The trained model and its history."""
    keras.utils.set_random_seed(seed)
    measured, temperatures = measure(500, np.random.default_rng(seed))
    points = cl.PointSets(
        {"pde": cl.Box([0, 0], [1, 1], method="latin"), "data": measured},
        targets={"u_data": ("data", temperatures)},
        batch={"pde": 256, "data": 100},
        steps=steps,
        seed=seed,
    )
    loss = cl.CompositeLoss(
        {"pde": cl.wrappers.OnInputs(equation), "data": cl.wrappers.OnOutput("mse", "u_data")},
        weights={"pde": 0.1},
    )
    rod = Rod()
    rate = keras.optimizers.schedules.CosineDecay(1e-2, epochs * steps)
    rod.compile(keras.optimizers.Adam(rate), loss=loss)
    return rod, rod.fit(points, epochs=epochs, callbacks=[Follow()], verbose=0)


def main(seed=0, epochs=40, steps=100):
    """The curves of a training, by name: the diffusivity after each epoch and the losses."""
    return train(seed, epochs, steps)[1].history


def draw(rod, history, path):
    """The diffusivity over the epochs, and the temperature against what was measured."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    left.semilogy(
        1 + np.arange(len(history.epoch)), history.history["diffusivity"], label="trained"
    )
    left.axhline(D, color="black", linestyle="--", label="true")
    left.set(xlabel="epoch", ylabel="diffusivity")
    left.legend()
    cl.plots.components(history, ax=middle)
    x = np.linspace(0, 1, 101)
    for number, t in enumerate((0.0, 0.25, 0.5, 1.0)):
        points = np.column_stack([x, np.full_like(x, t)])
        found = ops.convert_to_numpy(rod.network(points.astype("float32")))
        right.plot(x, found, color=f"C{number}", label=f"t = {t}")
        right.plot(x, exact(points), color="black", linestyle=":", label=None if t else "exact")
    right.set(xlabel="x", ylabel="u")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="for the picture")
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rod, history = train(options.seed, **(QUICK if options.quick else {}))
    found = history.history["diffusivity"][-1]
    print(f"D = {found:.4f}, the truth is {D}: {abs(found / D - 1):.1%} off")
    if options.folder and not options.quick:
        options.folder.mkdir(parents=True, exist_ok=True)
        draw(rod, history, options.folder / "inverse_heat.png")
