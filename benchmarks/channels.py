"""What do 128 channels with a metric each cost? Against the plain loss, and a loop over channels.

Total, parts and the gradient by `y_pred`, of `MeanSquaredError()` alone ("plain"), of a Python loop
over the channels, and of `PerChannel(MeanSquaredError())` without and with a name for each channel.
TensorFlow is measured as a graph and with XLA, which is what `fit` chooses. Medians; times are
interleaved in one process, peaks are those of a process for each variant.

The loop would hold 128 arrays of 512 MiB: it is measured on a smaller batch. TensorFlow without XLA
frees memory late, so its peak moves by an array. Results: docs/benchmarks.md.

    python benchmarks/channels.py [--only jax] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import recording

GIB = 2**30
VARIANTS = ("plain", "loop", "no names", "names")
ELEMENTS = (10, 10, 10)


# In a child process: the variants as functions `(y_true, y_pred) -> (total, parts)`.


def make_loss(variant, channels):
    import keras
    from keras import ops

    import combined_losses as cl
    from combined_losses._core.batch import Batch

    plain = keras.losses.MeanSquaredError()
    if variant == "plain":
        return lambda y_true, y_pred: (plain(y_true, y_pred), ())
    if variant == "loop":

        def loop(y_true, y_pred):
            one = [slice(channel, channel + 1) for channel in range(channels)]
            parts = ops.stack([plain(y_true[..., at], y_pred[..., at]) for at in one])
            return ops.sum(parts), parts

        return loop
    size = channels if variant == "names" else None
    loss = cl.wrappers.PerChannel(keras.losses.MeanSquaredError(), size=size)
    return lambda y_true, y_pred: tuple(loss.evaluate(Batch(y_true, y_pred)))


def make_step(variant, channels, xla):
    """Total, parts and the gradient by y_pred, compiled anew."""
    import keras

    loss = make_loss(variant, channels)
    if keras.backend.backend() == "jax":
        import jax

        by_prediction = jax.value_and_grad(lambda p, t: loss(t, p), has_aux=True)
        step = jax.jit(lambda t, p: by_prediction(p, t))
        return lambda t, p: jax.block_until_ready(step(t, p))
    import tensorflow as tf

    @tf.function(jit_compile=xla)
    def step(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total, parts = loss(y_true, y_pred)
        return (total, parts), tape.gradient(total, y_pred)

    def finished(y_true, y_pred):
        (total, _), _ = result = step(y_true, y_pred)
        total.numpy()
        return result

    return finished


def make_data(shape):
    from keras import ops

    # Made in place: what random numbers need on the way would be the peak of the memory.
    return ops.zeros(shape), ops.ones(shape)


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def measure_time(options):
    data = make_data(options["shape"])
    for variant in ("plain", "names"):  # what only the first step of a process pays
        make_step(variant, 2, options["xla"])(*make_data((2, 2, 2, 2)))
    variants, channels = options["variants"], options["shape"][-1]
    first, step = {v: [] for v in variants}, {v: [] for v in variants}
    for _ in range(options["firsts"]):
        steps = {}
        for variant in variants:
            start = time.perf_counter()
            steps[variant] = make_step(variant, channels, options["xla"])
            steps[variant](*data)
            first[variant].append(time.perf_counter() - start)
    for _ in range(options["rounds"]):
        for variant in variants:
            step[variant].append(seconds(steps[variant], *data))
    return {v: [statistics.median(first[v]), statistics.median(step[v])] for v in variants}


def measure_memory(options):
    """The peak in GiB after two steps, in a process for this variant alone."""
    data = make_data(options["shape"])
    make_step("plain", 2, options["xla"])(*make_data((2, 2, 2, 2)))
    step = make_step(options["variants"][0], options["shape"][-1], options["xla"])
    for _ in range(2):
        step(*data)
    return recording.peak_bytes() / GIB


def measure_elements(options):
    """Seconds to the first step: of a plain model, and of one with a metric for each element."""
    import keras
    import numpy as np

    import combined_losses as cl

    def first_step(named):
        layers = [
            keras.Input((8,)),
            keras.layers.Dense(int(np.prod(ELEMENTS))),
            keras.layers.Reshape(ELEMENTS),
        ]
        model = (cl.Sequential if named else keras.Sequential)(layers)
        x, y = np.zeros((32, 8), "float32"), np.zeros((32, *ELEMENTS), "float32")
        start = time.perf_counter()
        loss = cl.CompositeLoss([cl.wrappers.PerElement("mse", size=ELEMENTS)]) if named else "mse"
        model.compile("adam", loss=loss, jit_compile="auto" if options["xla"] else False)
        model.fit(x, y, verbose=0)
        return time.perf_counter() - start

    for named in (False, True):  # what only the first model of a process pays
        first_step(named)
    times = [(first_step(False), first_step(True)) for _ in range(options["firsts"])]
    return [statistics.median(column) for column in zip(*times, strict=True)]


MEASURES = {f.__name__: f for f in (measure_time, measure_memory, measure_elements)}


def in_child(measure, backend, **options):
    """What a measurement returns, made in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps([measure.__name__, options])],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


