"""A replica that a last batch leaves nothing: every loss is 0 there; an error would stop all."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.contracts.registry import CASES, VARIANTS
from tests.gradients import value_and_gradient

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="the parts of an array of JAX are equal"
)


@pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)
def test_a_loss_of_no_samples_is_0(case):
    for arguments in ({}, case.arguments):
        loss = case.make(**arguments)
        value, slope = value_and_gradient(loss, case.y_true[:0], case.y_pred[:0])
        assert ops.convert_to_numpy(value) == 0
        assert slope.shape == case.y_pred[:0].shape


@pytest.mark.parametrize("name", ["Dice", "GeneralizedDice", "STFT", "SignedDistanceBoundary"])
def test_so_is_one_that_masks_its_labels(name):
    case = next(case for case in CASES if case.loss.__name__ == name)
    loss = cl.wrappers.Masked(case.make())
    value, _ = value_and_gradient(loss, case.y_true[:0].astype("float32"), case.y_pred[:0])
    assert np.asarray(value) == 0


@pytest.mark.thorough  # each is a program to compile
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="torch compiles nothing")
@pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)
def test_a_compiled_loss_of_no_samples_is_0(case):
    """With the number of samples known: TensorFlow has other kernels' errors then."""
    import tensorflow as tf

    from tests.engines.replicas import step

    loss = case.make()
    parts = [tf.constant(array[:0]) for array in (case.y_true, case.y_pred)]
    value, slope = tf.function(lambda: step(loss, *parts), autograph=False)()
    assert float(value) == 0
    assert slope.shape == parts[1].shape
