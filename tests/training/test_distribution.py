"""Two replicas train and report as one device does (TensorFlow, two logical CPUs).

Batches of 4: ten samples leave a partial batch of two, seven one that is split unevenly, nine one
that leaves the second replica with nothing. (Keras itself fails where the first batch is uneven.)
"""

import json
from pathlib import Path

import keras
import pytest

from tests.processes import run_python

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

SCRIPT = '''
import json
import warnings

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
import numpy as np
from keras import ops

import combined_losses as cl
from tests.masks import masked

# A scalar child cannot honour weights, and says so.
warnings.filterwarnings("ignore", "Component 'scalar' cannot honour")
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(2, 10, 3, 2)).astype("float32")
X[:6, 2] = 0.0  # masked
W = np.array([0, 1, 2, 0.5, 1, 3, 0, 1, 1, 2], "float32")[:, None]


def mean_square_of_the_batch(y_true, y_pred):
    """A scalar for the whole batch: replicas must be weighed by their shares of the batch."""
    return ops.mean(ops.square(y_true - y_pred))


class Whole(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


class WholeSum(Whole):
    def __init__(self):
        super().__init__(reduction="sum")


class Bare(keras.losses.Loss):
    """Computes its result without other losses."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(ops.abs(y_true - y_pred))


class Parts(keras.losses.Loss):
    """Calls losses that scale for replicas, and adds a term that nothing scales."""

    def __init__(self):
        super().__init__()
        self.mae, self.own = keras.losses.MeanAbsoluteError(), cl.losses.Charbonnier()

    def __call__(self, y_true, y_pred, sample_weight=None):
        found = self.mae(y_true, y_pred) + 0.5 * self.own(y_true, y_pred)
        return found + keras.losses.Loss.__call__(self, y_true, y_pred) + ops.mean(y_pred**2)

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


class OwnMask(keras.losses.Loss):
    """Masks the steps of a negative target."""

    def call(self, y_true, y_pred):
        values = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return masked(values, y_true[..., 0] > 0)


def next_step(y_true, y_pred):
    """Reads another row of the sample."""
    following = ops.concatenate([y_pred[:, 1:], y_pred[:, -1:]], axis=1)
    return ops.mean(ops.square(y_pred - y_true) + ops.square(following), axis=-1)


def own_masks():
    return cl.CompositeLoss({"own": OwnMask(), "mse": "mse", "next": next_step})


def opaque():
    return cl.CompositeLoss({"bare": Bare(), "sum": WholeSum(), "parts": Parts()})


def every_kind():
    """Keras's loss, our own, one that returns a scalar, a nested composite."""
    children = {
        "mse": "mse",
        "under": cl.losses.UnderestimationPenalty(),
        "scalar": mean_square_of_the_batch,
        "nested": cl.CompositeLoss(["mae", keras.losses.Huber(reduction="sum")], [1.0, 0.1]),
    }
    return cl.CompositeLoss(children, {"under": 0.5, "nested": 2.0})


def called_whole():
    """A loss that divides by the number of unmasked entries on its own replica.

    With a mask the mean of the replicas is therefore not the mean of the batch.
    """
    return cl.CompositeLoss({"mse": "mse", "whole": Whole()})


def imposed(reduction):
    return lambda: cl.CompositeLoss(["mse", "mae"], reduction=reduction)


LOSSES = {
    "every kind": every_kind,
    "called whole": called_whole,
    "own masks": own_masks,
    "opaque": opaque,
    "sum": imposed("sum"),
    "mean_with_sample_weight": imposed("mean_with_sample_weight"),
}


def make(masked, regularized, inside, loss):
    layers = [keras.layers.Masking(0.0)] if masked else []
    penalty = keras.regularizers.L2(0.1) if regularized else None
    dense = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=penalty)
    model = cl.Sequential([keras.Input((3, 2)), *layers, dense])
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    loss = LOSSES[loss]() if inside else OUTSIDE[loss]
    # Eager steps on one device, an independent and quicker way to the same numbers.
    eager = not tf.distribute.has_strategy()
    model.compile(optimizer, loss=loss, metrics=["mae"], run_eagerly=eager)
    return model


class Change(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.loss.set_weight("under", 3.0)


def run(loss, samples, batch_size, masked, weighted, regularized, inside, changed):
    model = make(masked, regularized, inside, loss)
    x, y = X[:samples], Y[:samples]
    weight = W[:samples] if weighted else None
    kwargs = dict(sample_weight=weight, batch_size=batch_size, verbose=0)
    history = model.fit(x, y, epochs=2, shuffle=False, callbacks=[Change()] * changed, **kwargs)
    logs = model.evaluate(x, y, return_dict=True, **kwargs)
    found = {f"{key} {epoch}": logged[epoch]
             for key, logged in history.history.items() for epoch in range(2)}
    found |= {f"evaluated {key}": value for key, value in logs.items()}
    weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    return found | {f"weight {index}": float(value) for index, value in enumerate(weights)}


found = []
for case in json.load(open("cases.json")):
    OUTSIDE = {case["loss"]: LOSSES[case["loss"]]()}
    alone = run(**case)
    OUTSIDE = {case["loss"]: LOSSES[case["loss"]]()}
    with STRATEGY.scope():
        together = run(**case)
    found.append([alone, together])
print(json.dumps(found))
'''


def case(loss, samples, batch_size=4, inside=True, **flags):
    """The arguments of `run`; what is not given is off."""
    off = dict.fromkeys(("masked", "weighted", "regularized", "changed"), False)
    case = {"loss": loss, "samples": samples, "batch_size": batch_size, "inside": inside}
    return {**case, **off, **flags}


CASES = [
    case("every kind", 10, batch_size=10),
    case("every kind", 10, inside=False),
    case("every kind", 7, masked=True, weighted=True, regularized=True),
    case("every kind", 9, weighted=True, changed=True),
    case("called whole", 9, weighted=True),
    case("opaque", 9),
    case("opaque", 10, inside=False),
    case("own masks", 7),
    case("own masks", 9, masked=True, weighted=True),
    case("sum", 7, masked=True, weighted=True),
    case("mean_with_sample_weight", 9, masked=True, weighted=True, regularized=True),
]


def test_two_replicas_do_as_one_device(tmp_path):
    """One process for all cases: to start TensorFlow takes longer than they do."""
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    root = Path(__file__).parents[2]  # of these tests, which an installed package does not have
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", tmp_path)
    for case, (alone, together) in zip(CASES, json.loads(printed.splitlines()[-1]), strict=True):
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-6), case
