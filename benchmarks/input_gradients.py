"""What does `input_gradients` cost beside the derivatives that one writes in the framework itself?

The gradient, by the parameters, of an equation in derivatives of a network of four layers of 64
tanh with the inputs x and t: the step of a training without the optimizer, compiled on TensorFlow
and JAX, as in `fit`. All ways take turns in one process; medians of the steps and of the ratios to
`input_gradients` of the same turn, where less than 1.00 means that `input_gradients` is quicker.
A way that gives another loss stops the script.

    order 1   u_x, u_t: input_gradients(model, x)
    order 2   u_xx, u_tt: input_gradients(model, x, order=2)
    burgers   derivatives=["", "t", "x", "xx"]
    mixed     derivatives=["xx", "xt", "tt"]
    flow      derivatives=["", "x", "t", "xx", "tt"] of three outputs

Batches of 512, 100 turns. Results: docs/benchmarks.md.

    OMP_NUM_THREADS=1 python benchmarks/input_gradients.py --backend jax [--json FILE]
"""

import argparse
import contextlib
import functools
import itertools
import os
import statistics
import sys
import time

if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
from keras import ops

import combined_losses as cl

BACKEND = keras.backend.backend()
NU = 0.01


def network(outputs):
    hidden = [keras.layers.Dense(64, activation="tanh") for _ in range(4)]
    return keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(outputs)])


# What a problem needs: u, and dicts of derivatives by the columns x and t (or x and y). `nested`
# takes derivatives with the framework alone; each function below says how.

NEEDS = {
    "order 1": (1, ["x", "t"]),
    "order 2": (1, ["xx", "tt"]),
    "burgers": (1, ["", "t", "x", "xx"]),
    "mixed": (1, ["xx", "xt", "tt"]),
    "flow": (3, ["", "x", "t", "xx", "tt"]),
}


def ours(model, x, problem):
    if problem == "order 1":
        found = cl.input_gradients(model, x)
        return [found[:, :1], found[:, 1:]]
    if problem == "order 2":
        found = cl.input_gradients(model, x, order=2)
        return [found[:, :1], found[:, 1:]]
    words = NEEDS[problem][1]
    found = cl.input_gradients(model, x, derivatives=words, columns="xt")
    return [found[word] for word in words]


def nested_backward(model, x, problem, record):
    """The value, its gradients by all columns, and the gradients of those that are needed."""
    outputs, words = NEEDS[problem]
    second = sorted({word[0] for word in words if len(word) == 2})
    with record(x) if second else contextlib.nullcontext((x, None)) as (x, outer):
        with record(x) as (x, inner):
            u = model(x, training=False)
            parts = [u] if outputs == 1 else [u[:, k : k + 1] for k in range(outputs)]
        slopes = [inner(part, x) for part in parts]
        columns = {c: [s[:, i : i + 1] for s in slopes] for i, c in enumerate("xt") if c in second}
    found = {"": parts, "x": [s[:, :1] for s in slopes], "t": [s[:, 1:] for s in slopes]}
    for c in second:
        curved = [outer(column, x) for column in columns[c]]
        found[c + "x"], found[c + "t"] = [h[:, :1] for h in curved], [h[:, 1:] for h in curved]
    return [joined(found[word]) for word in words]


def joined(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


if BACKEND == "torch":
    import torch

    @contextlib.contextmanager
    def record(x):
        x = x if x.requires_grad else x.detach().requires_grad_()

        def gradient(u, x):
            return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]

        yield x, gradient

    def nested(model, x, problem):
        return nested_backward(model, x, problem, record)

    WAYS = {"autograd.grad": nested}

    def stepper(way, model, problem):
        def step(x):
            loss = residual(way(model, x, problem))
            variables = [v.value for v in model.trainable_variables]
            return loss, torch.autograd.grad(loss, variables, allow_unused=True)

        return step

    def wait(result):
        return result[0].item()

