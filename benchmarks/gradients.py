"""What do rules cost that read gradients? A step beside the plain step, and beside two peers.

A network of 6 dense layers, 20 million parameters, batches of 64, 8 quantile losses of one output
of 512 numbers, SGD. `--network convolutions` takes 8 convolutions of images, `--network attention`
4 blocks of a transformer, with 3 million parameters each, without peers. `gradients="output"`,
`gradients="parameters"`, and the latter in every tenth step, beside the plain step of the same
library: constant weights here, the backward pass of the mean in plain torch for the peers. All ways
of a group take turns in one process, the first step of a turn does not count; medians of the steps
and of the ratios to the plain step of the same turn. Memory is the peak of a process that takes
three such steps, beside that of the plain one; it tells little on JAX and TensorFlow,
which need more while they compile.

    pip install --no-deps torchjd==0.18.0 qpsolvers quadprog LibMTL==1.1.5
    pip install --no-deps cvxpy ecos clarabel osqp scs highspy qdldl

The results, in docs/benchmarks.md, are those of 7 turns, and of 30 at the output on JAX and
TensorFlow; `--json FILE` writes them.

    python benchmarks/gradients.py --backend torch [--measure memory] [--network convolutions]
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
import warnings

if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording

import combined_losses as cl

warnings.filterwarnings("ignore")

WIDTHS, INPUTS, K = (2048, 2048, 2048, 2048, 2048, 512), 1024, 8
LEVELS = [(i + 1) / (K + 1) for i in range(K)]
RULES = ("UPGrad", "MGDA", "PCGrad", "NashMTL")
SPARSE, TURN = "UPGrad", 10  # also in every tenth step only


SHAPES = {  # of inputs and outputs
    "dense": ((INPUTS,), (WIDTHS[-1],)),
    "convolutions": ((32, 32, 3), (8, 8, 32)),
    "attention": ((64, 256), (64, 64)),
}


def data(batch, network="dense"):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(batch, *shape)).astype("float32") for shape in SHAPES[network])


# Ours: a step of Keras's train function.


def our_layers():
    hidden = [keras.layers.Dense(width, activation="relu") for width in WIDTHS[:-1]]
    return [keras.Input((INPUTS,)), *hidden, keras.layers.Dense(WIDTHS[-1])]


def convolutions():
    """2.9 million parameters."""
    found = [keras.Input(SHAPES["convolutions"][0])]
    for filters, strides in ((64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 1), (384, 1)):
        found.append(keras.layers.Conv2D(filters, 3, strides, padding="same", activation="relu"))
    return [*found, keras.layers.Conv2D(32, 3, padding="same")]


class Block(keras.layers.Layer):
    """A block of a transformer: attention, then two dense layers."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(4, size // 4)
        self.wide = keras.layers.Dense(4 * size, activation="gelu")
        self.narrow = keras.layers.Dense(size)
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]

    def build(self, shape):
        self.attention.build(shape, shape)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], self.wide.units))
        for norm in self.norms:
            norm.build(shape)

    def call(self, x):
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.narrow(self.wide(x)))


def attention():
    """3.2 million parameters."""
    first = keras.layers.Dense(256)
    blocks = [Block(256) for _ in range(4)]
    return [keras.Input(SHAPES["attention"][0]), first, *blocks, keras.layers.Dense(64)]


NETWORKS = {"dense": our_layers, "convolutions": convolutions, "attention": attention}


def our_step(layers, batch, network, rule=None, **options):
    """A function that trains one step; the layers are shared, so that they are there once."""
    parts = {f"level_{i}": cl.losses.Pinball(level) for i, level in enumerate(LEVELS)}
    weighting = None if rule is None else getattr(cl.weightings, rule)(**options)
    model = cl.Sequential(layers)
    loss = cl.CompositeLoss(parts, weights=[1 / K] * K, weighting=weighting)
    model.compile(keras.optimizers.SGD(1e-3), loss=loss)
    x, y = data(batch, network)
    return lambda: model.train_on_batch(x, y)


# The peers, in plain torch: the sum and its `backward` against each component and a rule.


