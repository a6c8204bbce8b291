"""Every rule, how to drive one by hand, and the stored reference sequences.

`python -m tests.weightings.rules ../shared/reference` copies the sequences that are tested here.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    FAMO,
    Average,
    CoVWeighting,
    DynamicWeightAverage,
    GeometricMean,
    GramianWeighting,
    MagnitudeBalance,
    RandomWeighting,
    ReLoBRaLo,
    Smoothed,
    SoftAdapt,
    UncertaintyWeighting,
    Weighting,
    Worst,
)

DATA = Path(__file__).parents[1] / "data"
Schedule = keras.optimizers.schedules.LearningRateSchedule


def _exported(base):
    found = {getattr(cl.weightings, name) for name in cl.weightings.__all__}
    return {cls for cls in found if issubclass(cls, base)} - {Weighting}


# Those that read gradients are in tests/weightings/gradients.py.
RULE_CLASSES = _exported(Weighting) - _exported(GramianWeighting)
SCHEDULE_CLASSES = _exported(Schedule)

# One of each with what it needs and nothing more.
PLAIN = {
    cls: cls for cls in sorted(RULE_CLASSES - {Smoothed, RandomWeighting}, key=lambda c: c.__name__)
}
PLAIN[RandomWeighting] = lambda **kwargs: RandomWeighting(**{"seed": 3, **kwargs})
PLAIN[ReLoBRaLo] = lambda **kwargs: ReLoBRaLo(
    **{"seed": 3, "alpha": 0.9, "rho": 0.5, "temperature": 2.0, **kwargs}
)
PLAIN[DynamicWeightAverage] = lambda **kwargs: DynamicWeightAverage(**{"period": 2, **kwargs})
PLAIN[Smoothed] = lambda **kwargs: Smoothed(MagnitudeBalance(), **kwargs)

# One of each with every argument off its default.
COMMON = {"update_every": 3, "warmup": 2, "min_weight": 0.01, "max_weight": 9.5, "total": "k"}
OWN = {
    Average: {},
    Worst: {"temperature": 0.5, "weights": [1.0, 2.0, 3.0], "reference": (0.1, 0.2, 0.3)},
    RandomWeighting: {"seed": 7},
    Smoothed: {"momentum": 0.5},
    MagnitudeBalance: {"momentum": 0.5, "eps": 1e-3},
    GeometricMean: {"lower_bound": -0.5},
    DynamicWeightAverage: {"temperature": 1.5, "period": 4, "lower_bound": -0.5},
    SoftAdapt: {"beta": 2.0, "normalized": True, "loss_weighted": True},
    ReLoBRaLo: {"alpha": 0.5, "rho": 0.25, "temperature": 3.0, "seed": 5, "lower_bound": -0.5},
    CoVWeighting: {"decay": 0.75},
    FAMO: {"learning_rate": 0.5, "weight_decay": 0.1, "lower_bound": -0.5},
    UncertaintyWeighting: {
        "kind": ["revised", "regression", "classification"],
        "initial": 0.75,
        "learning_rate": 0.125,
    },
}


def altered(cls):
    """A rule of three components with every argument off its default."""
    inner = [SoftAdapt(beta=3.0, total=2.5)] if cls is Smoothed else []
    return cls(*inner, **OWN[cls], **COMMON)


every_rule = pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)


def rules_but(*others):
    chosen = [cls for cls in PLAIN if cls not in others]
    return pytest.mark.parametrize("cls", chosen, ids=lambda cls: cls.__name__)


def each_bad(arguments):
    """Over bad values, of `(class, argument, what is allowed, bad values)`."""
    bad = [(cls, name, allowed, value) for cls, name, allowed, some in arguments for value in some]
    ids = [f"{cls.__name__}-{name}-{value}" for cls, name, _, value in bad]
    return pytest.mark.parametrize("cls, name, allowed, value", bad, ids=ids)


def losses(steps=24, k=3, seed=0, low=0.2, high=2.0):
    """Values of components, `(steps, k)`."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(low), np.log(high), (steps, k))).astype("float32")


