"""Missing labels, weights of targets and parts on two replicas (TensorFlow) as on one device."""

import json
from pathlib import Path

import keras
import pytest

from tests.processes import run_python

pytestmark = [
    pytest.mark.depends_on_version,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
    ),
]

SCRIPT = '''
import functools
import json

from tests.two_replicas import alone_and_together, strategy

strategy()  # first: it sets the devices
import tensorflow as tf

import numpy as np

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import split
from combined_losses.wrappers import Masked, PerElement
from tests.layouts.losses import LAYOUT_CASES

WEIGHT = np.random.default_rng(1).random((6, 4)).astype("float32")
THERE = np.random.default_rng(2).random((6, 4)) < 0.4


def numbers(loss, y_true, y_pred, weight):
    """The total, its slope, the parts and what is watched beside them."""
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        found = loss.evaluate(Batch(y_true, y_pred, weight))
    beside = split((*found.values, *found.extras))
    return tf.stack([found.total, *beside]), tape.gradient(found.total, y_pred)


def both(loss, *data):
    """Uneven parts, as the last batch of an epoch may have."""
    return alone_and_together(functools.partial(numbers, loss), 5, *data)


found = {}
for case in LAYOUT_CASES:
    y_true, y_pred = case.data(6, 4)
    holes = np.where(THERE, y_true, np.nan).astype("float32")
    found[case.name] = both(Masked(case.make()), holes, y_pred, WEIGHT)
    if case.name in ("gaussian_nll", "pinball"):
        loss = Masked(case.make(reduction="mean_with_sample_weight"))
        found[f"weights of {case.name}"] = both(loss, holes, y_pred, WEIGHT)
        loss = PerElement(Masked(case.make()), size=4)
        found[f"elements of {case.name}"] = both(loss, holes, y_pred, WEIGHT)
y_true, y_pred = LAYOUT_CASES[-1].data(6, 4)
holes = np.where(THERE, y_true, np.nan).astype("float32")
parts = cl.losses.Pinball([0.1, 0.5, 0.9], parts=True)
found["parts"] = both(Masked(parts), holes, y_pred, WEIGHT)
found["parts, all there"] = both(parts, y_true, y_pred, WEIGHT)
print(json.dumps(found))
'''


def test_two_replicas_do_as_one_device(tmp_path):
    root = Path(__file__).parents[2]
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", tmp_path)
    found = json.loads(printed.splitlines()[-1])
    assert len(found) >= 12
    for name, (alone, together) in found.items():
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-6), name