# The table.


def table(name, backend, xla, shape, variants, args):
    common = {"xla": xla, "shape": shape}
    times = in_child(
        measure_time,
        backend,
        variants=variants,
        rounds=args.rounds,
        firsts=args.firsts,
        **common,
    )
    rows = {}
    for variant in variants:
        memory = in_child(measure_memory, backend, variants=[variant], **common)
        rows[variant] = [*times[variant], memory]
    measured = []
    for variant, row in rows.items():
        cells = [[value, value / base] for value, base in zip(row, rows["plain"], strict=True)]
        shown = "  ".join(f"{value:8.3f} ({ratio:5.2f})" for value, ratio in cells)
        print(f"{name:16} {variant:9} {shown}", flush=True)
        measured.append([f"{name}: {variant}", *cells])
    return measured


def keep(path, name, title, label, columns, rows):
    recording.keep(
        path,
        name,
        title=title,
        label=label,
        columns=columns,
        rows=rows,
        packages=("tensorflow", "jax"),
    )


def print_variants(ways, args):
    columns = dict.fromkeys(("first step, s", "step, s", "peak, GiB"), "{:.3f} ({:.2f})")
    small = [args.loop_batch, *args.shape[1:]]
    for size, shape, variants, note in (
        ("large", args.shape, ["plain", "no names", "names"], ""),
        ("small", small, list(VARIANTS), ", with the loop"),
    ):
        print(f"\noutputs {tuple(shape)}")
        print(f"{'':16} {'':9} {'first step, s':>16}  {'step, s':>16}  {'peak, GiB':>16}")
        rows = []
        for name, (backend, xla) in ways.items():
            rows += table(name, backend, xla, shape, variants, args)
        title = f"Outputs {tuple(shape)}{note}; in brackets: times the plain loss"
        keep(args.json, size, title, "way", columns, rows)


def print_elements(ways, args):
    print("\nfirst step of a model, 10x10x10 elements: plain, 1,000 metrics, ratio")
    rows = []
    for name, (backend, xla) in ways.items():
        plain, named = in_child(measure_elements, backend, xla=xla, firsts=args.firsts)
        print(f"{name:16} {plain:6.3f} s  {named:6.3f} s  {named / plain:.2f}")
        rows.append([name, plain, named, named / plain])
    title = "First step of a model with 10 x 10 x 10 elements, s"
    columns = {"plain": "{:.3f}", "1,000 metrics": "{:.3f}", "ratio": "{:.2f}"}
    keep(args.json, "elements", title, "backend", columns, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=4, default=[256, 64, 64, 128])
    parser.add_argument("--loop-batch", type=int, default=16, help="batch of the table with a loop")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--firsts", type=int, default=3)
    parser.add_argument("--only", choices=["tensorflow", "tensorflow, XLA", "jax"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    recording.add_argument(parser)
    args = parser.parse_args()
    if args.child:
        measure, options = json.loads(args.child)
        print(json.dumps(MEASURES[measure](options)))
        return
    ways = {
        "tensorflow": ("tensorflow", False),
        "tensorflow, XLA": ("tensorflow", True),
        "jax": ("jax", True),
    }
    ways = {name: way for name, way in ways.items() if args.only in (None, name)}
    print(f"{len(os.sched_getaffinity(0))} cores; in brackets: times the plain loss")
    print_variants(ways, args)
    print_elements(ways, args)


if __name__ == "__main__":
    main()
