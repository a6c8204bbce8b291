"""Configs of saved composites, changed at random: loading refuses, and does nothing else.

Each mutation knows the structure: keys are left out, values replaced by others of their kind and of
none, classes and modules by others, also by foreign ones. With `safe_mode=True` nothing foreign may
run or be imported, no step may take more than 5 s or 100 MB, and a refusal names the class (or the
component) and the key.

    python benchmarks/mutated_files.py [--cases 20000] [--first 0]

Measured: see the closing line of each run.
"""

import argparse
import copy
import json
import random
import resource
import sys
import time
import warnings

import keras
import numpy as np

import combined_losses as cl

VALUES = [
    None, True, False, 0, 1, -1, 2**31, 10**9, 10**30, -(10**9), 0.5, 1e39,
    float("nan"), float("inf"),
    "", "mse", "nope", "os.system", "a" * 10_000, [], [1], [1] * 10**6, [[1], 2], {}, {"a": 1},
    {"class_name": "__lambda__", "config": {"value": "AAAA"}},
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"module": "builtins", "class_name": "eval", "config": {}, "registered_name": None},
    {"module": "subprocess", "class_name": "Popen", "config": {"args": "ls"}},
    {"module": "antigravity", "class_name": "Loss", "config": {}, "registered_name": None},
]  # fmt: skip
FOREIGN = {"antigravity", "this", "turtle", "ftplib"}
MODULES = ["os", "builtins", "subprocess", "antigravity", "turtle", "this", "keras.losses", ""]
CLASSES = [
    "function",
    "system",
    "eval",
    "Popen",
    "CompositeLoss",
    "Masked",
    "MeanSquaredError",
    "Nope",
]
RUN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "shutil.rmtree", "os.remove"}


@keras.saving.register_keras_serializable("mutated")
def registered(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("mutated")
def term(model, x, y, y_pred):
    return keras.ops.mean(y_pred, axis=-1)


def originals():
    """Composites that hold every kind of class."""
    w, losses = cl.wrappers, cl.losses
    yield cl.CompositeLoss(
        {
            "mse": "mse",
            "huber": keras.losses.Huber(0.3),
            "own": registered,
            "pinball": losses.Pinball([0.1, 0.9]),
            "edges": losses.BoundaryDisagreement(axes=(1, 2)),
            "dice": losses.Dice(),
        },
        weights={"mse": 0.5, "own": cl.weightings.LinearRamp(10)},
    )
    yield cl.CompositeLoss(
        {
            "slice": w.OnSlice("mse", np.s_[..., 0:1]),
            "channels": w.PerChannel("mse", names=["a", "b"], weights=[1.0, 2.0]),
            "elements": w.PerElement("mae", size=[2, 3]),
            "masked": w.Masked("mse", mask_value=-1.0),
            "classes": w.ClassWeighted("mse", [1.0, 2.0]),
            "hot": w.OneHot("categorical_crossentropy", 3, ignore_value=255),
            "scales": w.MultiScale("mse", scales=(1, 2)),
            "active": w.Activated("mse", "sigmoid"),
            "scaled": w.Scaled("mse", [1.0, 2.0]),
        },
        weighting=cl.weightings.Smoothed(cl.weightings.DynamicWeightAverage()),
    )
    yield cl.CompositeLoss(
        {"a": w.OnOutput("mse", "a"), "b": w.OnInputs(term), "c": w.PredictionOnly("mae")},
        weighting=cl.weightings.UPGrad(preference=[1.0, 2.0, 3.0], gradients="parameters"),
    )


def places(config, path=()):
    """The path of every entry of a nested config."""
    entries = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in list(entries):
        yield (*path, key)
        if isinstance(value, (dict, list)) and len(value) < 1000:
            yield from places(value, (*path, key))


def mutated(config, rng):
    config = copy.deepcopy(config)
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        # What Keras reads before it comes to us is Keras's.
        path = rng.choice([p for p in places(config) if p[0] == "config"] or [("config",)])
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        kind = rng.random()
        if kind < 0.2:
            del holder[path[-1]]
            said.append(f"without {path}")
        elif kind < 0.35 and isinstance(holder, dict) and "class_name" in holder:
            key, options = rng.choice(
                (("module", MODULES), ("class_name", CLASSES), ("registered_name", CLASSES))
            )
            holder[key] = rng.choice(options)
            said.append(f"{path[:-1]} {key}={holder[key]!r}")
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(VALUES))
            said.append(f"{path}={str(holder[path[-1]])[:60]}")
        if "config" not in config:
            break
    return config, said


def unnamed(error, config, changed):
    """Whether an error names no class, component or loss of the original, or no key of it."""
    text, keys = str(error), {"config", "weight of component", "name"}
    names, inner = {"composite_loss"}, changed.get("config")
    if isinstance(inner, dict):
        names.add(str(inner.get("name"))[:100])  # the changed name of the composite
    for path in places(config):
        value = config
        for key in path:
            value = value[key]
        is_component = path[:2] == ("config", "losses") and len(path) == 4 and path[-1] == 0
        if is_component or path[-1] in ("class_name", "registered_name", "name"):
            names.add(str(value).split(">")[-1])
        if isinstance(path[-1], str):
            keys.add(path[-1])
    return not any(name in text for name in names) or not any(key in text for key in keys)


def load(config):
    """What is loaded or refused, and what else happened."""
    ran.clear()
    modules, memory = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, refused = time.perf_counter(), None
    try:
        keras.saving.deserialize_keras_object(config, safe_mode=True)
    except (ValueError, TypeError) as error:
        refused = error
    wrong = [f"ran {event}" for event in ran]
    wrong += [f"imported {name}" for name in (set(sys.modules) - modules) & FOREIGN]
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    wrong += [f"took {seconds:.1f} s"] if seconds > 5 else []
    wrong += [f"took {grown:.0f} MB"] if grown > 100 else []
    return refused, wrong


ran: list[str] = []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    configs = [keras.saving.serialize_keras_object(loss) for loss in originals()]
    configs = [json.loads(json.dumps(config)) for config in configs]
    for config in configs:
        assert load(config) == (None, []), "the originals load"
    sys.addaudithook(lambda event, args: ran.append(event) if event in RUN else None)
    refused = faulty = 0
    for case in range(arguments.first, arguments.first + arguments.cases):
        rng = random.Random(case)
        original = rng.choice(configs)
        config, said = mutated(original, rng)
        try:
            error, wrong = load(config)
        except Exception as other:
            error, wrong = other, [f"{type(other).__name__}: {str(other)[:200]}"]
        refused += error is not None
        if error is not None and unnamed(error, original, config):
            wrong = [*wrong, f"names no class or no key: {str(error)[:200]}"]
        if wrong:
            faulty += 1
            print(f"case {case}: {said}", *wrong, sep="\n    ", flush=True)
    print(f"{arguments.cases} mutations: {refused} refused, {faulty} faulty", flush=True)


if __name__ == "__main__":
    main()
