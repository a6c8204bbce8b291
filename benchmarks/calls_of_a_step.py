"""How far must a reader jump to follow one step of training? Calls, files, and hops between files.

Counts the calls of functions of `combined_losses`, and of nothing else, in the second eager
`train_on_batch` of a `cl.Sequential` with `cl.CompositeLoss(["mse", "mae"])`. (The first one also
builds what is kept.) A hop is a call whose file is not that of the call before it. Properties,
context managers, comprehensions and generators count as Python calls them.

Run it with `python benchmarks/calls_of_a_step.py`; `--files` adds the calls of each file and the
functions that are called most often. For another version: `PYTHONPATH=<a checkout of it>`.

The numbers are exact: they do not depend on the machine. Results: docs/benchmarks.md.
"""

import argparse
import collections
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

import combined_losses as cl

PACKAGE = Path(cl.__file__).parent


def calls_in(run):
    """What `run()` calls in the package, in order: `(file, function)`."""
    calls = []

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls.append((str(path.relative_to(PACKAGE)), frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def compiled():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]), run_eagerly=True)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="the calls of each file, too")
    options = parser.parse_args()
    model, x, y = compiled(), np.ones((4, 3)), np.ones((4, 1))
    model.train_on_batch(x, y)
    calls = calls_in(lambda: model.train_on_batch(x, y))
    files = [file for file, _ in calls]
    hops = sum(a != b for a, b in itertools.pairwise(files))
    print("calls  files  hops")
    print(f"{len(calls):5d}  {len(set(files)):5d}  {hops:4d}")
    if options.files:
        print("\ncalls  file")
        for file, count in collections.Counter(files).most_common():
            print(f"{count:5d}  {file}")
        print("\ncalls  function")
        for (file, function), count in collections.Counter(calls).most_common(15):
            print(f"{count:5d}  {file}: {function}")


if __name__ == "__main__":
    main()
