"""What does a composite with all its metrics cost? Against a hand-written sum, and the usual way.

Three ways to train on n parts of one output, in one process, interleaved, medians:

- sum: one function that adds the parts, no metrics (the parts stay hidden);
- usual: the same function as `loss=`, every part again in `metrics=`;
- composite: `cl.CompositeLoss` in a `cl.Sequential`, every part reported.

Run it with `python benchmarks/overhead.py`, once for each `KERAS_BACKEND`. It prints the median
time of a step for each way and the ratios, then the time to the first step with n = 128, then what
`import combined_losses` adds to `import keras`.

Results: docs/benchmarks.md; `--json FILE` writes them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
from keras import ops

import combined_losses as cl


def make_parts(n):
    """n different parts: distances of different scale, so that no compiler merges them."""

    def part(index):
        scale = 1.0 + index / n

        def distance(y_true, y_pred):
            return ops.mean(ops.square(scale * (y_pred - y_true)), axis=-1)

        distance.__name__ = f"part_{index}"
        return distance

    return [part(index) for index in range(n)]


def compiled(way, parts, width, hidden):
    layers = [keras.Input((hidden,)), keras.layers.Dense(width)]
    weights = [1.0 / len(parts)] * len(parts)

    def summed(y_true, y_pred):
        return sum(w * part(y_true, y_pred) for w, part in zip(weights, parts, strict=True))

    if way == "composite":
        model = cl.Sequential(layers)
        model.compile("sgd", loss=cl.CompositeLoss(parts, weights=weights))
    else:
        model = keras.Sequential(layers)
        model.compile("sgd", loss=summed, metrics=parts if way == "usual" else None)
    return model


class StepTimer(keras.callbacks.Callback):
    """Seconds of a whole epoch without its first steps; the host reads no logs."""

    def __init__(self, skip=5):
        super().__init__()
        self.skip = skip
        self.async_safe = True

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.skip:
            self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start


def interleaved(models, x, y, batch, rounds):
    """Seconds of a step of each model, a list of one for each round."""
    steps = len(x) // batch
    times = {way: [] for way in models}
    for round_number in range(rounds + 1):
        for way, model in models.items():
            timer = StepTimer()
            model.fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=[timer])
            if round_number:  # the first round compiles
                times[way].append(timer.seconds / (steps - timer.skip))
    return times


def step_times(n, width, hidden, batch, steps, rounds):
    parts = make_parts(n)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, hidden)).astype("float32")
    y = rng.normal(size=(batch * steps, width)).astype("float32")
    models = {way: compiled(way, parts, width, hidden) for way in ("sum", "usual", "composite")}
    times = interleaved(models, x, y, batch, rounds)
    ratios = {
        way: statistics.median(c / t for c, t in zip(times["composite"], times[way], strict=True))
        for way in ("sum", "usual")
    }
    return {way: statistics.median(values) for way, values in times.items()}, ratios


def first_step(way, n=128, width=64, hidden=8, batch=32):
    model = compiled(way, make_parts(n), width, hidden)
    x, y = np.zeros((batch, hidden), "float32"), np.zeros((batch, width), "float32")
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, verbose=0)
    return time.perf_counter() - start


def import_time(rounds=7):
    """Seconds that `import combined_losses` takes after `import keras`.

    With compiled byte code, which `pip` leaves beside the files; the first run writes it.
    """
    code = (
        "import time, keras; s = time.perf_counter(); import combined_losses; "
        "print(time.perf_counter() - s)"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        kwargs = {"env": env | {"PYTHONPYCACHEPREFIX": folder}, "capture_output": True}
        command = [sys.executable, "-c", code]
        runs = [subprocess.run(command, check=True, **kwargs) for _ in range(1 + rounds)]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    recording.add_argument(parser)
    args = parser.parse_args()
    rounds, rows = args.rounds, []
    cores = len(os.sched_getaffinity(0))
    print(f"{keras.backend.backend()}, keras {keras.__version__}, {cores} cores, medians")
    print(
        f"{'outputs':>12} {'n':>4} {'sum':>9} {'usual':>9} {'composite':>9}   ratio to sum, usual"
    )
    tiny_steps = 45 if keras.backend.backend() == "torch" else 205
    cases = [(n, 4096, 16, 256, 25) for n in (2, 8, 32)]
    cases += [(n, 8, 4, 32, tiny_steps) for n in (2, 32, 128)]
    for n, width, hidden, batch, steps in cases:
        times, ratios = step_times(n, width, hidden, batch, steps, rounds)
        shown = " ".join(f"{1e3 * times[way]:7.2f}ms" for way in ("sum", "usual", "composite"))
        print(
            f"{f'{batch}x{width}':>12} {n:4d} {shown}   {ratios['sum']:.2f}, {ratios['usual']:.2f}"
        )
        label = f"{batch}x{width}, {n} parts"
        in_ms = [1e3 * times[way] for way in ("sum", "usual", "composite")]
        rows.append([label, *in_ms, ratios["sum"], ratios["usual"]])
    firsts = [(first_step("usual"), first_step("composite")) for _ in range(3)]
    usual, composite = (statistics.median(column) for column in zip(*firsts, strict=True))
    print(
        f"first step, n = 128: usual {usual:.2f} s, composite {composite:.2f} s, "
        f"ratio {composite / usual:.2f}"
    )
    imported = import_time()
    print(f"import combined_losses after keras: {imported:.3f} s")
    keep(args.json, rows, usual, composite, imported)


def keep(path, rows, usual, composite, imported):
    backend = keras.backend.backend()
    columns = {f"{way}, ms": "{:.2f}" for way in ("sum", "usual", "composite")}
    columns |= {f"ratio to {way}": "{:.2f}" for way in ("sum", "usual")}
    recording.keep(path, backend, title=backend, label="outputs", columns=columns, rows=rows)
    recording.keep(
        path,
        f"{backend}_first",
        title=backend,
        label="first step with 128 parts, and import",
        columns={"s": "{:.3g}"},
        rows=[
            ["first step, usual", usual],
            ["first step, composite", composite],
            ["import combined_losses after keras", imported],
        ],
    )


if __name__ == "__main__":
    main()
