"""Is the combined direction in conflict with a component?

A step `d = J^T w` conflicts with a component where the cosine between d and its gradient is below
-0.001. The share of that, in %, and the worst cosine, in two places:

- random gradients: 2,000 matrices J `(k, 12)` of independent normal rows, float32, whose lengths
  are spread evenly (in the logarithm) over six decades, and in the last column over none. Every
  library gives its float32 weights, with its defaults, and d is computed of them in float64.
  torchjd's ConFIG and LibMTL's PCGrad and CAGrad give d itself;
- a network in training, 6-32-32-3 on the scikit-learn diabetes data (cholesterol, glucose,
  progression), batches of 32, 1,000 steps of Adam: the mean squared error, the 5 % and the 95 %
  quantile and an upper bound on the same outputs. The weights come from the Gramian at the output,
  at the last hidden layer or at the parameters, as with `gradients=`; the conflict is always that
  at the parameters, before Adam.

The peers are not among the requirements of this package:

    pip install --no-deps torchjd==0.18.0 qpsolvers quadprog LibMTL==1.1.5
    pip install --no-deps cvxpy ecos clarabel osqp scs highspy qdldl

The peers get `--seconds` for a rule and a k, 4 in the results; * marks what has fewer cases or none
for some. Results: docs/benchmarks.md.

    python benchmarks/conflicts.py [--only training] [--json FILE]
"""

import argparse
import importlib.util
import os
import sys
import time
import types
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
import torch
import torchjd.aggregation as torchjd

import combined_losses as cl

warnings.filterwarnings("ignore")


def libmtl(name):
    """A rule of LibMTL, of which the rest needs torchvision and a trainer."""
    if "LibMTL" not in sys.modules:
        package = importlib.util.find_spec("LibMTL").submodule_search_locations
        sys.modules["LibMTL"] = types.ModuleType("LibMTL")
        sys.modules["LibMTL"].__path__ = list(package)
    return getattr(importlib.import_module("LibMTL.weighting"), name)


# The weights of one rule for many Gramians or Jacobians.

OURS = {
    "UPGrad": cl.weightings.UPGrad,
    "DualProj": cl.weightings.DualProj,
    "MGDA": cl.weightings.MGDA,
    "ConFIG": cl.weightings.ConFIG,
    "NashMTL": cl.weightings.NashMTL,
    "IMTLG": cl.weightings.IMTLG,
    "FairGrad": cl.weightings.FairGrad,
    "CAGrad": cl.weightings.CAGrad,
    "PCGrad": lambda: cl.weightings.PCGrad(seed=0),
    "AlignedMTL": cl.weightings.AlignedMTL,
    "InverseGradientNorm": cl.weightings.InverseGradientNorm,
    "sum": lambda: cl.weightings.GramianWeighting(lambda gramian: 0 * gramian[0] + 1),
}
CLAIMED = ("UPGrad", "DualProj", "MGDA", "ConFIG", "NashMTL", "IMTLG", "FairGrad")

TORCHJD = {
    "UPGrad": lambda k: torchjd.UPGrad(),
    "DualProj": lambda k: torchjd.DualProj(),
    "MGDA": lambda k: torchjd.MGDA(),
    "ConFIG": lambda k: torchjd.ConFIG(),
    "NashMTL": lambda k: torchjd.NashMTL(n_tasks=k),
    "IMTLG": lambda k: torchjd.IMTLG(),
    "FairGrad": lambda k: torchjd.FairGrad(alpha=1.0),
    "CAGrad": lambda k: torchjd.CAGrad(c=0.5),
    "PCGrad": lambda k: torchjd.PCGrad(),
    "AlignedMTL": lambda k: torchjd.AlignedMTL(),
}
LIBMTL = {
    "MGDA": {"mgda_gn": "none"},
    "IMTLG": {},
    "PCGrad": {},
    "CAGrad": {"calpha": 0.5, "rescale": 1},
}


def weigher(make, k):
    """A function from a Gramian `(k, k)` and a seed to the weights `(k,)`, compiled on JAX."""
    rule = make()
    rule.build(k)
    start = [(v, keras.ops.copy(v.value)) for v in rule.variables]
    seeds = getattr(rule, "generator", None)

    def weights(gramian, seed):
        state = [(v, seed if seeds and v is seeds.state else value) for v, value in start]
        with keras.StatelessScope(state_mapping=state):
            return rule.weigh(gramian=gramian)

    return weights


def ours(make, gramians):
    k = gramians.shape[-1]
    weights = weigher(make, k)
    seeds = np.stack([np.arange(len(gramians)), np.arange(len(gramians))], 1).astype("uint32")
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(jax.vmap(weights))(gramians, seeds))
    pairs = zip(gramians, seeds, strict=True)
    return np.stack([keras.ops.convert_to_numpy(weights(*pair)) for pair in pairs])


