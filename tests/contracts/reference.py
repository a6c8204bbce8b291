"""The reference cases of the losses: independent float64 numbers, kept in `tests/data`.

`python -m tests.contracts.reference ../shared/reference` copies those of all losses there are, but
for cases of arguments or shapes that a loss does not take; it prints these.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

import combined_losses as cl

DATA = Path(__file__).parents[1] / "data"
FILES, KINDS = ("losses", "losses2"), ("cases", "weighted_cases", "special_cases")
ARRAYS = ("y_true", "y_pred", "values", "grad", "grad_y_true", "sample_weight")
ARRAYS += ("kernel0", "kernel1")
KEPT = ("id", "loss", "where", "kwargs", "compare_gradient", "note")
TOLERANCES = ("value_rtol", "value_atol", "grad_rtol", "grad_atol")
# Left out: cases that contradict the sheet of formulas.
WRONG = (
    # The weights w of pixels make the means (G * [w > 0] x) / (G * w), which are no means: equal
    # weights of 2 would halve them. The sheet says (G * w x) / (G * w).
    "SSIM_b4",
)


def read_cases(kind="cases", where="losses", files=FILES, folder=DATA):
    """The entries of a kind, each with its arrays.

    Args:
        kind: "cases"; "weighted_cases", whose values are those under a `sample_weight`; or
            "special_cases", which bring the kernels of a network.
        where: "losses" or "wrappers", the module of the class.
    """
    found = []
    for name in files:
        entries = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz") as arrays:
            for entry in entries.get(kind, ()):
                if entry.get("where", "losses") == where:
                    keys = {key: f"{entry['id']}__{key}" for key in ARRAYS}
                    own = {key: arrays[k] for key, k in keys.items() if k in arrays}
                    found.append({**entry, **own})
    return found


def made(entry, **kwargs):
    """The loss or wrapper of an entry."""
    arguments = {**entry["kwargs"], **kwargs}
    child = arguments.get("loss")
    if "kernel0" in entry:
        arguments |= {"model": network_of(entry), "layers": ["first", "second"]}
    if isinstance(child, dict):
        arguments["loss"] = getattr(cl.losses, child["class_name"])(**child["config"])
    return getattr(getattr(cl, entry.get("where", "losses")), entry["loss"])(**arguments)


def network_of(entry):
    """The two convolutions of a special case."""
    kernels = {"first": entry["kernel0"], "second": entry["kernel1"]}
    model = keras.Sequential([keras.Input(entry["y_pred"].shape[1:])])
    for name, kernel in kernels.items():
        options = {"padding": "same", "activation": "relu", "use_bias": False, "name": name}
        model.add(keras.layers.Conv2D(kernel.shape[-1], 3, **options))
        model.layers[-1].set_weights([kernel])
    return model


def is_taken(entry):
    """Whether an entry is right, and there is such a loss that takes its arguments and shapes."""
    if entry["id"] in WRONG:
        return False
    try:
        made(entry)(entry["y_true"], entry["y_pred"], entry.get("sample_weight"))
    except (AttributeError, TypeError, ValueError):
        print("left out:", entry["id"])
        return False
    return True


def copy_cases(source):
    """Copies the cases that losses and wrappers take from `source`."""
    for name in FILES:
        kept, arrays = {}, {}
        for kind in KINDS:
            own = [e for w in ("losses", "wrappers") for e in read_cases(kind, w, [name], source)]
            own = [*filter(is_taken, own)]
            arrays |= {f"{e['id']}__{key}": e[key] for e in own for key in ARRAYS if key in e}
            kept[kind] = [{key: e[key] for key in (*KEPT, *TOLERANCES) if key in e} for e in own]
        np.savez_compressed(DATA / f"{name}.npz", **arrays)
        text = json.dumps({kind: entries for kind, entries in kept.items() if entries}, indent=1)
        (DATA / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    copy_cases(Path(sys.argv[1]))
