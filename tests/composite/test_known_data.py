"""A loss that has seen data of the same shapes before goes a shorter way to the same numbers."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import CHILDREN, WEIGHTS, Y_PRED, Y_TRUE, value
from tests.contracts.registry import CASES
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises

MASK = np.array([[True, False, True], [True, True, True], [False, True, True], [True] * 3])


def numbers(loss, y_true, y_pred, weight=None, mask=None):
    """The value of a loss and its gradient."""

    def of(p):
        return loss(y_true, p if mask is None else masked(p, mask), weight)

    return value(of, y_pred), gradient(of, y_pred)


def same(actual, expected):
    for one, two in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_every_call_of_a_loss_gives_what_the_first_call_gives(case):
    def made():
        return case.make(**case.arguments)

    used, data = made(), (case.y_true, case.y_pred)
    few = (case.y_true[:2], case.y_pred[:2])
    alone, weighted, first = numbers(made(), *data), numbers(made(), *data, WEIGHTS), made()
    of_few = numbers(first, *few)
    for _ in range(2):
        same(numbers(used, *data), alone)
        same(numbers(used, *data, WEIGHTS), weighted)
        same(numbers(used, *few), of_few)


@pytest.mark.parametrize("kind", [kind for kind in CHILDREN if kind != "field"])
def test_every_call_of_a_composite_gives_what_the_first_call_gives(kind):
    def made():
        return cl.CompositeLoss({"a": CHILDREN[kind](), "b": "mse"}, {"b": 0.5})

    used = made()
    for _ in range(2):
        same(numbers(used, Y_TRUE, Y_PRED), numbers(made(), Y_TRUE, Y_PRED))
        of_mask = numbers(made(), Y_TRUE, Y_PRED, mask=MASK)
        same(numbers(used, Y_TRUE, Y_PRED, mask=MASK), of_mask)


def test_an_error_names_the_component_in_every_call():
    def picky(y_true, y_pred):
        if picky.is_angry:
            raise ValueError("no more")
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    picky.is_angry = False
    loss = cl.CompositeLoss({"a": picky})
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
    picky.is_angry = True
    with raises(ValueError, "no more", "'a'"):
        loss(Y_TRUE, Y_PRED)


def test_a_function_that_fails_once_is_called_once():
    calls = []

    def failing_once(y_true, y_pred):
        calls.append(len(calls))
        if len(calls) == 3:
            raise ValueError("just now")
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    loss = cl.CompositeLoss({"a": failing_once})
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
    with raises(ValueError, "just now", "'a'"):
        loss(Y_TRUE, Y_PRED)
    value(loss, Y_TRUE, Y_PRED)
    assert len(calls) == 4


def test_values_of_another_shape_come_of_one_call():
    calls = []

    def one_number_later(y_true, y_pred):
        calls.append(len(calls))
        values = ops.mean(ops.abs(y_true - y_pred), axis=-1)
        return values if len(calls) < 3 else 2.0 * ops.mean(values)

    loss = cl.CompositeLoss({"a": one_number_later})
    first, second, third = (value(loss, Y_TRUE, Y_PRED) for _ in range(3))
    assert first == second
    np.testing.assert_allclose(third, 2.0 * first, rtol=1e-6)
    assert len(calls) == 3


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 by default")
def test_values_of_more_digits_keep_them():
    def precise_later(y_true, y_pred):
        dtype = "float64" if precise_later.is_precise else "float32"
        return ops.mean(ops.cast(ops.abs(y_true - y_pred), dtype) / 3, axis=-1)

    used, other = cl.as_loss(precise_later), cl.as_loss(precise_later)
    precise_later.is_precise = False
    for _ in range(2):
        value(used, Y_TRUE, Y_PRED)
    precise_later.is_precise = True
    actual, expected = value(used, Y_TRUE, Y_PRED), value(other, Y_TRUE, Y_PRED)
    assert actual.dtype == expected.dtype == "float64"
    assert actual == expected


def test_values_of_another_shape_are_checked_again():
    def changing(y_true, y_pred):
        values = ops.mean(ops.abs(y_true - y_pred), axis=-1)
        return values[changing.first :]

    changing.first = 0
    loss = cl.CompositeLoss({"a": changing})
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
    changing.first = 1
    with raises(ValueError, "'a'", "(3, 3)"):
        loss(Y_TRUE, Y_PRED)


def test_a_term_of_predictions_may_have_other_rows_later():
    def last_rows(y_pred):
        return ops.mean(y_pred[last_rows.first :], axis=-1)

    last_rows.first = 0
    loss = cl.CompositeLoss({"a": last_rows})
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
    last_rows.first = 1
    np.testing.assert_allclose(value(loss, Y_TRUE, Y_PRED), np.mean(Y_PRED[1:]), rtol=1e-6)


def test_a_mask_that_a_loss_puts_on_its_values_only_later():
    class Masking(cl.losses.Loss):
        def call(self, y_true, y_pred):
            values = ops.mean(ops.abs(y_true - y_pred), axis=-1)
            return masked(values, MASK) if self.masks else values

    loss, other = Masking(), Masking()
    loss.masks = False
    other.masks = True
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
    loss.masks = True
    for _ in range(2):
        assert value(loss, Y_TRUE, Y_PRED) == value(other, Y_TRUE, Y_PRED)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_each_dtype_is_known_by_itself(dtype):
    loss = cl.CompositeLoss(["mse", keras.losses.MeanAbsoluteError()])
    for _ in range(2):
        value(loss, Y_TRUE, Y_PRED)
        y_pred = (Y_PRED * 10).astype(dtype)
        assert value(loss, Y_TRUE, y_pred) == value(
            cl.CompositeLoss(["mse", "mae"]), Y_TRUE, y_pred
        )


def test_what_is_remembered_of_sequences_of_every_length_has_an_end(monkeypatch):
    monkeypatch.setattr("combined_losses._core.leaf._MOST_KNOWN", 2)
    loss = cl.CompositeLoss({"a": "mse"})
    for length in range(1, 5):
        value(loss, np.zeros((1, length, 1)), np.ones((1, length, 1)))
    assert len(loss._node.nodes["a"]._known) == 2