def one_by_one(make, k):
    """A function from a Gramian and the number of a step to weights, as arrays."""
    weights = weigher(make, k)
    if keras.backend.backend() == "jax":
        import jax

        weights = jax.jit(weights)
    return lambda gramian, step: keras.ops.convert_to_numpy(
        weights(gramian, np.array([step, step], "uint32"))
    )


def directions_of_ours(make, rows):
    weights = ours(make, rows @ np.swapaxes(rows, 1, 2))
    return np.einsum("ck,ckn->cn", weights.astype("float64"), rows.astype("float64"))


def timed(function, cases, seconds):
    """What the function gives for the cases, one after the other, as many as the time allows."""
    found, end = [], time.perf_counter() + seconds
    for case in cases:
        try:
            found.append(np.asarray(function(case), "float64"))
        except Exception:  # whatever the solver of a peer raises is a case that it does not solve
            found.append(np.full(case.shape[1], np.nan))
        if time.perf_counter() > end:
            break
    return np.stack(found)


def directions_of_torchjd(name, rows, seconds):
    def direction(case):
        aggregator, matrix = TORCHJD[name](len(case)), torch.from_numpy(case)
        if name == "ConFIG":  # gives no weights
            return aggregator(matrix)
        return np.asarray(aggregator.weighting(matrix), "float64") @ case.astype("float64")

    return timed(direction, rows, seconds)


def directions_of_libmtl(name, rows, seconds):
    """LibMTL's `backward` on losses `J x`, whose gradients are the rows of J."""

    class Rule(libmtl("IMTL" if name == "IMTLG" else name)):
        rep_grad, device = False, "cpu"

        def get_share_params(self):
            return [self.x]

        def zero_grad_share_params(self):
            self.x.grad = torch.zeros_like(self.x)  # in place: LibMTL is older than None here

    def direction(case):
        matrix = torch.from_numpy(case)
        rule = Rule()
        rule.task_num = len(case)
        rule.x = torch.nn.Parameter(torch.zeros(case.shape[1]))
        losses = matrix @ rule.x
        if name == "IMTLG":  # without its second part, which scales the losses: at its start
            rule.init_param()
        weights = rule.backward(losses, **LIBMTL[name])
        if name in ("MGDA", "IMTLG"):
            return np.asarray(weights, "float64") @ case.astype("float64")
        return rule.x.grad.numpy()

    return timed(direction, rows, seconds)


# Random gradients.


