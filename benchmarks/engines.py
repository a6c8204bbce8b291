"""Is what several devices or processes compute what one device does? Every engine, loss and rule.

For each engine, on the CPUs of this machine and in processes of its own:

- losses: value and gradient of every loss of the library, with and without its arguments, missing
  labels and sample weights, on unequal and on empty parts of a batch (on JAX all are equal);
- pairs: every loss in a composite with rules, and every rule; `--every-pair`: each with each;
- trainings: every rule in a loop of one's own, and in `fit` with `evaluate`: network, logs and
  state of the rule after three steps. Rules of gradients at the output, and at the parameters;
- changes: `set_weight`, `save_weights` and `load_weights` in the middle of `fit`, and `load_model`.

Each is compared with one device on the whole batch. A difference above 1e-5, relative to the
largest number where that is above 1, is a failure; so are other bits on another rank of torch, or
in another process of JAX. Of all but the losses the difference is less by what two roundings of the
data do on one device: the equations of some rules are ill conditioned.

    python benchmarks/engines.py [--only "torch, 2 ranks"] [--at-most 20] [--json FILE]

Ends with 1 if anything fails. Results: docs/devices.md.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for the cases of tests/

import recording

from tests.engines.starting import ENGINES, TOLERANCE, differences

GROUPS = ("losses", "pairs", "trainings", "changes")
COLUMNS = {
    "losses": "{}",
    "losses with rules": "{}",
    "trainings": "{}",
    "changes": "{}",
    "greatest difference": "{:.1e}",
    "failures": "{}",
}


def merged(found):
    """Of each case the greatest difference in any process, and what was raised first."""
    cases = {}
    for group, name, difference, error in (line for lines in found for line in lines):
        before, raised = cases.get((group, name), (difference, error))
        greatest = difference if before is None or difference is None else max(before, difference)
        cases[group, name] = (greatest, raised or error)
    return {case: each for case, each in cases.items() if each[0] is not None}


def measured(engine, groups, at_most):
    """The row of an engine."""
    start = time.perf_counter()
    cases = merged(differences(engine, groups, at_most, timeout=4 * 3600))
    fails = {case: each for case, each in cases.items() if not each[0] <= TOLERANCE}
    for (group, name), (difference, error) in fails.items():
        print(f"    {group}: {name}: {difference:.1e} {error.strip().splitlines()[-1:]}")
    right = [difference for case, (difference, _) in cases.items() if case not in fails]
    kinds = [group.removeprefix("every ").rstrip("s") for group, _ in cases]
    counts = [kinds.count(group.rstrip("s")) for group in GROUPS]
    worst = max(right, default=0.0)
    seconds = time.perf_counter() - start
    print(f"{engine}: {counts} cases, {worst:.1e}, {len(fails)} fail, {seconds:.0f} s", flush=True)
    return [engine, *counts, worst, len(fails)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--every-pair", action="store_true", help="each loss with each rule")
    parser.add_argument("--at-most", type=int, default=0, help="so many cases of each group")
    recording.add_argument(parser)
    args = parser.parse_args()
    groups = ["every pair" if g == "pairs" and args.every_pair else g for g in args.groups]
    rows = [measured(engine, groups, args.at_most) for engine in args.only]
    recording.keep(
        args.json,
        "cases",
        title="Cases that were compared with one device on the whole batch",
        label="engine",
        columns=COLUMNS,
        rows=recording.rows_of_others(args.json, "cases", rows) + rows,
        packages=("tensorflow", "jax", "torch"),
    )
    return int(any(row[-1] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