def run(rule, values, c=None):
    """The weights `(steps, k)` of a rule that is built and trained on a sequence of values."""
    return run_with_terms(rule, values, c)[0]


def run_with_terms(rule, values, c=None):
    """The weights `(steps, k)` and the terms `(steps,)`."""
    if rule.num_components is None:
        rule.build(np.shape(values)[1], c)
    steps = [rule.step(ops.convert_to_tensor(row), True) for row in values]
    weights = [ops.convert_to_numpy(w) for w, _ in steps]
    return np.array(weights), np.array(
        [ops.convert_to_numpy(ops.convert_to_tensor(term)) for _, term in steps]
    )


def weights_of(rule, values, training=True):
    return ops.convert_to_numpy(rule.weigh(values=ops.convert_to_tensor(values), training=training))


def state_of(rule):
    """A copy of everything that moves, in order."""
    return [ops.convert_to_numpy(variable.value).copy() for variable in rule.variables]


def assert_same_state(before, after):
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def close(actual, expected, rtol=2e-5, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


# Reference sequences.

SEQUENCES = {
    "RandomWeighting": RandomWeighting,
    "Average": Average,
    "GeometricMean": GeometricMean,
    "DynamicWeightAverage": lambda: DynamicWeightAverage(period=1),
    "DynamicWeightAverage_period5": lambda: DynamicWeightAverage(period=5),
    "SoftAdapt": SoftAdapt,
    "SoftAdapt_loss_weighted": lambda: SoftAdapt(loss_weighted=True),
    "SoftAdapt_normalized": lambda: SoftAdapt(normalized=True),
    "SoftAdapt_normalized_loss_weighted": lambda: SoftAdapt(normalized=True, loss_weighted=True),
    "ReLoBRaLo": ReLoBRaLo,
    "ReLoBRaLo_a0.95_T0.5": lambda: ReLoBRaLo(alpha=0.95, temperature=0.5),
    "MagnitudeBalance": MagnitudeBalance,
    "CoVWeighting": CoVWeighting,
    "CoVWeighting_decay0.9": lambda: CoVWeighting(decay=0.9),
    "Worst": Worst,
    "Worst_T1.0": lambda: Worst(temperature=1.0),
    "Worst_T0.1": lambda: Worst(temperature=0.1),
    "FAMO": FAMO,
    **{
        f"UncertaintyWeighting_{kind}": lambda kind=kind: UncertaintyWeighting(
            kind, learning_rate=0.05
        )
        for kind in ("regression", "classification", "revised")
    },
}
_ARRAYS = ("w", "w0", "z", "draws", "total", "s")


def read_sequences(folder=DATA):
    """`{name of the case: entry}`, the entry with its arrays by their names."""
    entries = json.loads((folder / "weightings.json").read_text(encoding="utf-8"))["sequences"]
    with np.load(folder / "weightings.npz") as stored:
        wanted = {f"{rule}/{array}" for rule in SEQUENCES for array in _ARRAYS} | {"values"}
        found = {}
        for entry in entries:
            prefix = f"seq/{entry['name']}/"
            names = [key[len(prefix) :] for key in stored.files if key.startswith(prefix)]
            arrays = {name: stored[prefix + name] for name in names if name in wanted}
            found[entry["name"]] = {**entry, "arrays": arrays}
    return found


def copy_sequences(source):
    """Copies the sequences of the rules above from `source`."""
    entries, arrays = [], {}
    for name, entry in read_sequences(source).items():
        found = entry.pop("arrays")
        arrays.update({f"seq/{name}/{key}": array for key, array in found.items()})
        entry["looser"] = {key: tol for key, tol in entry["looser"].items() if key in SEQUENCES}
        entries.append(entry)
    np.savez_compressed(DATA / "weightings.npz", **arrays)
    text = json.dumps({"sequences": entries}, indent=1)
    (DATA / "weightings.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    copy_sequences(Path(sys.argv[1]))
