"""What does `cl.diagnose` cost? A batch of it beside a plain step of training on that batch.

8 Pinball losses of one output, SGD: a network of 20 million parameters with 512 outputs and batches
of 64; a small network with a large output, 4096 numbers, batches of 256; and a tiny one, 16 numbers
and batches of 32. The plain step is `train_on_batch` of a compiled `keras.Model` with a function
that adds the same parts and reports none. Both take turns in one process; medians, and the median
of the ratios of a turn. `first` is the first call, which the frameworks use to compile.

Results: docs/benchmarks.md.

    python benchmarks/diagnose.py --backend jax [--json FILE]
"""

import argparse
import os
import statistics
import sys
import time
import warnings

if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording

import combined_losses as cl

warnings.filterwarnings("ignore")

K = 8
LEVELS = [(i + 1) / (K + 1) for i in range(K)]
# The widths of the layers from the inputs to the output, and the batch.
NETWORKS = {
    "20 M parameters": ((1024, 2048, 2048, 2048, 2048, 2048, 512), 64),
    "large output": ((64, 64, 4096), 256),
    "tiny": ((16, 32, 16), 32),
}


def parts():
    return {f"level_{i}": cl.losses.Pinball(level) for i, level in enumerate(LEVELS)}


def plain_sum():
    losses = list(parts().values())
    return lambda y_true, y_pred: sum(loss(y_true, y_pred) for loss in losses) / K


def ways(widths, batch):
    """A plain step, and a diagnosis at both places, of one network."""
    hidden = [keras.layers.Dense(width, activation="relu") for width in widths[1:-1]]
    layers = [keras.Input((widths[0],)), *hidden, keras.layers.Dense(widths[-1])]
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(batch, n)).astype("float32") for n in (widths[0], widths[-1]))
    plain, ours = keras.Sequential(layers), cl.Sequential(layers)
    plain.compile(keras.optimizers.SGD(1e-3), loss=plain_sum())
    loss = cl.CompositeLoss(parts(), weights=[1 / K] * K)
    ours.compile(keras.optimizers.SGD(1e-3), loss=loss)
    return {
        "plain step": lambda: plain.train_on_batch(x, y),
        "diagnose": lambda: cl.diagnose(ours, x, y, batch_size=batch),
        "diagnose, parameters": lambda: cl.diagnose(ours, x, y, batch_size=batch, at="parameters"),
    }


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--turns", type=int, default=11)
    recording.add_argument(parser)
    args = parser.parse_args()
    backend, rows = keras.backend.backend(), []
    print(f"{backend:<40} step   ratio    first")
    for network, size in NETWORKS.items():
        found = ways(*size)
        first = {name: seconds(way) for name, way in found.items()}
        # The second call of each in a turn counts: the first one fills the caches.
        taken = {name: [] for name in found}
        for _ in range(args.turns):
            for name, way in found.items():
                way()
                taken[name].append(seconds(way))
        for name, times in taken.items():
            pairs = zip(times, taken["plain step"], strict=True)
            ratio = statistics.median(time / plain for time, plain in pairs)
            step = 1e3 * statistics.median(times)
            print(f"{network:<16} {name:<21} {step:6.1f}ms  {ratio:5.2f}  {first[name]:6.2f}s")
            if name != "plain step":
                rows.append([f"{network}: {name}", ratio])
    recording.keep(
        args.json,
        backend,
        title=backend,
        label="network and place",
        columns={"ratio to a plain step": "{:.2f}"},
        rows=rows,
    )


if __name__ == "__main__":
    main()
