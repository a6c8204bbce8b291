"""`(N,)` beside `(N, 1)`: most losses would broadcast, one that knows the shapes sees them."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import WEIGHTS, uniform, value
from tests.gradients import gradient

pytestmark = pytest.mark.depends_on_version


class SqueezesPredictions(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.square(ops.squeeze(y_pred, -1) - y_true)


class SqueezesTargets(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.square(y_pred - ops.squeeze(y_true, -1))


class Expands(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(ops.expand_dims(y_true, -1) - y_pred), axis=-1)


def squeezes(y_true, y_pred):
    return ops.abs(ops.squeeze(y_pred, -1) - y_true)


def of_one_rank(y_true, y_pred):
    """Knows no shapes: (N,) against (N, 1) would be (N, N)."""
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


KNOWING = {
    "squeezes predictions": (SqueezesPredictions, (4,), (4, 1)),
    "squeezes predictions of steps": (SqueezesPredictions, (4, 3), (4, 3, 1)),
    "squeezes as many steps": (SqueezesPredictions, (4, 4), (4, 4, 1)),
    "squeezes targets": (SqueezesTargets, (4, 1), (4,)),
    "expands targets": (Expands, (4, 3), (4, 3, 1)),
    "expands targets of samples": (Expands, (4,), (4, 1)),
    "function": (lambda: squeezes, (4,), (4, 1)),
}


def alone(child):
    if isinstance(child, keras.losses.Loss):
        return child
    return keras.losses.MeanSquaredError.__bases__[0](child)


@pytest.mark.parametrize("make, true, pred", KNOWING.values(), ids=KNOWING)
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_a_loss_that_knows_the_shapes_sees_them(make, true, pred, weight):
    y_true, y_pred = uniform(*true), uniform(*pred, seed=1)
    given = None if weight is None else weight.reshape(4, *[1] * (len(true) - 1))
    if make is not SqueezesTargets:
        given = None if weight is None else weight.reshape(4, *[1] * (min(len(true), 2) - 1))
    child, loss = make(), cl.CompositeLoss([make()])
    if isinstance(child, keras.losses.Loss):
        values = child.call(ops.array(y_true), ops.array(y_pred))
    else:
        values = child(ops.array(y_true), ops.array(y_pred))
    values = ops.convert_to_numpy(values)
    scaled = values if weight is None else values * weight.reshape(4, *[1] * (values.ndim - 1))
    np.testing.assert_allclose(value(loss, y_true, y_pred, given), scaled.mean(), rtol=2e-6)
    slope = gradient(lambda p: loss(y_true, p, given), y_pred)
    assert slope.shape == y_pred.shape
    assert np.all(slope[1] == 0) == (weight is not None)


@pytest.mark.parametrize("true, pred", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 4), (4, 4, 1))])
def test_a_loss_that_knows_none_is_not_broadcast(true, pred):
    y_true, y_pred = uniform(*true), uniform(*pred, seed=1)
    expected = np.mean(np.square(y_true.ravel() - y_pred.ravel()))
    np.testing.assert_allclose(
        value(cl.CompositeLoss([of_one_rank]), y_true, y_pred), expected, 2e-6
    )


def test_in_evaluate():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss([SqueezesPredictions()]))
    x, y = uniform(4, 3), uniform(4, seed=1)
    expected = np.mean(np.square(model.predict(x, verbose=0)[:, 0] - y))
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(expected, rel=1e-5)


def test_an_error_of_the_loss_itself_is_raised():
    def broken(y_true, y_pred):
        raise KeyError("of the user")

    with pytest.raises(KeyError, match="of the user"):
        cl.CompositeLoss([broken])(uniform(4), uniform(4, 1))
