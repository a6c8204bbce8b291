"""Which weights suit the terms of a physics-informed fit? Burgers's equation, four answers.

u_t + u u_x = nu u_xx with nu = 0.01 / pi, for x in [-1, 1] and t in [0, 1]; u(x, 0) = -sin(pi x),
u(-1, t) = u(1, t) = 0. A shock stands at x = 0 from t = 1 / pi on. There are three sets of points
of different sizes, each with a term of its own. They are trained with equal weights, with fixed
weights that were tuned, with a rule that reads the values of the terms, and with one that reads
their gradients. The table has the relative L2 error against the solution of Cole and Hopf.

    python examples/burgers.py runs/burgers    # writes runs/burgers/burgers.png
    python examples/burgers.py --quick         # seconds; draws nothing

Measured on JAX, two seeds, 12,000 steps; seconds of one core, the mean of both:

| weights   | relative L2    | seconds |
| equal     | 1.5e-3, 1.3e-3 |     104 |
| tuned     | 2.0e-3, 4.4e-3 |      96 |
| ReLoBRaLo | 4.2e-3, 4.9e-3 |      98 |
| ConFIG    | 2.1e-3         |     145 |

"tuned" is the best of the factors 0.3, 3 and 100 for start and walls. ConFIG has one seed.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import combined_losses as cl

NU = 0.01 / np.pi
BATCH = {"pde": 256, "ic": 64, "bc": 32}
QUICK = {"epochs": 2, "steps": 15}
WEIGHTS = {
    "equal": dict,
    "tuned": lambda: {"weights": {"ic": 3.0, "bc": 3.0}},
    "ReLoBRaLo": lambda: {"weighting": cl.weightings.ReLoBRaLo(seed=0)},
    "ConFIG": lambda: {"weighting": cl.weightings.ConFIG(gradients="parameters")},
}


def exact(x, t, nodes=100):
    """The solution of Cole and Hopf for t > 0, by the quadrature of Gauss and Hermite."""
    place, weight = np.polynomial.hermite.hermgauss(nodes)
    y = x[..., None] - np.sqrt(4 * NU * t)[..., None] * place
    weight = weight * np.exp(-np.cos(np.pi * y) / (2 * np.pi * NU))
    return -np.sum(weight * np.sin(np.pi * y), axis=-1) / np.sum(weight, axis=-1)


X, T = np.meshgrid(np.linspace(-1, 1, 257), np.linspace(0, 1, 101)[1:])
EXACT = exact(X, T)


def draw_points(batch, steps, seed):
    """New points in every epoch. u is odd in x, so those of x >= 0 are enough."""
    return cl.PointSets(
        {
            "pde": cl.Box([0, 0], [1, 1], method="latin"),
            "ic": cl.Box([0, 0], [1, 0], method="latin"),
            "bc": cl.Box([1, 0], [1, 1], method="latin"),
        },
        targets={"u_ic": ("ic", lambda p: -np.sin(np.pi * p[:, :1])), "u_bc": ("bc", 0.0)},
        batch=batch,
        steps=steps,
        seed=seed,
    )


def build():
    """u as a network of (x, t), odd in x; and the model that has it at each set of points."""
    hidden = [layers.Dense(32, activation="tanh") for _ in range(4)]
    scale = layers.Rescaling([1.0, 2.0], offset=[0.0, -1.0])  # t to [-1, 1], as x
    half = keras.Sequential([keras.Input((2,)), scale, *hidden, layers.Dense(1)])
    point = keras.Input((2,))
    u = keras.Model(point, half(point) - half(layers.Rescaling([-1.0, 1.0])(point)))
    inputs = {name: keras.Input((2,), name=name) for name in BATCH}
    return u, cl.Model(inputs, {f"u_{name}": u(x) for name, x in inputs.items()})


def make_residual(u):
    def residual(model, points):
        """Of the equation, divided by a number that is large where u falls steeply.

        In the shock a small error of u makes a large residual, which would hide the residual of all
        other points (Liu et al. 2024, "Discontinuity computing using physics-informed neural
        networks").
        """
        d = cl.input_gradients(u, points, derivatives=["", "t", "x", "xx"], columns="xt")
        steepness = ops.stop_gradient(ops.abs(d["x"]) - d["x"])
        return (d["t"] + d[""] * d["x"] - NU * d["xx"]) / (1 + 0.1 * steepness)

    return residual


def train(weights, seed=0, epochs=60, steps=200, batch=BATCH, every=20):
    """The trained network and its history."""
    keras.utils.set_random_seed(seed)
    u, model = build()
    residual = make_residual(u)

    def equation(model, x, y, y_pred):
        return ops.square(residual(model, x["pde"]))

    terms = {
        "pde": cl.wrappers.OnInputs(equation),
        "ic": cl.wrappers.OnOutput("mse", "u_ic"),
        "bc": cl.wrappers.OnOutput("mse", "u_bc"),
    }
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
    loss = cl.CompositeLoss(terms, **WEIGHTS[weights]())
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss=loss)
    points = draw_points(batch, steps, seed)
    adapt = [cl.callbacks.AdaptPoints(points, {"pde": residual}, every=every)] if every else []
    return u, model.fit(points, epochs=epochs, callbacks=adapt, verbose=0)


def field(u):
    """u on the grid, one row for each time."""
    grid = np.column_stack([X.ravel(), T.ravel()]).astype("float32")
    return ops.convert_to_numpy(u(grid)).reshape(X.shape)


def relative_error(found):
    return float(np.linalg.norm(found - EXACT) / np.linalg.norm(EXACT))


def main(names=tuple(WEIGHTS), **lengths):
    """For each kind of weights the field, the history, the error and the seconds of one core."""
    results = {}
    for name in names:
        began = time.process_time()
        u, history = train(name, **lengths)
        seconds = time.process_time() - began
        found = field(u)
        results[name] = found, history, relative_error(found), seconds
        print(f"| {name} | {results[name][2]:.1e} | {seconds:.0f} |", flush=True)
    return results


def draw(results, path):
    """The best field, its slices against the exact ones, and the components of each training."""
    import matplotlib.pyplot as plt

    best = min(results, key=lambda name: results[name][2])
    found = results[best][0]
    figure = plt.figure(figsize=(12, 7), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    left, *slices = upper.subplots(1, 4, width_ratios=[1.6, 1, 1, 1])
    image = left.pcolormesh(T, X, found, cmap="RdBu_r", vmin=-1, vmax=1, shading="auto")
    figure.colorbar(image, ax=left)
    left.set(title=f"u(x, t), {best}", xlabel="t", ylabel="x")
    for ax, t in zip(slices, (0.25, 0.5, 1.0), strict=True):
        row = round(100 * t) - 1
        ax.plot(X[row], EXACT[row], color="black", label="exact")
        ax.plot(X[row], found[row], "--", color="C3", label=best)
        ax.set(title=f"t = {t}", xlabel="x", ylim=(-1.1, 1.1))
    slices[0].legend()
    axes = lower.subplots(1, len(results), sharey=True)
    for ax, (name, result) in zip(np.atleast_1d(axes), results.items(), strict=True):
        ax.set_yscale("log")
        cl.plots.components(result[1], ax=ax)
        ax.set_title(f"{name}: {result[2]:.1e}")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="for the picture")
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    parser.add_argument("--only", choices=WEIGHTS, nargs="+", default=tuple(WEIGHTS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lengths = QUICK if options.quick else {}
    results = main(options.only, seed=options.seed, **lengths)
    if options.folder and not options.quick:
        options.folder.mkdir(parents=True, exist_ok=True)
        draw(results, options.folder / "burgers.png")
