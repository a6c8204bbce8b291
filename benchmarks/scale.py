"""How does the cost grow? Seconds against each size, and the exponent of the growth.

Sizes: parts of a composite (1 to 1,000), levels of composites inside each other, rows of a batch,
pixels (to 2**24), classes (to 200), parts of a rule that reads gradients, parameters of a network.
A call is that of the loss, outside of a model; a step is one of `fit`.

The exponent is the slope of log(seconds) over log(size), fitted to the larger half of the sizes:
below them what every call costs, whatever its size, hides it. "formula" is the exponent of the
arithmetic; a sum of n losses by `+` makes n composites. Where arrays outgrow the caches, a bare
mean of squares is above its own, too.

Run it with `python benchmarks/scale.py`, once for each `KERAS_BACKEND`; `--most 0.01` stops each
growth at a hundredth of its largest size. Results: docs/benchmarks.md; `--json FILE` writes them.
"""

import argparse
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
from keras import ops
from overhead import StepTimer, make_parts

import combined_losses as cl


def arrays(*shape):
    """Targets of 0 and 1, and logits."""
    rng = np.random.default_rng(0)
    y_true = (rng.random(shape) < 0.3).astype("float32")
    logits = rng.normal(size=shape).astype("float32")
    return ops.convert_to_tensor(y_true), ops.convert_to_tensor(logits)


def done(result):
    """Waits until the result is computed."""
    for tensor in keras.tree.flatten(result):
        ops.convert_to_numpy(tensor)


# Each function below prepares one size, and returns what is timed.


def call_of_parts(n):
    loss, data = cl.CompositeLoss(make_parts(n)), arrays(32, 8)
    return lambda: done(loss(*data))


def components(n):
    loss, data = cl.CompositeLoss(make_parts(n)), arrays(32, 8)
    return lambda: done(loss.components(*data))


def making(n):
    parts = make_parts(n)

    def make():
        cl.CompositeLoss(parts)

    return make


def adding(n):
    parts = [cl.as_loss("mse") for _ in range(n)]

    def add():
        sum(parts)

    return add


def step(model, x, y, batch):
    """Steps of `fit`; the timer gives the seconds of one."""
    model.fit(x, y, batch_size=batch, verbose=0)
    timer = StepTimer()

    def steps():
        model.fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=[timer])
        return timer.seconds / (len(x) // batch - timer.skip)

    return steps


def step_of_parts(n):
    model = cl.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    model.compile("sgd", loss=cl.CompositeLoss(make_parts(n)))
    return step(model, np.zeros((32 * 25, 4), "float32"), np.zeros((32 * 25, 8), "float32"), 32)


def nested(levels):
    loss = cl.as_loss("mse")
    for level in range(levels):
        loss = cl.CompositeLoss({"inner": loss, "mae": "mae"}, name=f"level_{level}")
    data = arrays(32, 8)
    return lambda: done(loss(*data))


def bare(n):
    y_true, y_pred = arrays(n, 16)
    return lambda: done(ops.mean(ops.square(y_pred - y_true)))


def rows(n):
    loss, data = cl.CompositeLoss(["mse", "mae", "huber"]), arrays(n, 16)
    return lambda: done(loss(*data))


def pixels(n):
    side = math.isqrt(n)
    loss, data = cl.losses.dice_bce(from_logits=True), arrays(1, side, side, 1)
    return lambda: done(loss(*data))


def classes(n):
    loss = cl.losses.Dice(from_logits=True)
    y_true = ops.one_hot(np.arange(64 * 64).reshape(1, 64, 64) % n, n)
    y_pred = arrays(1, 64, 64, n)[1]
    return lambda: done(loss(y_true, y_pred))


def weighed(rule, k):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(k, 2 * k)).astype("float32")
    gramian = ops.convert_to_tensor(rows @ rows.T)
    rule.build(k)
    return lambda: done(rule.weigh(gramian=gramian))


def parameters(n):
    rule = cl.weightings.PCGrad(gradients="parameters")
    width = math.isqrt(n)
    inputs = keras.Input((width,))
    model = cl.Model(inputs, keras.layers.Dense(8)(keras.layers.Dense(width)(inputs)))
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"], weighting=rule))
    x, y = np.ones((8 * 10, width), "float32"), np.zeros((8 * 10, 8), "float32")
    return step(model, x, y, 8)


def powers(base, first, last):
    return [base**exponent for exponent in range(first, last + 1)]


UP_TO_1000 = [1, 4, 16, 64, 125, 250, 500, 1000]
# What grows: the function, the sizes, and the exponent of the formula.
GROWTHS = {
    "parts, making the composite": (making, UP_TO_1000, 1),
    "parts, sum([...])": (adding, powers(2, 0, 7), 2),
    "parts, call": (call_of_parts, UP_TO_1000, 1),
    "parts, components": (components, UP_TO_1000, 1),
    "parts, step": (step_of_parts, [1, 4, 16, 64, 128, 256], 1),
    "levels of composites, call": (nested, [1, 2, 4, 8, 16, 32], 1),
    "rows, bare mean of squares": (bare, powers(4, 4, 10), 1),
    "rows, call": (rows, powers(4, 4, 10), 1),
    "pixels, Dice and cross-entropy": (pixels, powers(4, 5, 12), 1),
    "classes, Dice": (classes, [2, 5, 10, 25, 50, 100, 200], 1),
    "parts of a rule, PCGrad": (lambda k: weighed(cl.weightings.PCGrad(), k), powers(2, 1, 6), 3),
    "parts of a rule, DualProj": (
        lambda k: weighed(cl.weightings.DualProj(), k),
        powers(2, 1, 6),
        3,
    ),
    "parameters, step of PCGrad": (parameters, powers(4, 6, 11), 1),
}


def seconds(run, rounds):
    """The least time of some rounds; what else runs on the machine can only add to it."""
    run()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        own = run()
        found.append(time.perf_counter() - start if own is None else own)
    return min(found)


def exponent(sizes, times):
    """The slope in log-log of the larger half of the sizes."""
    half = min(len(sizes) // 2, len(sizes) - 2)
    slope, _ = np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)
    return float(slope)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=float, default=1.0, help="share of the largest size")
    recording.add_argument(parser)
    args = parser.parse_args()
    backend, table = keras.backend.backend(), []
    print(f"{backend}, keras {keras.__version__}; least of {args.rounds} rounds")
    for what, (prepare, sizes, formula) in GROWTHS.items():
        few = [size for size in sizes if size <= max(sizes) * args.most]
        sizes = few if len(few) > 1 else sizes[:2]  # a slope needs two
        times = [seconds(prepare(size), args.rounds) for size in sizes]
        slope = exponent(sizes, times)
        table.append([what, sizes[0], 1e3 * times[0], sizes[-1], 1e3 * times[-1], slope, formula])
        print(
            f"{what:32} {sizes[0]:>7,} {1e3 * times[0]:9.3f} ms   {sizes[-1]:>10,} "
            f"{1e3 * times[-1]:9.3f} ms   exponent {slope:5.2f}, formula {formula}",
            flush=True,
        )
    columns = {"from": "{:,}", "ms": "{:.2f}", "to": "{:,}", "ms there": "{:.1f}"}
    columns |= {"exponent": "{:.2f}", "formula": "{}"}
    recording.keep(
        args.json, backend, title=backend, label="what grows", columns=columns, rows=table
    )


if __name__ == "__main__":
    main()
