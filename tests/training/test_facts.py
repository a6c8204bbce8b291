"""What users of plain Keras lose, and get back.

The other rows of the list are claims of the files beside this one: losses of a list, and of a list
for one output (`test_outputs`), weights changed in a callback (`test_set_weight`), children that
return a scalar and masks after a cast (`test_invariant`, `test_precision_and_modes`,
`test_distribution`), partial batches of several outputs and partial `loss_weights`
(`test_outputs`), missing targets (`test_mixin`), lambdas (`test_saving`).
"""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import FROZEN, arrays, line, sgd, weights_of


def mse_and_mae(**kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": 0.5}, **kwargs)


def test_two_losses_on_one_output_both_train():
    """One step of SGD from a kernel of zeros is the one that both gradients together give."""
    x, y = arrays()
    model = line(kernel_initializer="zeros", use_bias=False)
    model.compile(sgd(0.1), loss=cl.CompositeLoss(["mse", "mae"]))
    history = model.fit(x, y, batch_size=10, verbose=0).history
    step = 0.1 * x.T @ (2 * y + np.sign(y)) / len(x)
    np.testing.assert_allclose(weights_of(model), step[:, 0], rtol=1e-5)
    assert history["mse_loss"] == pytest.approx([np.mean(y**2)], rel=1e-6)
    assert history["mae_loss"] == pytest.approx([np.mean(np.abs(y))], rel=1e-6)


def test_each_part_is_computed_once_a_step():
    calls = []

    def counted(y_true, y_pred):
        calls.append(1)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    model, (x, y) = line(), arrays()
    loss = cl.CompositeLoss({"counted": counted, "mae": "mae"})
    model.compile(sgd(), loss=loss, run_eagerly=True)
    model.train_on_batch(x, y)
    calls.clear()
    for _ in range(3):
        model.train_on_batch(x, y)
    assert len(calls) == 3


@pytest.mark.parametrize("weight", [None, np.linspace(0, 2, 10)], ids=["unweighted", "weighted"])
def test_loss_and_metrics_of_a_plain_model_give_the_numbers_of_a_tracked_one(weight):
    """They are compiled as `weighted_metrics`, because Keras weighs no other metrics."""
    x, y = arrays()
    logs = []
    for cls in (keras.Sequential, cl.Sequential):
        model, loss = line(cls), mse_and_mae()
        metrics = loss.as_metrics() if cls is keras.Sequential else None
        model.compile(sgd(FROZEN), loss=loss, weighted_metrics=metrics)
        kwargs = {"sample_weight": weight, "batch_size": 4, "verbose": 0}
        history = model.fit(x, y, shuffle=False, **kwargs).history
        evaluated = model.evaluate(x, y, return_dict=True, **kwargs)
        assert evaluated == pytest.approx({key: v[0] for key, v in history.items()}, rel=1e-6)
        logs.append(evaluated)
    assert logs[0] == pytest.approx(logs[1], rel=1e-6)


def test_sample_weights_are_not_taken_for_columns_where_the_numbers_agree():
    """Values `(N, T)` with N == T == 3: the one weight that counts is that of a sample."""
    model = cl.Sequential([keras.Input((3, 2)), keras.layers.Identity()])
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    x = np.arange(18, dtype="float32").reshape(3, 3, 2)
    logs = model.evaluate(
        x, 0 * x, sample_weight=np.array([0.0, 0.0, 3.0]), verbose=0, return_dict=True
    )
    assert logs["mse_loss"] == pytest.approx(np.mean(x[2] ** 2), rel=1e-6)


def test_an_output_without_its_last_axis_does_not_meet_every_target():
    """Predictions `(N,)` and targets `(N, 1)` would broadcast to `(N, N)`."""

    class Squares(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.square(y_true - y_pred)

    inputs = keras.Input((3,))
    model = cl.Model(inputs, keras.layers.Reshape(())(keras.layers.Dense(1)(inputs)))
    model.compile(sgd(), loss=cl.CompositeLoss({"squares": Squares()}))
    x, y = arrays()
    expected = np.mean((y[:, 0] - model.predict(x, verbose=0)) ** 2)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["squares_loss"] == pytest.approx(expected, rel=1e-6)