def their_network():
    import torch

    torch.manual_seed(0)
    layers = []
    for n, width in zip((INPUTS, *WIDTHS[:-1]), WIDTHS, strict=True):
        layers += [torch.nn.Linear(n, width), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    return network, torch.optim.SGD(network.parameters(), 1e-3)


def their_step(shared, batch, make):
    import torch

    network, optimizer = shared
    differentiate = make(network)
    x, y = (torch.from_numpy(a) for a in data(batch))

    def step():
        optimizer.zero_grad()
        error = y - network(x)
        losses = [torch.mean(torch.maximum(t * error, (t - 1) * error)) for t in LEVELS]
        differentiate(losses)
        optimizer.step()
        return [loss.item() for loss in losses]

    return step


def summed(network):
    return lambda losses: (sum(losses) / K).backward()


def torchjd_rule(kind, rule):
    import torchjd.aggregation

    options = {"n_tasks": K} if rule == "NashMTL" else {}
    return getattr(torchjd.aggregation, rule + kind)(**options)


def by_jacobian(rule, chunk=None):
    """torchjd's Jacobian of the losses, and its rule on it."""

    def make(network):
        from torchjd.autojac import backward, jac_to_grad

        aggregator = torchjd_rule("", rule)

        def differentiate(losses):
            backward(losses, parallel_chunk_size=chunk)
            jac_to_grad(network.parameters(), aggregator)

        return differentiate

    return make


def by_gramian(rule):
    """torchjd's Gramian without a Jacobian, and a second pass with the weights."""

    def make(network):
        import torch
        from torchjd.autogram import Engine

        weighting, engine = torchjd_rule("Weighting", rule), Engine(network, batch_dim=None)

        def differentiate(losses):
            losses = torch.stack(losses)
            losses.backward(weighting(engine.compute_gramian(losses)))

        return differentiate

    return make


def by_libmtl(name, **options):
    def make(network):
        from conflicts import libmtl

        class Rule(libmtl(name)):
            rep_grad, device, task_num = False, "cpu", K

            def get_share_params(self):
                return network.parameters()

            def zero_grad_share_params(self):
                network.zero_grad(set_to_none=False)  # LibMTL is older than None there

        rule = Rule()
        return lambda losses: rule.backward(losses, **options)

    return make


def ways():
    """`{library: {way: how}}`; the first way of a library is its plain step."""
    ours = {"plain": {}}
    for rule in RULES:
        for place in ("output", "parameters"):
            ours[f"{rule}, {place}"] = {"rule": rule, "gradients": place}
    every = {"rule": SPARSE, "gradients": "parameters", "update_every": TURN}
    found = {"ours": {**ours, f"{SPARSE}, parameters, every {TURN}th": every}}
    if keras.backend.backend() != "torch":
        return found
    jd = {rule: by_jacobian(rule) for rule in RULES}
    jd[f"{SPARSE}, one by one"] = by_jacobian(SPARSE, chunk=1)
    jd[f"{SPARSE}, autogram"] = by_gramian(SPARSE)
    lib = {"MGDA": by_libmtl("MGDA", mgda_gn="none"), "PCGrad": by_libmtl("PCGrad")}
    return {**found, "torchjd": {"plain": summed, **jd}, "LibMTL": {"plain": summed, **lib}}


def steps_of(library, names, batch, network="dense"):
    """`{way: step}` of one library; all of them train the same parameters."""
    known = ways()[library]
    if library == "ours":
        layers = NETWORKS[network]()
        return {name: our_step(layers, batch, network, **known[name]) for name in names}
    shared = their_network()
    # The hooks of autogram allow no other use of a network.
    return {
        name: their_step(their_network() if "autogram" in name else shared, batch, known[name])
        for name in names
    }


# Time and memory.


def seconds_of_a_step(step, turn):
    start = time.perf_counter()
    for _ in range(turn):
        step()
    return (time.perf_counter() - start) / turn


def interleaved(group, batch, rounds, network="dense"):
    """`{library: {way: seconds}}`, all ways in every round; one that fails has none."""
    steps = {library: steps_of(library, names, batch, network) for library, names in group.items()}
    times = {library: {name: [] for name in names} for library, names in steps.items()}
    for number in range(rounds + 1):
        for library, those in steps.items():
            for name, step in those.items():
                turn = TURN if "every" in name and number else 1
                try:
                    step()  # not counted: it pays for the memory that the way before has given back
                    seconds = seconds_of_a_step(step, turn)
                except Exception as error:  # of a solver of a peer
                    print(f"    {library} {name}: {error!r}"[:99], file=sys.stderr)
                    continue
                if number:  # the first one compiles
                    times[library][name].append(seconds)
    return times


def groups(libraries, rules):
    """What is measured together: `{library: [way, ...]}`, without and with gradients of all k."""
    known = ways()
    for at_output in (True, False):
        group = {
            library: [
                name
                for name in known[library]
                if name == "plain"
                or (("output" in name) == at_output and name.split(",")[0] in rules)
            ]
            for library in libraries
        }
        group = {library: names for library, names in group.items() if len(names) > 1}
        if group:
            yield at_output, group


def peak(library, name, batch, network):
    """The largest memory, in MB, of a process that does nothing but a few such steps."""
    options = ["--batch", str(batch), "--network", network, "--peak", library, name]
    command = [sys.executable, __file__, "--backend", keras.backend.backend(), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    return float(run.stdout.split()[-1]) if run.returncode == 0 else None


def print_peak(library, name, batch, network):
    if library != "ours":  # the same modules for each way
        importlib.import_module("conflicts")
        importlib.import_module("torchjd.autogram")
    step = steps_of(library, [name], batch, network)[name]
    for _ in range(3):
        step()
    print(recording.peak_bytes() / 2**20)


def measured_times(args):
    """`{row: (ms, ratio)}`, printed."""
    found = {}
    print(f"{'':36}{'step':>10}   ratio")
    for at_output, group in groups(args.only, args.rules):
        times = interleaved(group, args.batch, args.rounds, args.network)
        for library, of_library in times.items():
            for name, seconds in of_library.items():
                pairs = zip(seconds, of_library["plain"], strict=False)
                ratios = [a / b for a, b in pairs]
                if not ratios:
                    continue
                row = f"{library}: {name}"
                if library == "ours" and name == "plain":
                    row += f", in turn with the {'output' if at_output else 'parameters'}"
                found[row] = 1e3 * statistics.median(seconds), statistics.median(ratios)
                print(f"    {row:45}{found[row][0]:8.0f}ms  {found[row][1]:6.2f}", flush=True)
    return found


def measured_peaks(args):
    """`{row: MB beside the plain step}`, printed."""
    found = {}
    print(f"{'':42}{'peak':>10}    beside plain")
    for library in args.only:
        plain = peak(library, "plain", args.batch, args.network)
        for name in ways()[library]:
            if name == "plain" or name.split(",")[0] not in args.rules:
                continue
            whole = peak(library, name, args.batch, args.network)
            if whole is None or plain is None:
                continue
            row = f"{library}: {name}"
            found[row] = whole - plain
            print(f"    {row:38}{whole:8.0f}MB  {found[row]:6.0f}MB", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["torch", "jax", "tensorflow"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", choices=list(NETWORKS), default="dense")
    parser.add_argument("--only", nargs="+", choices=list(ways()), default=list(ways()))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--measure", choices=["time", "memory"])
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    recording.add_argument(parser)
    args = parser.parse_args()
    if args.network != "dense":
        args.only = ["ours"]
    if args.peak:
        print_peak(*args.peak, args.batch, args.network)
        return
    backend = keras.backend.backend()
    print(f"{backend}, keras {keras.__version__}, {args.network}, batch {args.batch}, medians")
    times = measured_times(args) if args.measure != "memory" else {}
    peaks = measured_peaks(args) if args.measure != "time" else {}
    columns = {
        "step, ms": "{:.0f}",
        "ratio to its plain step": "{:.2f}",
        "memory beside plain, MB": "{:.0f}",
    }
    columns = {name: columns[name] for name in columns if peaks or "memory" not in name}
    rows = [
        [name, *times.get(name, (None, None)), *([peaks.get(name)] if peaks else [])]
        for name in {**times, **peaks}
    ]
    name = backend if args.network == "dense" else f"{args.network}_{backend}"
    recording.keep(args.json, name, title=backend, label="rule", columns=columns, rows=rows)


if __name__ == "__main__":
    main()
