"""Every rule that reads gradients, gradients of known kinds, and the stored reference cases.

`python -m tests.weightings.gradients ../shared/reference` copies the cases that are tested here.
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
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradientNormBalance,
    GradNorm,
    GramianWeighting,
    InverseGradientNorm,
    NashMTL,
    PCGrad,
    UPGrad,
)

DATA = Path(__file__).parents[1] / "data"

_EXPORTED = {getattr(cl.weightings, name) for name in cl.weightings.__all__}
GRAMIAN_CLASSES = {cls for cls in _EXPORTED if issubclass(cls, GramianWeighting)}
GRAMIAN_CLASSES -= {GramianWeighting}

# One of each with what it needs and nothing more.
PLAIN = {cls: cls for cls in sorted(GRAMIAN_CLASSES, key=lambda cls: cls.__name__)}
PLAIN[PCGrad] = lambda **kwargs: PCGrad(**{"seed": 3, **kwargs})

# One of each with every argument off its default, of three components.
COMMON = {
    "update_every": 3,
    "warmup": 2,
    "min_weight": 0.01,
    "max_weight": 9.5,
    "total": "k",
    "gradients": "parameters",
    "shared_layers": ["trunk"],
    "log_conflict": True,
}
OWN = {
    InverseGradientNorm: {"rescale": False},
    GradientNormBalance: {"momentum": 0.5, "mode": "mean_ref", "reference": 1},
    GradNorm: {"alpha": 0.5, "learning_rate": 0.125, "lower_bound": -0.5},
    MGDA: {"normalize": True},
    UPGrad: {"preference": [1.0, 2.0, 3.0]},
    DualProj: {"preference": [1.0, 2.0, 3.0]},
    CAGrad: {"c": 0.25, "rescale": "squared"},
    PCGrad: {"seed": 7},
    IMTLG: {},
    ConFIG: {"preference": [1.0, 2.0, 3.0]},
    NashMTL: {"max_norm": 0.5},
    FairGrad: {"alpha": 2.0},
    AlignedMTL: {"scale": "median", "preference": [1.0, 2.0, 3.0]},
}

every_rule = pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)


def rules(*chosen):
    return pytest.mark.parametrize("cls", chosen, ids=lambda cls: cls.__name__)


def rules_but(*others):
    return rules(*(cls for cls in PLAIN if cls not in others))


# Gradients `(k, n)` of known kinds.


def plain(rng, k, n=None):
    return rng.normal(size=(k, n or 2 * k + 2))


def scaled(rng, k, n=None, decades=3):
    """Lengths over several powers of ten to both sides."""
    rows = plain(rng, k, n)
    return rows * 10 ** rng.uniform(-decades, decades, (k, 1))


def conflicting(rng, k, n=None):
    """Nearly opposite ones."""
    axis = rng.normal(size=(1, n or 2 * k + 2))
    signs = (-1.0) ** np.arange(k)[:, None]
    return signs * axis + 0.3 * rng.normal(size=(k, axis.shape[1]))


def collinear(rng, k, n=None):
    """Nearly the same."""
    return rng.normal(size=(1, n or 2 * k + 2)) + 0.1 * plain(rng, k, n)


def agreeing(rng, k, n=None):
    """No two conflict."""
    return np.abs(plain(rng, k, n))


KINDS = {f.__name__: f for f in (plain, scaled, conflicting, collinear, agreeing)}


def samples(kind, k, count=1, seed=0, n=None):
    """`(count, k, n)`, float32 numbers in float64."""
    rng = np.random.default_rng([seed, k, len(kind)])
    found = np.stack([KINDS[kind](rng, k, n) for _ in range(count)])
    return found.astype("float32").astype("float64")


def gramian_of(rows):
    rows = np.asarray(rows, "float64")
    return (rows @ np.swapaxes(rows, -1, -2)).astype("float32")


# Rules by hand.

_COMPILED: dict = {}


def weights_of(rule, rows, values=None, training=True, c=None):
    """The weights `(k,)` of one step; `rule` is built where it is not.

    On TensorFlow one that is new and has nothing to remember is a graph, made once for all rules
    like it: faster than op by op. (JAX keeps its loops compiled, and torch has no loops.)
    """
    is_new = rule.num_components is None
    if is_new:
        rule.build(len(rows), c)
    rows = np.asarray(rows)
    values = np.ones(len(rows)) if values is None else values
    is_pure = type(rule) in GRAMIAN_CLASSES and not rule.draws and "history" not in rule.needs
    if is_new and is_pure and keras.backend.backend() == "tensorflow":
        key = (json.dumps(keras.saving.serialize_keras_object(rule)), len(rows), str(c))
        if key not in _COMPILED:
            _COMPILED[key] = compiled_weights(rule, len(rows), xla=False)[0]
        with np.errstate(over="ignore", invalid="ignore"):
            given = [np.asarray(values, "float32"), gramian_of(rows)]
        return ops.convert_to_numpy(_COMPILED[key](*map(ops.convert_to_tensor, given)))
    # The Gramian in float64, so that rows may be what float32 squares are not.
    with np.errstate(over="ignore", invalid="ignore"):
        gramian = gramian_of(rows)
        rows = rows.astype("float32")
    weights = rule.weigh(
        values=ops.convert_to_tensor(np.asarray(values, "float32")),
        gramian=ops.convert_to_tensor(gramian),
        rows=ops.convert_to_tensor(rows) if "rows" in rule.needs else None,
        training=training,
    )
    return ops.convert_to_numpy(weights)


def run(rule, rows, values=None, c=None):
    """The weights `(steps, k)` on a sequence of rows `(steps, k, n)`."""
    if rule.num_components is None:
        rule.build(rows.shape[1], c)
    values = [None] * len(rows) if values is None else values
    return np.array([weights_of(rule, *step) for step in zip(rows, values, strict=True)])


def compiled_weights(rule, k, xla=True):
    """A function `(values, gramian) -> weights` of a built rule, as one graph; and its traces."""
    if rule.num_components is None:
        rule.build(k)
    traces = []

    def weights(values, gramian):
        traces.append(0)
        with keras.StatelessScope():  # the state stays as it is
            return rule.weigh(values=values, gramian=gramian)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(weights, jit_compile=xla, autograph=False), traces
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(weights), traces
    return weights, traces


def mapped(rule, rows):
    """The weights `(count, k)` for each of many rows `(count, k, n)`, without a state."""
    function, _ = compiled_weights(rule, rows.shape[1], xla=False)
    values = ops.ones((rows.shape[1],))
    gramians = gramian_of(rows)
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(jax.vmap(function, (None, 0)))(values, gramians))
    each = (function(values, ops.convert_to_tensor(gramian)) for gramian in gramians)
    return np.stack([ops.convert_to_numpy(weights) for weights in each])


def drawn(rule, rows, count):
    """The weights `(count, k)` of many steps on the same rows, each with draws of its own."""
    k, gramian = len(rows), ops.convert_to_tensor(gramian_of(rows))
    rule.build(k)

    def weights():
        return rule.weigh(values=ops.ones((k,)), gramian=gramian)

    if keras.backend.backend() == "jax":
        import jax

        def seeded(seed):
            with keras.StatelessScope(state_mapping=[(rule.generator.state, seed)]):
                return weights()

        seeds = np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype="uint32")
        return np.asarray(jax.jit(jax.vmap(seeded))(seeds))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        weights = tf.function(weights, autograph=False)
    return np.stack([ops.convert_to_numpy(weights()) for _ in range(count)])


def steps_of(rows, weights):
    """`d = J' w`, in float64."""
    return np.einsum("...kn,...k->...n", np.float64(rows), np.float64(weights))


# Reference cases.

METHODS = {
    "InverseGradientNorm": InverseGradientNorm,
    "InverseGradientNorm_raw": lambda: InverseGradientNorm(rescale=False),
    "MGDA": MGDA,
    "UPGrad": UPGrad,
    "DualProj": DualProj,
    "CAGrad": CAGrad,
    "IMTLG": IMTLG,
    "ConFIG": ConFIG,
    "NashMTL": NashMTL,
    "NashMTL_unclipped": FairGrad,
    "FairGrad_alpha2": lambda: FairGrad(alpha=2.0),
    "AlignedMTL": AlignedMTL,
    "AlignedMTL_median": lambda: AlignedMTL(scale="median"),
    "AlignedMTL_rmse": lambda: AlignedMTL(scale="mean"),
    "PCGrad": lambda: PCGrad(seed=3),
}
SEQUENCES = {
    "GradNorm": GradNorm,
    "GradientNormBalance_norm_sum": GradientNormBalance,
    **{
        f"GradientNormBalance_{mode}": lambda mode=mode: GradientNormBalance(mode=mode, reference=0)
        for mode in ("norm_ref", "mean_ref", "max_mean")
    },
}
_PARTS = ("cases", "degenerate", "sequences")


def read_cases(folder=DATA, name="gramians"):
    """`(entries, arrays)`: the entries of each part by their names, and all arrays by theirs."""
    stored = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as arrays:
        found = {key: arrays[key] for key in arrays.files if _is_wanted(key)}
    return {part: {e["name"]: e for e in stored[part]} for part in _PARTS}, found


def _is_wanted(key):
    part, _, name, *_ = *key.split("/"), ""
    sequences = {"values", "J", *SEQUENCES}
    return part in ("J", "w", "d", "pcgrad", "degenerate") or (part == "seq" and name in sequences)


def copy_cases(source):
    """Copies the cases of the rules above from `source`."""
    entries, arrays = read_cases(source, "weightings")
    for entry in entries["sequences"].values():
        entry["looser"] = {key: tol for key, tol in entry["looser"].items() if key in SEQUENCES}
    np.savez_compressed(DATA / "gramians.npz", **arrays)
    text = json.dumps({part: list(entries[part].values()) for part in _PARTS}, indent=1)
    (DATA / "gramians.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    copy_cases(Path(sys.argv[1]))
