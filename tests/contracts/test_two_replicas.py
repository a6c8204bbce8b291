"""Every loss, ours and Keras's, on two replicas (TensorFlow, two logical CPUs) as on one device."""

import json
from pathlib import Path

import keras
import pytest

from tests.contracts.registry import CASES, VARIANTS
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

import combined_losses as cl
from tests.composite.children import KERAS_CHILDREN, WEIGHTS
from tests.contracts.registry import CASES, VARIANTS


def value_and_slope(loss, y_true, y_pred, weight):
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred, weight)
    return value, tape.gradient(value, y_pred)


def both(loss, *data):
    """Uneven parts, as the last batch of an epoch may have."""
    return alone_and_together(functools.partial(value_and_slope, loss), 3, *data)


found = {}
for index, case in enumerate([*CASES, *VARIANTS]):
    data = (case.y_true[:4], case.y_pred[:4], WEIGHTS)
    means = ["sum_over_batch_size", "mean_with_sample_weight"]
    for reduction in means if case.couples_batch else means[:1]:
        loss = case.make(**case.arguments, reduction=reduction)
        key = f"{index} {case.name}, {reduction}"
        found[key] = both(loss, *data)
for name, child in KERAS_CHILDREN.items():
    if name == "Circle":  # each replica compares the samples of its own part alone
        continue
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
        loss = cl.CompositeLoss([child.make(reduction=reduction)])
        data = (child.y_true, child.y_pred, WEIGHTS)
        found[f"{name} of Keras, {reduction}"] = both(loss, *data)
print(json.dumps(found))
'''


def test_two_replicas_do_as_one_device(tmp_path):
    """One process for all losses: to start TensorFlow takes longer than they do."""
    root = Path(__file__).parents[2]  # of these tests, which an installed package does not have
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", tmp_path)
    found = json.loads(printed.splitlines()[-1])
    assert len(found) >= len(CASES) + len(VARIANTS)
    for name, (alone, together) in found.items():
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-6), name