elif BACKEND == "tensorflow":
    import tensorflow as tf

    @contextlib.contextmanager
    def record(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            yield x, tape.gradient

    def nested(model, x, problem):
        return nested_backward(model, x, problem, record)

    WAYS = {"GradientTape": nested}

    def stepper(way, model, problem):
        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                loss = residual(way(model, x, problem))
            return loss, tape.gradient(loss, model.trainable_variables)

        return step

    def wait(result):
        return result[0].numpy()

else:
    import jax

    def nested_jvp(model, x, problem):
        """A `jvp` of a `jvp` for each derivative of order 2; the compiler joins equal parts."""

        def along(function, letter):
            direction = jax.numpy.zeros_like(x).at[:, "xt".index(letter)].set(1)
            return lambda x: jax.jvp(function, (x,), (direction,))[1]

        def network(x):
            return model(x, training=False)

        found = []
        for word in NEEDS[problem][1]:
            function = network
            for letter in word:
                function = along(function, letter)
            found.append(function(x))
        return found

    def nested_grad(model, x, problem):
        """The `grad` of a sum over the samples, and of a sum of that."""
        outputs, words = NEEDS[problem]

        def slope(function, letter):
            return lambda x: jax.grad(lambda x: function(x).sum())(x)[:, "xt".index(letter)]

        found = []
        for word in words:
            columns = []
            for k in range(outputs):
                function = functools.partial(lambda k, x: model(x, training=False)[:, k], k)
                for letter in word:
                    function = slope(function, letter)
                columns.append(function(x))
            found.append(jax.numpy.stack(columns, axis=1))
        return found

    def hessian(model, x, problem):
        """`vmap` of `jacrev`, and of `hessian` where a derivative of order 2 is needed."""

        def network(row):
            return model(row[None], training=False)[0]

        words = NEEDS[problem][1]
        slopes = jax.vmap(jax.jacrev(network))(x)
        is_second = any(len(word) == 2 for word in words)
        curved = jax.vmap(jax.hessian(network))(x) if is_second else None
        index = "xt".index
        return [
            model(x, training=False)
            if not word
            else slopes[:, :, index(word)]
            if len(word) == 1
            else curved[:, :, index(word[0]), index(word[1])]
            for word in words
        ]

    WAYS = {"jvp": nested_jvp, "grad": nested_grad, "hessian": hessian}

    def stepper(way, model, problem):
        def loss(trainable, x):
            pairs = zip(model.trainable_variables, trainable, strict=True)
            with keras.StatelessScope(state_mapping=pairs):
                return residual(way(model, x, problem))

        step = jax.jit(jax.value_and_grad(loss))
        return lambda x: step([v.value for v in model.trainable_variables], x)

    def wait(result):
        return jax.block_until_ready(result)


def residual(found):
    """The mean square of a sum of products of neighbours, which uses every derivative."""
    total = found[0]
    for one, other in itertools.pairwise(found):
        total = total + one * other - NU * other
    return ops.mean(ops.square(total))


def measure(problem, batch, turns):
    """The medians of the steps in ms, and of the ratios to the plain step of the same turn."""
    model = network(NEEDS[problem][0])
    x = np.random.default_rng(0).uniform(-1, 1, size=(batch, 2)).astype("float32")
    x = ops.convert_to_tensor(x)
    ways = {"ours": ours, **WAYS}
    steps = {name: stepper(way, model, problem) for name, way in ways.items()}
    losses = {name: float(step(x)[0]) for name, step in steps.items()}
    first = losses["ours"]
    assert all(abs(other - first) <= 1e-4 * abs(first) for other in losses.values()), losses
    seconds = {name: [] for name in steps}
    for turn in range(turns + 1):
        order = list(steps) if turn % 2 else list(reversed(steps))
        for name in order:
            start = time.perf_counter()
            wait(steps[name](x))
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: each[1:] for name, each in seconds.items()}
    milliseconds = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["ours"], each, strict=True))
        for name, each in seconds.items()
        if name != "ours"
    }
    return milliseconds, ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="tensorflow, jax or torch")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--problems", nargs="+", choices=NEEDS, default=list(NEEDS))
    recording.add_argument(parser)
    options = parser.parse_args()
    rows = []
    for problem in options.problems:
        milliseconds, ratios = measure(problem, options.batch, options.turns)
        line = f"{BACKEND:12}{problem:10}{milliseconds['ours']:8.2f}ms"
        for name, ratio in ratios.items():
            line += f"   {name:>13} {milliseconds[name]:8.2f}ms {ratio:6.2f}"
        print(line, flush=True)
        of_ways = [[milliseconds[name], ratio] for name, ratio in ratios.items()]
        rows.append([problem, milliseconds["ours"], *of_ways])
    recording.keep(
        options.json,
        BACKEND,
        title=f"{BACKEND}: ms of a step; in brackets: `input_gradients` by that way",
        label="derivatives",
        columns={"input_gradients": "{:.2f}"} | dict.fromkeys(WAYS, "{:.2f} ({:.2f})"),
        rows=rows,
    )


if __name__ == "__main__":
    main()
