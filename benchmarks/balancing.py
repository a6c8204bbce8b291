"""Does balancing help? Equal weights, a hand-tuned grid and every rule on two problems, five seeds.

"regression": four quantities of the scikit-learn diabetes data in their own units (blood pressure,
cholesterol, glucose, disease progression) from the six other columns; one mean squared error each.
The scores are R2 on held-out patients. "helmholtz": the physics-informed fit of
u = sin(pi x) sin(4 pi y), u_xx + u_yy + u = q on [-1, 1]^2, as in arXiv:2110.09813: an equation and
a boundary term; the score is the relative L2 error of u.

The grid is tuned on the seeds that are shown, which favours it. Rules have their defaults, but for
what the rows say. Those that read gradients, from `InverseGradientNorm` on, take them at the
parameters, or at the output where the row says so. Results: docs/benchmarks.md.

    python benchmarks/balancing.py [--only helmholtz] [--ways UPGrad MGDA] [--json FILE]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
from keras import layers, ops

import combined_losses as cl

RULES = {
    "MagnitudeBalance": lambda: cl.weightings.MagnitudeBalance(),
    "MagnitudeBalance, max_weight=1": lambda: cl.weightings.MagnitudeBalance(max_weight=1.0),
    "GeometricMean": lambda: cl.weightings.GeometricMean(),
    "DynamicWeightAverage": lambda: cl.weightings.DynamicWeightAverage(period=100),
    "SoftAdapt, normalized": lambda: cl.weightings.SoftAdapt(normalized=True),
    "ReLoBRaLo": lambda: cl.weightings.ReLoBRaLo(seed=0),
    "CoVWeighting": lambda: cl.weightings.CoVWeighting(),
    "RandomWeighting": lambda: cl.weightings.RandomWeighting(seed=0),
    "Worst": lambda: cl.weightings.Worst(),
    "FAMO": lambda: cl.weightings.FAMO(),
    "UncertaintyWeighting": lambda: cl.weightings.UncertaintyWeighting(),
    "UncertaintyWeighting, own steps": lambda: cl.weightings.UncertaintyWeighting(
        learning_rate=0.01
    ),
}


def at_parameters(name, **options):
    """A rule of the gradients; at the output there is none for a loss of the inputs."""
    return lambda: getattr(cl.weightings, name)(gradients="parameters", **options)


RULES |= {
    "InverseGradientNorm": at_parameters("InverseGradientNorm"),
    "GradientNormBalance": at_parameters("GradientNormBalance"),
    "GradNorm": at_parameters("GradNorm"),
    "MGDA": at_parameters("MGDA"),
    "MGDA, normalize": at_parameters("MGDA", normalize=True),
    "UPGrad": at_parameters("UPGrad"),
    "DualProj": at_parameters("DualProj"),
    "PCGrad": at_parameters("PCGrad", seed=0),
    "CAGrad": at_parameters("CAGrad"),
    "ConFIG": at_parameters("ConFIG"),
    "IMTLG": at_parameters("IMTLG"),
    "NashMTL": at_parameters("NashMTL"),
    "FairGrad": at_parameters("FairGrad"),
    "AlignedMTL": at_parameters("AlignedMTL"),
}
# At the output the components of the regression have no entry in common, but lengths.
AT_OUTPUT = {
    f"{name}, output": getattr(cl.weightings, name)
    for name in ("InverseGradientNorm", "GradientNormBalance", "GradNorm")
}


# Multi-target regression.

TARGETS = ["pressure", "cholesterol", "glucose", "progression"]


def diabetes(seed):
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    x, progression = load_diabetes(return_X_y=True, scaled=False)
    y = np.column_stack([x[:, [3, 4, 9]], progression])
    x = np.delete(x, [3, 4, 9], axis=1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=seed)
    scaler = StandardScaler().fit(x)
    return (
        scaler.transform(x),
        y - y.mean(axis=0),
        scaler.transform(x_test),
        y_test - y.mean(axis=0),
    )


def fit_regression(seed, weights=None, weighting=None, epochs=150):
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = diabetes(seed)
    parts = {
        name: cl.wrappers.OnSlice("mse", np.s_[:, i : i + 1]) for i, name in enumerate(TARGETS)
    }
    model = cl.Sequential(
        [keras.Input((x.shape[1],)), layers.Dense(32, activation="relu"), layers.Dense(4)]
    )
    model.compile(keras.optimizers.Adam(1e-2), loss=cl.CompositeLoss(parts, weights, weighting))
    start = time.perf_counter()
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    error = np.mean((model.predict(x_test, verbose=0) - y_test) ** 2, axis=0)
    return {**dict(zip(TARGETS, 1 - error / y_test.var(axis=0), strict=True)), "seconds": seconds}


REGRESSION_GRID = {
    "grid: 1 / variance": lambda: dict(
        zip(TARGETS, [float(1 / v) for v in diabetes(0)[1].var(axis=0)], strict=True)
    ),
    "grid: 1 / deviation": lambda: dict(
        zip(TARGETS, [float(1 / v) for v in diabetes(0)[1].std(axis=0)], strict=True)
    ),
}


# The Helmholtz equation.


def exact(points):
    return np.sin(np.pi * points[:, :1]) * np.sin(4 * np.pi * points[:, 1:])


def equation(model, x, y, y_pred):
    curvature = ops.sum(cl.input_gradients(model, x, order=2), axis=1, keepdims=True)
    x, y = x[:, :1], x[:, 1:]
    u = ops.sin(np.pi * x) * ops.sin(4 * np.pi * y)
    return ops.square(curvature + y_pred + (17 * np.pi**2 - 1) * u)


def border(count):
    side = np.linspace(-1, 1, count, dtype="float32")
    one = np.ones_like(side)
    sides = [(side, one), (side, -one), (one, side), (-one, side)]
    return np.concatenate([np.stack(pair, axis=1) for pair in sides])


BORDER = border(32)


def boundary(model, x, y, y_pred):
    return ops.mean(ops.square(model(BORDER)))


def fit_helmholtz(seed, weights=None, weighting=None, steps=4000, batch=256):
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (steps * batch, 2)).astype("float32")
    hidden = [layers.Dense(32, activation="tanh") for _ in range(3)]
    model = cl.Sequential([keras.Input((2,)), *hidden, layers.Dense(1)])
    parts = {
        name: cl.wrappers.OnInputs(f)
        for name, f in (("equation", equation), ("boundary", boundary))
    }
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss=cl.CompositeLoss(parts, weights, weighting),
        steps_per_execution=50,
    )
    start = time.perf_counter()
    model.fit(x, batch_size=batch, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    axis = np.linspace(-1, 1, 65, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    u = exact(grid)
    p = model.predict(grid, verbose=0)
    edge = ops.convert_to_numpy(model(BORDER))
    return {
        "u": float(np.linalg.norm(p - u) / np.linalg.norm(u)),
        "boundary": float(np.sqrt(np.mean(edge**2))),
        "seconds": seconds,
    }


HELMHOLTZ_GRID = {
    f"grid: boundary x {factor}": lambda factor=factor: {"boundary": float(factor)}
    for factor in (10, 100, 1000, 10000)
}

PROBLEMS = {
    "regression": (fit_regression, REGRESSION_GRID, "R2 on held-out patients"),
    "helmholtz": (fit_helmholtz, HELMHOLTZ_GRID, "relative L2 error of u, RMS at the boundary"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(PROBLEMS))
    parser.add_argument("--ways", nargs="*", help="of the rows, these; default all")
    recording.add_argument(parser)
    args = parser.parse_args()
    for problem, (fit, grid, score) in PROBLEMS.items():
        if args.only not in (None, problem):
            continue
        ways = {"equal weights": {}}
        ways.update({name: {"weights": make} for name, make in grid.items()})
        rules = RULES | AT_OUTPUT if problem == "regression" else RULES
        ways.update({name: {"weighting": make} for name, make in rules.items()})
        ways = {name: ways[name] for name in args.ways or ways}
        title = f"{problem}: {score}; mean and standard deviation of {args.seeds} seeds"
        print(f"\n{title}")
        rows, formats = [], {}
        for row, (name, options) in enumerate(ways.items()):
            runs = [
                fit(seed, **{key: make() for key, make in options.items()})
                for seed in range(args.seeds)
            ]
            if row == 0:
                print(f"{'':34}" + "".join(f"{key:>18}" for key in runs[0]))
            cells, numbers = [], []
            for key in runs[0]:
                values = [run[key] for run in runs]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                numbers.append([statistics.mean(values), spread])
                cells.append(f"{numbers[-1][0]:9.3f} ({spread:5.3f})")
                formats[key] = "{:.3f} ({:.3f})"
            rows.append([name, *numbers])
            print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
        recording.keep(args.json, problem, title=title, label="weights", columns=formats, rows=rows)


if __name__ == "__main__":
    main()
