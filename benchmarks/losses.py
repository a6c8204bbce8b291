"""What does a domain loss cost, beside the same loss of a torch library?

Value and gradient of every pair, in turns in one process after a warm-up: medians in ms of ours
and theirs, the median of the ratios, and that of ours over the bare formula (`keras.ops`, without
checks) where `pairs/` has one. Masks and images 8x256x256, volumes 64x64x64, class maps 8x128x128
of 3 classes, 8 signals of 24000 steps, 512 embeddings of 128, 4096 samples of 80 tags, 8x32768
anchors; the peers get channels first, as they want them. Run it with `KERAS_BACKEND=torch` and with
`jax` (our side compiled). The peers are not among the requirements of this package:

    pip install --no-deps monai==1.6.1 pytorch-toolbelt==0.8.0 opencv-python-headless
    pip install --no-deps auraloss==0.4.0 pytorch-msssim==1.0.0 pytorch-metric-learning==2.9.0
    pip install --no-deps focal-frequency-loss==0.3.0 coral-pytorch==1.4.0

Results: docs/benchmarks.md.

    KERAS_BACKEND=torch python benchmarks/losses.py [--only GIoU] [--json FILE]
"""

import argparse
import ctypes
import importlib
import os
import pkgutil
import statistics
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pairs
import recording
import torch

warnings.filterwarnings("ignore")


def on_backend(loss, y_true, y_pred):
    """A function that computes value and gradient of a loss on the backend of Keras."""
    if keras.backend.backend() == "torch":
        return pairs.value_and_gradient(loss, y_true, y_pred)
    import jax

    step = jax.jit(jax.value_and_grad(lambda p, t: loss(t, p)))
    target, pred = jax.device_put(y_true), jax.device_put(y_pred)
    return lambda: jax.block_until_ready(step(pred, target))


def interleaved(functions, seconds):
    """Times of each, in turns of at least five calls and 40 ms, for about so long.

    Threads of one framework wait for work in a loop, which would take a core from the other: each
    turn starts when they sleep, and with a call that does not count.
    """
    times = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, found in zip(functions, times, strict=True):
            time.sleep(0.05)
            function()
            turn = []
            while len(turn) < 5 or sum(turn) < 0.04:
                start = time.perf_counter()
                function()
                turn.append(time.perf_counter() - start)
            found.append(statistics.median(turn))
    return times


PEERS = (
    "torch",
    "monai",
    "pytorch-toolbelt",
    "auraloss",
    "pytorch-msssim",
    "pytorch-metric-learning",
    "focal-frequency-loss",
    "coral-pytorch",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each pair")
    parser.add_argument("--only", default="", help="pairs whose name begins so")
    parser.add_argument("--family", help="a file of `pairs/`; default: all of them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    recording.add_argument(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # By default glibc gives arrays of this size back to the system and faults them in again, now
    # and then: up to three times the time of a small loss, of either side. Not here.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-1, 2**30), libc.mallopt(-3, 2**30)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    backend = keras.backend.backend()
    print(
        f"{backend}, keras {keras.__version__}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    families = [arguments.family] if arguments.family else names_of_families()
    rows = []
    for family in families:
        for name, pair in importlib.import_module(f"pairs.{family}").PAIRS.items():
            if name.startswith(arguments.only):
                rows.append([name, *print_row(name, pair, arguments.seconds)])
    recording.keep(
        arguments.json,
        backend,
        title=backend,
        label="loss",
        columns=dict.fromkeys(("ours, ms", "theirs, ms", "ratio", "over bare"), "{:.2f}"),
        rows=recording.rows_of_others(arguments.json, backend, rows) + rows,
        packages=PEERS,
    )


def names_of_families():
    return [module.name for module in pkgutil.iter_modules(pairs.__path__)]


def print_row(name, pair, seconds):
    y_true, y_pred = pair.data(np.random.default_rng(0))
    theirs = pairs.value_and_gradient(pair.theirs(), *pair.to_theirs(y_true, y_pred))
    functions = [on_backend(pair.ours(), y_true, y_pred), theirs]
    if pair.bare is not None:
        functions.append(on_backend(pair.bare, y_true, y_pred))
    mine, *others = interleaved(functions, seconds)
    ratios = [
        statistics.median(a / b for a, b in zip(mine, other, strict=True)) for other in others
    ]
    row = [*(1e3 * statistics.median(each) for each in (mine, others[0])), *ratios]
    row = [*row, None][:4]  # None: without a bare formula
    print(f"    {name:24}" + "".join(f"{x:9.2f}" for x in row if x is not None), flush=True)
    return row


if __name__ == "__main__":
    main()