def random_rows(k, cases, decades, seed=0, n=12):
    """`(cases, k, n)`: independent normal rows, of lengths spread evenly over so many decades."""
    rng = np.random.default_rng([seed, k])
    lengths = 10 ** rng.uniform(-decades / 2, decades / 2, (cases, k, 1))
    rows = rng.normal(size=(cases, k, n))
    return (lengths * rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("float32")


def smallest_cosines(directions, rows):
    """Of each direction, with the gradients that are not zero; NaN without a direction."""
    rows = rows[: len(directions)].astype("float64")
    lengths = np.linalg.norm(rows, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        cosines = np.einsum("ckn,cn->ck", rows, directions) / lengths
    return np.where(lengths > 0, cosines, 1.0).min(axis=-1)


CONFLICT = -1e-3


def cell(cosines, wanted):
    """The share of conflicts, a star where cases are missing, the worst cosine; or None."""
    there = cosines[np.isfinite(cosines)]
    if not len(there):
        return None
    star = "*" if len(there) < wanted else ""
    return [100 * float(np.mean(there < CONFLICT)), star, float(there.min())]


def line(name, cells):
    shown = ("none" if each is None else "{:.1f}{} {:+.3f}".format(*each) for each in cells)
    return f"    {name:21}" + "".join(f"{each:>14}" for each in shown)


def note(who, found, wanted):
    """How many cases there are, where some are missing; tried, without a direction."""
    tried = [len(cosines) for cosines in found]
    failed = [int(np.sum(~np.isfinite(cosines))) for cosines in found]
    notes = [f"of {' '.join(map(str, tried))} cases"] if min(tried) < wanted else []
    notes += [f"no direction in {' '.join(map(str, failed))}"] if max(failed) else []
    return [f"{who}: {', '.join(notes)}"] if notes else []


def print_random(cases, seconds, path):
    columns = [(k, 6) for k in (2, 3, 5, 8)] + [(5, 0)]
    problems = [random_rows(k, cases, decades) for k, decades in columns]
    print(f"{keras.backend.backend()}, {cases} cases: % in conflict, worst cosine")
    print(f"{'':25}" + "".join(f"{f'k={k}, 10^{d}':>14}" for k, d in columns))
    sides = {
        "": (OURS, lambda name, rows: directions_of_ours(OURS[name], rows)),
        "torchjd": (TORCHJD, lambda name, rows: directions_of_torchjd(name, rows, seconds)),
        "LibMTL": (LIBMTL, lambda name, rows: directions_of_libmtl(name, rows, seconds)),
    }
    table, notes = [], []
    for name in OURS:
        for side, (known, directions) in sides.items():
            if name in known:
                found = [smallest_cosines(directions(name, rows), rows) for rows in problems]
                cells = [cell(cosines, cases) for cosines in found]
                table.append([f"{name}, {side}" if side else name, *cells])
                print(line(table[-1][0], cells), flush=True)
                notes += note(f"{side} {name}".strip(), found, cases)
    print("\n".join(notes))
    title = "Random gradients: share of directions in conflict, in %, / the worst cosine; * fewer"
    names = [f"k={k}, {'10⁶' if decades else '10⁰'}" for k, decades in columns]
    keep(path, "random", f"{title} cases than {cases:,}", names, "{:.1f}{} / {:+.3f}", table, notes)


# A network in training.

TARGETS = ["cholesterol", "glucose", "progression"]
PLACES = ("output", "hidden", "parameters")


def diabetes():
    """Six columns of the scikit-learn data and three others to predict, as tensors."""
    from sklearn.datasets import load_diabetes

    x, progression = load_diabetes(return_X_y=True, scaled=False)
    y = np.column_stack([x[:, [4, 9]], progression])
    x = np.delete(x, [3, 4, 8, 9], axis=1)
    scaled = ((a - a.mean(axis=0)) / a.std(axis=0) for a in (x, y))
    return tuple(torch.tensor(a, dtype=torch.float32) for a in scaled)


def pinball(level):
    return lambda error: torch.mean(torch.maximum(level * error, (level - 1) * error))


def components(y, p):
    """The mean, both ends of an interval and a bound: all of them pull at the same outputs."""
    error = y - p
    return [
        torch.mean(error**2),
        pinball(0.05)(error),
        pinball(0.95)(error),
        torch.mean(torch.relu(p - 0.5) ** 2) * 10,
    ]


def jacobians(network, x, y):
    """The gradients of the components at the output, the last hidden layer and the parameters."""
    hidden = network[:-1](x)
    output = network[-1](hidden)
    values = components(y, output)
    parameters = list(network.parameters())
    sources = {"output": [output], "hidden": [hidden], "parameters": parameters}
    found = {place: [] for place in sources}
    for value in values:
        for place, tensors in sources.items():
            gradients = torch.autograd.grad(value, tensors, retain_graph=True)
            found[place].append(torch.cat([g.reshape(-1) for g in gradients]))
    return {place: torch.stack(rows).numpy() for place, rows in found.items()}


def trained(make, place, steps, batch=32):
    """Of every step of a training, the smallest cosine at the parameters of the direction."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(32, 3))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    x, y = diabetes()
    rule = one_by_one(make, len(components(y, y)))
    found = []
    for step in range(steps):
        chosen = torch.randint(len(x), (batch,))
        rows = jacobians(network, x[chosen], y[chosen])
        weights = rule(rows[place] @ rows[place].T, step)
        at_parameters = rows["parameters"]
        direction = weights.astype("float64") @ at_parameters.astype("float64")
        found.append(smallest_cosines(direction[None], at_parameters[None])[0])
        sizes = [parameter.numel() for parameter in network.parameters()]
        parts = torch.tensor(direction, dtype=torch.float32).split(sizes)
        for parameter, part in zip(network.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)
        optimizer.step()
    return np.array(found)


def print_training(steps, path):
    print(f"\na network in training, {steps} steps: % in conflict at the parameters, worst cosine")
    print(f"{'gradients=':25}" + "".join(f"{place:>14}" for place in PLACES))
    table = []
    for name in (*CLAIMED, "sum"):
        found = [trained(OURS[name], place, steps) for place in PLACES]
        cells = [cell(cosines, steps) for cosines in found]
        print(line(name, cells), flush=True)
        table.append([name, *([share, worst] for share, _, worst in cells)])
    title = f"A network in training, {steps:,} steps: share of steps in conflict at the parameters"
    names = [{"hidden": "hidden layer"}.get(place, place) for place in PLACES]
    title = f"{title}, in %, / the worst cosine; by `gradients=`"
    keep(path, "training", title, names, "{:.1f} / {:+.3f}", table)


def keep(path, name, title, columns, format, rows, notes=()):
    columns = dict.fromkeys(columns, format)
    recording.keep(
        path,
        name,
        title=title,
        label="rule",
        columns=columns,
        rows=rows,
        packages=("torch", "torchjd", "LibMTL"),
        notes=notes,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0, help="for a rule of a peer and a k")
    parser.add_argument("--only", choices=["random", "training"])
    recording.add_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only != "training":
        print_random(args.cases, args.seconds, args.json)
    if args.only != "random":
        print_training(args.steps, args.json)


if __name__ == "__main__":
    main()
