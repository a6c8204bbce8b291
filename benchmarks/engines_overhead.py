"""What does a composite cost on several devices or processes, beside Keras's plain loss there?

On 1, 2, 4 and 8 replicas, devices and ranks, which the CPUs of this machine simulate: the median
time of a step of a network of 66,000 parameters and 512 samples, with

- plain: one `keras.losses.MeanSquaredError`;
- composite: eight components, each with its metric;
- value rule: the same under `MagnitudeBalance`;
- Gramian rule: the same under `UPGrad`, at the output.

On TensorFlow and JAX in `fit`, on torch in a loop around `DistributedDataParallel`, since Keras's
plain `fit` adds up no gradients there.

    python benchmarks/engines_overhead.py [--only jax] [--counts 2 4] [--json FILE]

Results: docs/devices.md.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for the engines of tests/

from tests.engines import starting

ENGINES = {
    "torch": ("torch, ranks", starting.ranks),
    "tensorflow": ("TensorFlow, MirroredStrategy", lambda n: [{"REPLICAS": str(n)}]),
    "jax": ("JAX, DataParallel", lambda n: starting.simulated("data", n, flags="")),
}
MODULES = {"torch": "ranks", "tensorflow": "replicas", "jax": "devices"}
WAYS = ("plain", "composite", "value rule", "Gramian rule")
BATCH, WIDTH, PARTS, STEPS, ROUNDS = 512, 128, 8, 24, 5


def loss_of(way):
    import keras

    import combined_losses as cl

    if way == "plain":
        return keras.losses.MeanSquaredError()
    rules = {"value rule": cl.weightings.MagnitudeBalance, "Gramian rule": cl.weightings.UPGrad}
    parts = {f"huber_{i}": keras.losses.Huber(0.5 + i) for i in range(PARTS)}
    return cl.CompositeLoss(parts, weighting=rules[way]() if way in rules else None)


def network():
    import keras

    import combined_losses as cl

    hidden = keras.layers.Dense(256, activation="relu")
    return cl.Sequential([keras.Input((WIDTH,)), hidden, keras.layers.Dense(WIDTH)])


def fitting(engine, way, x, y):
    """A function that makes an epoch of `fit`."""
    with engine.scope():
        model = network()
        model.compile("sgd", loss=loss_of(way))

        def epoch():
            model.fit(x, y, batch_size=BATCH // engine.processes, verbose=0, shuffle=False)

        return epoch


def looping(engine, way, x, y):
    """A function that makes an epoch of a loop of torch's."""
    import contextlib

    import torch

    model, loss = network(), loss_of(way)
    trained = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    size = BATCH // engine.processes
    x, y = torch.tensor(x), torch.tensor(y)

    def epoch():
        for start in range(0, len(x), size):
            step = contextlib.nullcontext() if way == "plain" else loss.training_step()
            optimizer.zero_grad()
            with step:
                value = loss(y[start : start + size], trained(x[start : start + size]))
            value.backward()
            optimizer.step()

    return epoch


def measure(backend):
    """Prints the milliseconds of a step of each way, as the first process sees them."""
    import importlib

    import numpy as np

    engine = importlib.import_module(f"tests.engines.{MODULES[backend]}").begin()
    rows = BATCH * STEPS // engine.processes
    x = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype("float32")
    make = looping if backend == "torch" else fitting
    epochs = {way: make(engine, way, x, x[:, ::-1].copy()) for way in WAYS}
    times = {way: [] for way in WAYS}
    for number in range(ROUNDS + 1):
        for way, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if number:  # the first one compiles
                times[way].append(1e3 * (time.perf_counter() - start) / STEPS)
    if engine.process == 0:
        print(json.dumps({way: statistics.median(each) for way, each in times.items()}))


def started(backend, count):
    environments = [{**own, "KERAS_BACKEND": backend} for own in ENGINES[backend][1](count)]
    command = [sys.executable, __file__, "--here", backend]
    found = starting.together([command] * len(environments), environments, timeout=1200)
    code, out, err = found[0]
    if code:
        raise RuntimeError(f"{backend}, {count}: exit code {code}\n{err[-3000:]}")
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the table to this file")
    parser.add_argument("--here", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure(args.here)
        return
    import recording

    rows = []
    for backend in args.only:
        for count in args.counts:
            times = started(backend, count)
            ratios = [times[way] / times["plain"] for way in WAYS[1:]]
            rows.append([f"{ENGINES[backend][0]}, {count}", times["plain"], *ratios])
            print(rows[-1], flush=True)
    columns = {"plain, ms": "{:.1f}", **dict.fromkeys(WAYS[1:], "{:.2f}")}
    recording.keep(
        args.json,
        "overhead",
        title="A step on simulated devices: ms with the plain loss, and times as long with others",
        label="engine",
        columns=columns,
        rows=recording.rows_of_others(args.json, "overhead", rows) + rows,
        packages=("tensorflow", "jax", "torch"),
    )


if __name__ == "__main__":
    main()
