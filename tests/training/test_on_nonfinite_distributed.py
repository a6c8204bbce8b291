"""`on_nonfinite="skip"` on two replicas: a component that one of them skips is skipped on both."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.processes import run_python

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

SCRIPT = """
import json

from tests.two_replicas import strategy

STRATEGY = strategy()
import keras
import numpy as np

import combined_losses as cl
from tests.training.test_on_nonfinite import RULES, X, Y, network, root, steep, weights_of

# The last row is that of the second replica.
ROW = np.array([[1], [1], [1], [0]], "float32")
DATA = {"value": (X * (2 * ROW - 1), Y), "gradient": (X, Y * ROW)}
PARTS = {"value": {"mse": "mse", "part": root}, "gradient": {"mse": "mse", "part": steep}}


def run(what, rule):
    model, (x, y) = network(), DATA[what]
    loss = cl.CompositeLoss(PARTS[what], weighting=RULES[rule](), on_nonfinite="skip")
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    logs = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    return {"after": weights_of(model).tolist(), "logs": logs}


found = []
for case in json.load(open("cases.json")):
    alone = run(*case)
    with STRATEGY.scope():
        together = run(*case)
    found.append([alone, together])
print(json.dumps(found))
"""

CASES = [["value", "none"], ["value", "magnitudes"], ["value", "parameters"], ["gradient", "none"]]


def test_two_replicas_skip_together(tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    root = Path(__file__).parents[2]  # of these tests, which an installed package does not have
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", tmp_path)
    for case, (alone, together) in zip(CASES, json.loads(printed.splitlines()[-1]), strict=True):
        skipped = together["logs"]["part_skipped"][0]
        assert skipped == (1.0 if case[0] == "value" else 0.0), case
        np.testing.assert_allclose(together["after"], alone["after"], 1e-5, 1e-6, err_msg=str(case))
        for key, values in alone["logs"].items():
            assert together["logs"][key] == pytest.approx(values, rel=1e-5), (case, key)
