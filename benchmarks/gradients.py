"""What do rules cost that read gradients? A step beside the plain step, and beside two peers.

A network of 6 dense layers, 20 million parameters, batches of 64, 8 quantile losses of one output
of 512 numbers, SGD. `gradients="output"`, `gradients="parameters"`, and the latter in every tenth
step, beside the plain step of the same library: constant weights here, the backward pass of the
mean in plain torch for the peers. All ways of a group take turns in one process, the first step of
a turn does not count; medians of the steps and of the ratios to the plain step of the same turn.
Memory (torch) is the peak of a process that takes three such steps, beside that of the plain one.

    pip install --no-deps torchjd==0.18.0 qpsolvers quadprog LibMTL==1.1.5
    pip install --no-deps cvxpy ecos clarabel osqp scs highspy qdldl

The results, in docs/benchmarks.md, are those of 7 turns, and of 30 at the output on JAX and
TensorFlow.

    python benchmarks/gradients.py --backend torch [--measure memory]
"""

import argparse
import importlib
import os
import resource
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

import combined_losses as cl

warnings.filterwarnings("ignore")

WIDTHS, INPUTS, K = (2048, 2048, 2048, 2048, 2048, 512), 1024, 8
LEVELS = [(i + 1) / (K + 1) for i in range(K)]
RULES = ("UPGrad", "MGDA", "PCGrad", "NashMTL")
SPARSE, TURN = "UPGrad", 10  # also in every tenth step only


def data(batch):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(batch, n)).astype("float32") for n in (INPUTS, WIDTHS[-1]))


# Ours: a step of Keras's train function.


def our_layers():
    hidden = [keras.layers.Dense(width, activation="relu") for width in WIDTHS[:-1]]
    return [keras.Input((INPUTS,)), *hidden, keras.layers.Dense(WIDTHS[-1])]


def our_step(layers, batch, rule=None, **options):
    """A function that trains one step; the layers are shared, so that they are there once."""
    parts = {f"level_{i}": cl.losses.Pinball(level) for i, level in enumerate(LEVELS)}
    weighting = None if rule is None else getattr(cl.weightings, rule)(**options)
    model = cl.Sequential(layers)
    loss = cl.CompositeLoss(parts, weights=[1 / K] * K, weighting=weighting)
    model.compile(keras.optimizers.SGD(1e-3), loss=loss)
    x, y = data(batch)
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


def steps_of(library, names, batch):
    """`{way: step}` of one library; all of them train the same parameters."""
    known = ways()[library]
    if library == "ours":
        layers = our_layers()
        return {name: our_step(layers, batch, **known[name]) for name in names}
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


def interleaved(group, batch, rounds):
    """`{library: {way: seconds}}`, all ways in every round; one that fails has none."""
    steps = {library: steps_of(library, names, batch) for library, names in group.items()}
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


def groups(libraries):
    """What is measured together: `{library: [way, ...]}`, without and with gradients of all k."""
    known = ways()
    for at_output in (True, False):
        group = {
            library: [n for n in known[library] if n == "plain" or ("output" in n) == at_output]
            for library in libraries
        }
        yield {library: names for library, names in group.items() if len(names) > 1}


def peak(library, name, batch):
    """The largest memory, in MB, of a process that does nothing but a few such steps."""
    options = ["--batch", str(batch), "--peak", library, name]
    command = [sys.executable, __file__, "--backend", keras.backend.backend(), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    return float(run.stdout.split()[-1]) if run.returncode == 0 else float("nan")


def print_peak(library, name, batch):
    if library != "ours":  # the same modules for each way
        importlib.import_module("conflicts")
        importlib.import_module("torchjd.autogram")
    step = steps_of(library, [name], batch)[name]
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def print_times(libraries, batch, rounds):
    print(f"{'':36}{'step':>10}   ratio")
    for group in groups(libraries):
        for library, found in interleaved(group, batch, rounds).items():
            for name, seconds in found.items():
                pairs = zip(seconds, found["plain"], strict=False)
                ratio = statistics.median([a / b for a, b in pairs] or [float("nan")])
                median = 1e3 * statistics.median(seconds or [float("nan")])
                print(f"    {library:8}{name:24}{median:8.0f}ms  {ratio:6.2f}", flush=True)


def print_peaks(libraries, batch):
    print(f"{'':42}{'peak':>10}    beside plain; the parameters have 80 MB")
    for library in libraries:
        plain = peak(library, "plain", batch)
        for name in ways()[library]:
            found = plain if name == "plain" else peak(library, name, batch)
            print(f"    {library:8}{name:30}{found:8.0f}MB  {found - plain:6.0f}MB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["torch", "jax", "tensorflow"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=list(ways()), default=list(ways()))
    parser.add_argument("--measure", choices=["time", "memory"])
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(*args.peak, args.batch)
        return
    print(f"{keras.backend.backend()}, keras {keras.__version__}, batch {args.batch}, medians")
    if args.measure != "memory":
        print_times(args.only, args.batch, args.rounds)
    if args.measure != "time":
        print_peaks(args.only, args.batch)


if __name__ == "__main__":
    main()
