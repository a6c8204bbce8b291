"""Does `cl.search` find what a grid by hand finds, with fewer trainings? Five problems.

Each problem has three components; the weights of two of them are searched, by `cl.search` with 40
trials and by a 7x7 grid, both with 2 seeds, both judged by the same validation data. The winner of
each, and equal weights, are then trained with 5 fresh seeds and scored on test data that neither
has seen. `search` is as good as the grid if its mean is at most one standard error (of the
difference, over the seeds) worse.

The data ship with scikit-learn: diabetes (mean absolute error), breast cancer, wine and digits
(cross-entropy); "burgers" is a small physics-informed fit of Burgers's equation (mean squared
error of u). Lower is better everywhere.

    python benchmarks/search.py [--only wine] [--json FILE]
    python benchmarks/search.py --compare    every rule on the same problems, 3 seeds

With `--compare` the trainings are kept in `compare-<problem>.db`: started again, it goes on.
It fails if a training has no result.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples/

import keras
import numpy as np
import recording
from keras import layers
from sklearn import datasets

import combined_losses as cl

GRID = np.geomspace(0.01, 100.0, 7)
SEEDS, FRESH, TRIALS = 2, 5, 40


class Problem:
    """Data in three parts, a model, and what is made small.

    Args:
        data: `(x, y)`; y may be a dict.
        make: returns the layers' model for a width of inputs.
        losses: returns the three components; the first keeps its weight.
        objective: a log key of validation, lower is better.
        epochs: of each training.
    """

    def __init__(self, data, make, losses, metrics, objective, epochs):
        self.make, self.losses, self.metrics = make, losses, metrics
        self.objective, self.epochs = objective, epochs
        order = np.random.default_rng(0).permutation(len(data[0]))
        cuts = np.split(order, [int(0.5 * len(order)), int(0.75 * len(order))])
        take = lambda rows: keras.tree.map_structure(lambda array: array[rows], data)  # noqa: E731
        self.train, self.validation, self.test = (take(rows) for rows in cuts)

    @property
    def weighted(self):
        return list(self.losses())[1:]

    def build(self):
        model = self.make()
        loss = cl.CompositeLoss(self.losses())
        model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=self.metrics())
        return model

    @property
    def fit(self):
        return {"epochs": self.epochs, "batch_size": 64, "verbose": 0}

    def test_errors(self, weights):
        """The error on the test data for each fresh seed."""
        found = cl.compare(
            self.build,
            self.train,
            rules=[weights],
            objectives=f"{self.objective}:min",
            validation=self.test,
            seeds=FRESH,
            seed=1000,
            **self.fit,
        )
        return np.array(found.runs[-1].per_seed[self.objective])


def dense(inputs, outputs, activation=None, hidden=32):
    def make():
        return cl.Sequential(
            [
                keras.Input((inputs,)),
                layers.Dense(hidden, activation="relu"),
                layers.Dense(hidden, activation="relu"),
                layers.Dense(outputs, activation=activation),
            ]
        )

    return make


def standard(x):
    return ((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)).astype("float32")


def diabetes():
    """Robust parts beside a squared error, judged by the absolute error."""
    data = datasets.load_diabetes()
    y = standard(data.target[:, None])
    losses = lambda: {  # noqa: E731
        "fit": "mse",
        "robust": "log_cosh",
        "under": cl.losses.UnderestimationPenalty(),
    }
    metrics = lambda: ["mae"]  # noqa: E731
    return Problem((standard(data.data), y), dense(10, 1), losses, metrics, "val_mae", 20)


def classes(data, epochs):
    """Cross-entropy, a focal part and a squared error: judged by the cross-entropy."""
    count = len(np.unique(data.target))
    y = np.eye(count, dtype="float32")[data.target]
    losses = lambda: {  # noqa: E731
        "entropy": "categorical_crossentropy",
        "focal": cl.losses.CategoricalFocal(gamma=3.0),
        "squared": "mse",
    }
    make = dense(data.data.shape[1], count, "softmax")
    x = standard(data.data)
    return Problem((x, y), make, losses, list, "val_entropy_loss", epochs)


def burgers():
    """u_t + u u_x = nu u_xx on a grid of points, with start and walls; the error of u counts."""
    from examples.burgers import NU, exact

    rng = np.random.default_rng(0)
    n = 1024
    x = np.stack([rng.uniform(-1, 1, n), rng.uniform(0.01, 1, n)], axis=1)
    start = rng.uniform(size=n) < 0.25
    wall = ~start & (rng.uniform(size=n) < 0.2)
    x[start, 1], x[wall, 0] = 0.01, np.sign(rng.normal(size=wall.sum()))
    u = exact(x[:, :1], x[:, 1:])
    kind = np.stack([~start & ~wall, start, wall], axis=1)
    y = np.concatenate([u, kind], axis=1).astype("float32")

    def equation(model, x, y, y_pred):
        found = cl.input_gradients(model, x, columns=["x", "t"], derivatives=["x", "t", "xx"])
        left = found["t"] + y_pred * found["x"] - NU * found["xx"]
        return y[:, 1] * keras.ops.square(left[:, 0])

    def known(column):
        def squared(y_true, y_pred):
            return y_true[:, column] * keras.ops.square(y_pred[:, 0] - y_true[:, 0])

        return squared

    def error(y_true, y_pred):
        return keras.ops.square(y_pred[:, 0] - y_true[:, 0])

    losses = lambda: {  # noqa: E731
        "pde": cl.wrappers.OnInputs(equation),
        "start": known(2),
        "walls": known(3),
    }

    def make():
        inputs = keras.Input((2,))
        hidden = inputs
        for _ in range(3):
            hidden = layers.Dense(20, activation="tanh")(hidden)
        return cl.Model(inputs, layers.Dense(1)(hidden))

    return Problem((x.astype("float32"), y), make, losses, lambda: [error], "val_error", 100)


PROBLEMS = {
    "diabetes": diabetes,
    "breast cancer": lambda: classes(datasets.load_breast_cancer(), 10),
    "wine": lambda: classes(datasets.load_wine(), 10),
    "digits": lambda: classes(datasets.load_digits(), 10),
    "burgers": burgers,
}


def searched(problem):
    """The weights that `cl.search` finds."""
    found = cl.search(
        problem.build,
        problem.train,
        parameters=dict.fromkeys(problem.weighted, (GRID[0], GRID[-1])),
        objectives=f"{problem.objective}:min",
        validation=problem.validation,
        trials=TRIALS,
        seeds=SEEDS,
        confirm=0,
        storage=None,
        **problem.fit,
    )
    return {name: w for name, w in found.best.parameters.items() if name in problem.losses()}


def by_grid(problem):
    """The weights that a 7x7 grid finds."""
    first, second = problem.weighted
    grid = [{first: float(a), second: float(b)} for a in GRID for b in GRID]
    found = cl.compare(
        problem.build,
        problem.train,
        rules=grid,
        objectives=f"{problem.objective}:min",
        validation=problem.validation,
        seeds=SEEDS,
        **problem.fit,
    )
    runs = found.runs[2:]
    values = [run.values.get(problem.objective, np.inf) for run in runs]
    return grid[int(np.argmin(values))]


def search_against_grid(name):
    problem, start = PROBLEMS[name](), time.perf_counter()
    weights = {"search": searched(problem)}
    middle = time.perf_counter()
    weights["grid"] = by_grid(problem)
    end = time.perf_counter()
    equal = dict.fromkeys(problem.weighted, 1.0)
    errors = {way: problem.test_errors(each) for way, each in {**weights, "equal": equal}.items()}
    worse = errors["search"] - errors["grid"]
    noise = worse.std(ddof=1) / np.sqrt(len(worse))
    verdict = "as good" if worse.mean() <= noise else "worse"
    shown = {way: f"{each.mean():.4g} ± {each.std(ddof=1):.2g}" for way, each in errors.items()}
    print(
        f"{name}: {shown}; search is {verdict}: {worse.mean():+.2g}, noise {noise:.2g}; {weights}"
    )
    print(f"    search {middle - start:.0f} s, grid {end - middle:.0f} s", flush=True)
    pairs = [[float(each.mean()), float(each.std(ddof=1))] for each in errors.values()]
    return [name, *pairs, float(worse.mean()), float(noise)]


def compared(name):
    """Every rule on one problem, with 3 seeds; goes on where it was stopped."""
    problem, start = PROBLEMS[name](), time.perf_counter()
    found = cl.compare(
        problem.build,
        problem.train,
        objectives=f"{problem.objective}:min",
        validation=problem.validation,
        seeds=3,
        storage=f"compare-{name.replace(' ', '-')}.db",
        **problem.fit,
    )
    print(f"{name}, {time.perf_counter() - start:.0f} s\n{found}\n", flush=True)
    return found


def compare_all(problems, path):
    """The table of every rule on every problem."""
    results = {name: compared(name) for name in problems}
    names = dict.fromkeys(without_place(run.name) for each in results.values() for run in each.runs)
    rows = [
        [name, *(gain_of(each, name) for each in results.values()), time_of(results, name)]
        for name in names
        if name not in ("equal weights", "as compiled")  # they are the same here
    ]
    columns = {**dict.fromkeys(problems, "{:+.0f} ({:+.0f} to {:+.0f})"), "a step": "{:.1f}"}
    title = (
        "By how many % of its error a rule is better than equal weights, mean and 95 % interval of "
        "3 seeds; and how many times as long a step takes, the median of the problems; "
        f"{keras.backend.backend()}"
    )
    recording.keep(path, "compare", title=title, label="rule", columns=columns, rows=rows)
    failed = {f"{name}: {run.name}" for name in results for run in without_result(results[name])}
    if failed:
        sys.exit(f"no result: {failed}")


def without_place(name):
    """The name of a rule, which on burgers reads gradients at the parameters."""
    return name.partition("(")[0]


def without_result(found):
    return [run for run in found.runs if run.state != "finished"]


def gain_of(found, name):
    """The gain in % of the error with equal weights, and its interval."""
    key = found.objectives[0].key
    gains = {without_place(each): gain for each, gain in found.differences.items()}
    gain = gains.get(name, {}).get(key)
    return gain and [
        100 * each / found.equal.values[key] for each in (gain.mean, gain.low, gain.high)
    ]


def time_of(results, name):
    """How many times as long as with equal weights a step takes, the median of the problems."""
    runs = [
        (each, run)
        for each in results.values()
        for run in each.finished
        if without_place(run.name) == name
    ]
    return float(np.median([each.time_of_step(run) for each, run in runs])) if runs else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--compare", action="store_true", help="every rule, instead of a search")
    recording.add_argument(parser)
    args = parser.parse_args()
    backend, rows = keras.backend.backend(), []
    if args.compare:
        compare_all(args.only, args.json)
        return
    columns = dict.fromkeys(("search", "grid", "equal weights"), "{:.3g} ± {:.2g}")
    columns |= {"search worse by": "{:+.2g}", "noise": "{:.2g}"}
    title = f"Error on test data, mean ± standard deviation of 5 fresh seeds; {backend}"
    for name in args.only:
        rows.append(search_against_grid(name))
        recording.keep(args.json, "grid", title=title, label="problem", columns=columns, rows=rows)


if __name__ == "__main__":
    main()
