"""Are the numbers right on a GPU, and how fast is it there? One script for one NVIDIA GPU.

    python benchmarks/device.py [--json FILE] [--backends torch jax] [--minutes 8]
    python benchmarks/device.py --tiny        a few of each, also on the CPU: does the script run?

For each installed framework, in a process of its own:

- numbers: value and gradient of a case of every loss on the GPU, beside the same on the CPU, with
  TF32 off and on, with predictions in bfloat16, and compiled by XLA;
- rules: the weights of every rule after five steps, on the GPU and on the CPU;
- kernels: ms and MB of every pair of `pairs/`, beside its peer on the same GPU;
- steps: what a composite with all its metrics costs beside a hand-written sum.

The numbers are right on the GPU if they differ by less than `BOUNDS` says, relative to the largest
of the CPU's; the script ends with 1 if one differs more. What the time does not reach is named.
The peers are those of `losses.py`; where they are not installed, ours is timed alone.
"""

import argparse
import importlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for the cases of tests/

BACKENDS = ("torch", "jax", "tensorflow")
BOUNDS = {"float32": 1e-4, "bfloat16": 1e-4, "TF32": 2e-2}
SEED, K = 0, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=installed())
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it")
    parser.add_argument("--tiny", action="store_true", help="a few cases, on any machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the tables to this file")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        return measure(args)
    share = 60 * args.minutes / len(args.backends)
    options = [*(["--tiny"] if args.tiny else []), "--minutes", str(share / 60)]
    options += ["--json", str(args.json)] if args.json else []
    codes = []
    for backend in args.backends:
        command = [sys.executable, "-u", __file__, "--here", *options]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        try:
            run = subprocess.run(command, env=environment, timeout=share + 20, check=False)
            codes.append(run.returncode)
        except subprocess.TimeoutExpired:
            print(f"{backend}: stopped after {share + 20:.0f} s")
            codes.append(1)
    return int(any(codes))


def installed():
    return [backend for backend in BACKENDS if importlib.util.find_spec(backend)]


def measure(args):
    """All of one framework."""
    import accelerators
    import keras

    framework = accelerators.here()
    end = time.perf_counter() + 60 * args.minutes
    print(f"\n{keras.backend.backend()} on {framework.title}, keras {keras.__version__}")
    if framework.device == "cpu" and not args.tiny:
        print("    no GPU: `--tiny` tries the script without one")
        return 1
    framework.allow_tf32(False)
    start, wrong = time.perf_counter(), []
    # The checks may take two fifths of the time, the kernels until nine tenths of it.
    wrong += numbers(framework, args, start + 0.4 * (end - start))
    wrong += rules(framework, args)
    kernels(framework, args, start + 0.85 * (end - start))
    steps(framework, args, end)
    for line in wrong:
        print(f"    WRONG {line}")
    print(f"    {time.perf_counter() - start:.0f} s")
    return int(bool(wrong))


# Numbers.


def numbers(framework, args, end):
    """Prints how far each loss is from the CPU; returns what is too far."""
    cases, rows, wrong = some_cases(args.tiny), [], []
    for index, case in enumerate(cases):
        if time.perf_counter() > end:
            names = ", ".join(case.loss.__name__ for case in cases[index:])
            print(f"    no time left for the numbers of {names}")
            break
        try:
            found = differences(framework, case)
        except Exception as error:
            wrong.append(f"{case.loss.__name__}: {type(error).__name__}: {str(error)[:300]}")
            continue
        rows.append([case.loss.__name__, *found.values()])
        wrong += [
            f"{case.loss.__name__}, {way}: {found[way]:.1e}"
            for way in found
            if not found[way] <= BOUNDS.get(way, BOUNDS["float32"])
        ]
    if rows:
        names = list(found)
        worst = [max(row[1 + i] for row in rows) for i in range(len(names))]
        said = ", ".join(f"{name} {value:.1e}" for name, value in zip(names, worst, strict=True))
        print(f"    numbers of {len(rows)} losses, the largest difference from the CPU: {said}")
        keep(args, framework, "numbers", "loss", dict.fromkeys(names, "{:.1e}"), rows)
    return wrong


def some_cases(tiny):
    from tests.contracts.registry import CASES

    return CASES[::8] if tiny else CASES


def differences(framework, case):
    """`{way: the largest difference of value and gradient from the CPU's}`, relative."""
    from keras import ops

    loss = case.make(**case.arguments)

    def total(y_true, y_pred):
        return ops.mean(loss(y_true, y_pred))

    usual = framework.modes[0]

    def found(device, mode=usual, dtype="float32"):
        run = framework.prepared(total, case.y_true, case.y_pred, device, mode, dtype)
        return [ops.convert_to_numpy(ops.cast(each, "float32")) for each in run()]

    on_cpu, there = found("cpu"), framework.device
    result = {"float32": error(found(there), on_cpu)}
    for mode in framework.modes[1:]:
        result[mode] = error(found(there, mode), on_cpu)
    framework.allow_tf32(True)
    result["TF32"] = error(found(there), on_cpu)
    framework.allow_tf32(False)
    result["bfloat16"] = error(found(there, dtype="bfloat16"), found("cpu", dtype="bfloat16"))
    return result


def error(found, expected):
    """The larger of the two relative errors; a gradient is compared with its largest entry."""
    import numpy as np

    def relative(a, b):
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))

    return max(relative(a, b) for a, b in zip(found, expected, strict=True))


# Rules.


