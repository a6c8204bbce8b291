"""Rules that read gradients on two replicas: the Gramian is that of the whole batch."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.processes import run_python
from tests.training.gradient_twin import data, inverse_norms, jacobians, split

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

SCRIPT = """
import json

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
import numpy as np

import combined_losses as cl
from tests.training.gradient_twin import build, data, parameters

STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rules = {
    "norm": lambda **kwargs: cl.weightings.InverseGradientNorm(log_conflict=True, **kwargs),
    "sizes": lambda **kwargs: cl.weightings.GradientNormBalance(
        mode="max_mean", reference=0, **kwargs
    ),
    "UPGrad": cl.weightings.UPGrad,
    "every other": lambda **kwargs: cl.weightings.GradNorm(update_every=2, **kwargs),
}


def run(rule, place, samples, epochs):
    x, y = data(n=samples)
    model, loss = build(rules[rule](gradients=place))
    before = [v.tolist() for v in parameters(model)]
    history = model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0).history
    after = np.concatenate([v.ravel() for v in parameters(model)]).tolist()
    return {"before": before, "after": after, "logs": history}


found = []
for case in json.load(open("cases.json")):
    alone = run(**case)
    with STRATEGY.scope():
        together = run(**case)
    found.append([alone, together])
print(json.dumps(found))
"""

PLACES = ("output", "trunk", "parameters")
# Batches of 4: seven samples leave three, which are split unevenly, nine leave a replica nothing.
CASES = [
    {"rule": rule, "place": place, "samples": samples, "epochs": 2}
    for rule, samples in (("norm", 4), ("norm", 9), ("sizes", 7), ("UPGrad", 9), ("every other", 7))
    for place in PLACES
]


def flat(run):
    logs = {f"{key} {i}": v for key, values in run["logs"].items() for i, v in enumerate(values)}
    return logs | {f"variable {i}": v for i, v in enumerate(run["after"])}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "cases.json").write_text(json.dumps(CASES))
    root = Path(__file__).parents[2]  # of these tests, which an installed package does not have
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", folder)
    return json.loads(printed.splitlines()[-1])


def test_two_replicas_train_and_report_as_one_device(runs):
    for case, (alone, together) in zip(CASES, runs, strict=True):
        assert flat(together) == pytest.approx(flat(alone), rel=2e-4, abs=2e-6), case


def test_two_replicas_take_the_step_of_the_gradients_by_hand(runs):
    x, y = data(n=4)
    for case, (_, together) in zip(CASES, runs, strict=True):
        if case["samples"] != 4:
            continue
        theta = [np.array(v) for v in together["before"]]
        for _ in range(2):
            rows = jacobians(theta, x, y)
            direction = inverse_norms(rows[case["place"]]) @ rows["parameters"]
            theta = [v - 0.1 * d for v, d in zip(theta, split(direction, theta), strict=True)]
        expected = np.concatenate([v.ravel() for v in theta])
        np.testing.assert_allclose(together["after"], expected, rtol=1e-5, atol=1e-6)


def test_products_on_a_gpu_are_those_of_whole_numbers(monkeypatch):
    """On a GPU matrix products may keep only three digits, so the Gramian is summed up instead."""
    import tensorflow as tf

    from combined_losses._backend import backend

    rows, scales = (
        [tf.constant(row) for row in data(n=5)[0]],
        tf.constant([0.5, 1.0, 2.0, 4.0, 8.0]),
    )
    expected = backend.gramian(rows, scales)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    np.testing.assert_allclose(backend.gramian(rows, scales), expected, rtol=1e-6, atol=1e-6)
