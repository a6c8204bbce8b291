"""What does one call cost outside of a model? A loss, and a rule for the weights.

- A loss of 32 x 8 numbers over the bare formula in `keras.ops`: what reading arguments, checks and
  the mean of the batch add, in microseconds.
- `weigh` of each rule that reads gradients, on a Gramian of eight parts, in milliseconds. On torch
  beside the same rule of torchjd where it has one that takes a Gramian; elsewhere compiled.

All ways of one table take turns in one process; medians. Run it once for each `KERAS_BACKEND`; on
torch `pip install --no-deps torchjd==0.18.0 qpsolvers quadprog` first. Results: docs/benchmarks.md;
`--json FILE` writes them.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
from keras import ops

import combined_losses as cl

K = 8
RULES = [
    *("UPGrad", "DualProj", "MGDA", "ConFIG", "NashMTL", "IMTLG", "FairGrad", "CAGrad", "PCGrad"),
    *("AlignedMTL", "InverseGradientNorm"),
]


def pinball(y_true, y_pred):
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.9 * error, -0.1 * error))


def charbonnier(y_true, y_pred):
    return ops.mean(ops.sqrt(ops.square(y_true - y_pred) + 1e-6))


def squared(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


LOSSES = {
    "MeanSquaredError of Keras": (keras.losses.MeanSquaredError, squared),
    "Pinball": (lambda: cl.losses.Pinball(0.9), pinball),
    "Charbonnier": (cl.losses.Charbonnier, charbonnier),
}


def interleaved(functions, rounds, calls):
    """Seconds of a call of each function, a list of one for each round."""
    times = {name: [] for name in functions}
    for round_number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls):
                function()
            if round_number:  # the first round warms up
                times[name].append((time.perf_counter() - start) / calls)
    return times


def done(value):
    return ops.convert_to_numpy(value)


def of_losses(rounds):
    rng = np.random.default_rng(0)
    y_true, y_pred = (ops.convert_to_tensor(rng.random((32, 8), "float32")) for _ in range(2))
    rows = []
    for name, (make, bare) in LOSSES.items():
        loss = make()
        functions = {
            "bare": lambda bare=bare: done(bare(y_true, y_pred)),
            "ours": lambda loss=loss: done(loss(y_true, y_pred)),
        }
        times = interleaved(functions, rounds, calls=200)
        pairs = zip(times["ours"], times["bare"], strict=True)
        added = 1e6 * statistics.median(ours - theirs for ours, theirs in pairs)
        rows.append([name, 1e6 * statistics.median(times["ours"]), added])
    return rows


def ours(name, gramian):
    """Compiled where the steps of `fit` are."""
    rule, backend = getattr(cl.weightings, name)(), keras.backend.backend()
    rule.build(K)
    if backend == "torch":
        return lambda: done(rule.weigh(gramian=gramian))
    if backend == "tensorflow":
        import tensorflow as tf

        weights = tf.function(lambda gramian: rule.weigh(gramian=gramian))
        return lambda: done(weights(gramian))
    import jax

    def weights(state, gramian):
        with keras.StatelessScope(state_mapping=list(zip(rule.variables, state, strict=True))):
            return rule.weigh(gramian=gramian)

    compiled, state = jax.jit(weights), [variable.value for variable in rule.variables]
    return lambda: done(compiled(state, gramian))


def torchjds(name, gramian):
    """The same rule of torchjd, or None."""
    import torchjd.aggregation

    make = getattr(torchjd.aggregation, f"{name}Weighting", None)
    if make is None:
        return None
    kwargs = {"NashMTL": {"n_tasks": K}, "FairGrad": {"alpha": 1.0}, "CAGrad": {"c": 0.5}}
    weighting = make(**kwargs.get(name, {}))
    try:
        weighting(gramian)
    except Exception:  # it takes the gradients themselves
        return None
    return lambda: done(weighting(gramian))


def of_rules(rounds):
    vectors = np.random.default_rng(0).normal(size=(K, 2 * K)).astype("float32")
    gramian = ops.convert_to_tensor(vectors @ vectors.T)
    on_torch, rows = keras.backend.backend() == "torch", []
    for name in RULES:
        functions = {"ours": ours(name, gramian)}
        if on_torch and (theirs := torchjds(name, gramian)):
            functions["torchjd"] = theirs
        times = interleaved(functions, rounds, calls=20)
        medians = {way: 1e3 * statistics.median(found) for way, found in times.items()}
        rows.append([name, medians["ours"], *([medians.get("torchjd")] if on_torch else [])])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    recording.add_argument(parser)
    args = parser.parse_args()
    backend = keras.backend.backend()
    print(f"{backend}, keras {keras.__version__}, medians")
    losses, rules = of_losses(args.rounds), of_rules(args.rounds)
    of_a_loss = dict.fromkeys(("call, µs", "added, µs"), "{:.0f}")
    of_a_rule = {"weigh, ms": "{:.2f}"} | ({"torchjd, ms": "{:.2f}"} if backend == "torch" else {})
    for name, label, columns, rows in (
        (backend, "loss of 32x8 numbers", of_a_loss, losses),
        (f"{backend}_rules", "rule, eight parts", of_a_rule, rules),
    ):
        print(f"{label}: {', '.join(columns)}")
        for row, *cells in rows:
            shown = "".join("        –" if cell is None else f"{cell:9.2f}" for cell in cells)
            print(f"    {row:28}{shown}")
        recording.keep(args.json, name, title=backend, label=label, columns=columns, rows=rows)


if __name__ == "__main__":
    main()