def rules(framework, args):
    import combined_losses as cl

    rows, wrong = [], []
    names = [name for name in cl.weightings.__all__ if is_rule(getattr(cl.weightings, name))]
    for name in names[::4] if args.tiny else names:
        there, on_cpu = (weights_of(name, device) for device in (framework.device, "cpu"))
        rows.append([name, error([there], [on_cpu])])
        if not rows[-1][1] <= 1e-3:
            wrong.append(f"{name}: {there} on the device, {on_cpu} on the CPU")
    worst = max(rows, key=lambda row: row[1])
    print(f"    weights of {len(rows)} rules, the largest difference: {worst[1]:.1e} ({worst[0]})")
    keep(args, framework, "rules", "rule", {"difference": "{:.1e}"}, rows)
    return wrong


def is_rule(cls):
    """Whether it can be made without arguments and weighs by itself."""
    import combined_losses as cl

    bases = (cl.weightings.Weighting, cl.weightings.GramianWeighting)
    wraps = cls is cl.weightings.Smoothed
    return issubclass(cls, cl.weightings.Weighting) and cls not in bases and not wraps


def weights_of(name, device):
    """The weights after five steps of the same values and gradients."""
    import keras
    import numpy as np

    import combined_losses as cl

    rng = np.random.default_rng(SEED)
    cls = getattr(cl.weightings, name)
    drawing = {"seed": SEED} if cls.draws else {}
    with keras.device(device):
        rule = cls(**drawing)
        cl.CompositeLoss({f"part_{i}": "mse" for i in range(K)}, weighting=rule)
        for _ in range(5):
            values = rng.uniform(0.5, 2.0, K).astype("float32")
            rows = rng.normal(size=(K, 64)).astype("float32")
            weights = rule.weigh(values=values, rows=rows)
    return keras.ops.convert_to_numpy(weights)


# Speed.


def kernels(framework, args, end):
    """ms and MB of every pair, ours and the peer's, in turns."""
    import numpy as np

    rows, late = [], []
    for name, pair in all_pairs()[:: 6 if args.tiny else 1]:
        if time.perf_counter() > end:
            late.append(name)
            continue
        y_true, y_pred = pair.data(np.random.default_rng(SEED))
        mine = framework.prepared(pair.ours(), y_true, y_pred, framework.device, framework.modes[0])
        theirs = peer(pair, y_true, y_pred)
        times = in_turns([mine, *([theirs] if theirs else [])], rounds=3 if args.tiny else 15)
        found = [1e3 * statistics.median(of) for of in times] + [None] * (2 - len(times))
        ratio = found[0] / found[1] if theirs else None
        rows.append([name, *found, ratio, framework.peak_mb(mine)])
        shown = " ".join("–" if cell is None else f"{cell:.3f}" for cell in rows[-1][1:])
        print(f"    {name:24} {shown}")
    if late:
        print(f"    no time left for {', '.join(late)}")
    columns = {
        "ours, ms": "{:.3f}",
        "theirs, ms": "{:.3f}",
        "ratio": "{:.2f}",
        "ours, MB": "{:.0f}",
    }
    if rows:
        keep(args, framework, "kernels", "loss", columns, rows)


def all_pairs():
    """Those of each family whose peers are installed."""
    import pkgutil

    import pairs

    found = []
    for module in pkgutil.iter_modules(pairs.__path__):
        try:
            found += importlib.import_module(f"pairs.{module.name}").PAIRS.items()
        except ImportError as missing:
            print(f"    not timed: the pairs of {module.name} ({missing})")
    return found


def peer(pair, y_true, y_pred):
    """The peer on the GPU of torch, or the CPU; None if torch has no GPU and ours is on one."""
    import torch

    place = "cuda:0" if torch.cuda.is_available() else "cpu"
    y_true, y_pred = (
        torch.as_tensor(each, device=place) for each in pair.to_theirs(y_true, y_pred)
    )
    y_pred.requires_grad_()
    function = pair.theirs()

    def run():
        torch.autograd.grad(function(y_true, y_pred), y_pred)
        if place != "cpu":
            torch.cuda.synchronize()

    try:
        run()
    except RuntimeError as error:  # some peers keep tensors on the CPU
        print(f"    the peer fails on {place}: {str(error).splitlines()[0][:90]}")
        return None
    return run


def in_turns(functions, rounds):
    """Seconds of each call of each function; two calls before do not count."""
    times = [[] for _ in functions]
    for function in functions:
        function(), function()
    for _ in range(rounds):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return times


def steps(framework, args, end):
    """A training step with a composite and its metrics, beside a hand-written sum."""
    from overhead import step_times

    rows = []
    cases = [(2, 1, 4, 32, 60)] if args.tiny else [(2, 1, 4, 32, 205), (32, 1, 4, 32, 205)]
    cases += [] if args.tiny else [(n, 4096, 16, 256, 55) for n in (8, 32)]
    for n, width, hidden, batch, count in cases:
        if time.perf_counter() > end:
            print(f"    no time left for steps of {n} parts, {batch}x{width}")
            continue
        times, ratios = step_times(n, width, hidden, batch, count, rounds=3)
        rows.append([f"{batch}x{width}, {n} parts", 1e3 * times["composite"], ratios["sum"]])
        print(f"    step of {rows[-1][0]}: {rows[-1][1]:.2f} ms, {ratios['sum']:.2f} of the sum")
    if rows:
        columns = {"step, ms": "{:.2f}", "ratio to the sum": "{:.2f}"}
        keep(args, framework, "steps", "outputs", columns, rows)


def keep(args, framework, table, label, columns, rows):
    import keras
    import recording

    backend = keras.backend.backend()
    title = f"{backend}, {framework.title}"
    recording.keep(
        args.json, f"{backend}_{table}", title=title, label=label, columns=columns, rows=rows
    )


if __name__ == "__main__":
    sys.exit(main())
