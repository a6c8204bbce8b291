"""How far must a reader jump to follow one step of training? Calls, files, and hops between files.

Counts the calls of functions of `combined_losses`, and of nothing else, in the second eager
`train_on_batch` of a `cl.Sequential` with `cl.CompositeLoss(["mse", "mae"])`. (The first one also
builds what is kept.) A hop is a call whose file is not that of the call before it. Properties,
context managers, comprehensions and generators count as Python calls them.

Run it with `python benchmarks/calls_of_a_step.py`; `--files` adds the calls of each file and the
functions that are called most often. For another version: `PYTHONPATH=<a checkout of it>`.

Measured on TensorFlow 2.21, Keras 3.15.1, Python 3.11:

    commit               calls  files  hops
    b78bd6f, 2026-11-28    277     18   136   the count of the issue that set the aim
    d4d11b8, 2026-11-29    401     27   222   before files moved to their floors
    9663182, 2026-11-29    426     33   253   after the move
    8f37386, 2026-11-30    111     25    79   one `Step`, `ModelState`, `Batch.view`
    e3fa1c4, 2026-11-30    107     24    71   a step is given its `ModelState` when it is compiled
    the aim                160     12    70

The numbers are exact: they do not depend on the machine. The move itself added 25 calls: the
functions of `_backend/keras_private/`, which stand where attributes of Keras were read in place.
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
