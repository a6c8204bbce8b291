"""The reference cases of the domain losses: independent float64 numbers, kept in `tests/data`.

`python -m tests.contracts.reference ../shared/reference` copies those of all registered losses.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.contracts.registry import CASES

DATA = Path(__file__).parents[1] / "data"
ARRAYS = ("y_true", "y_pred", "values", "grad")
KEPT = ("id", "loss", "kwargs", "compare_gradient", "note")
TOLERANCES = ("value_rtol", "value_atol", "grad_rtol", "grad_atol")


def read_cases(folder=DATA):
    """The entries of `losses.json`, each with its arrays."""
    entries = json.loads((folder / "losses.json").read_text(encoding="utf-8"))["cases"]
    with np.load(folder / "losses.npz") as arrays:
        return [{**e, **{key: arrays[f"{e['id']}__{key}"] for key in ARRAYS}} for e in entries]


def copy_cases(source):
    """Copies the cases of the registered losses from `source`."""
    registered = {case.loss.__name__ for case in CASES}
    found = [case for case in read_cases(source) if case["loss"] in registered]
    arrays = {f"{case['id']}__{key}": case[key] for case in found for key in ARRAYS}
    np.savez_compressed(DATA / "losses.npz", **arrays)
    kept = [{key: case[key] for key in (*KEPT, *TOLERANCES)} for case in found]
    text = json.dumps({"cases": kept}, indent=1)
    (DATA / "losses.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    copy_cases(Path(sys.argv[1]))
