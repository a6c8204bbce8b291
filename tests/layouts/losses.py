"""Every loss that has several predictions for each target, ours and a user's, and their twins."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

import combined_losses as cl
from tests.contracts.registry import CASES
from tests.wrappers.numpy_twins import normal


@keras.saving.register_keras_serializable("tests")
class LaplaceNLL(cl.losses.Loss):
    """A user's loss of two blocks: medians and log-scales."""

    prediction_layout = "blocks"

    def call(self, y_true, y_pred):
        median, log_scale = ops.split(y_pred, 2, axis=-1)
        return ops.mean(log_scale + ops.abs(y_true - median) * ops.exp(-log_scale), axis=-1)

    def rescaled(self, y_pred, scale):
        median, log_scale = ops.split(y_pred, 2, axis=-1)
        return ops.concatenate([median / scale, log_scale - ops.log(ops.abs(scale))], axis=-1)


def laplace(y_true, y_pred):
    y_true, (median, s) = np.float64(y_true), np.split(np.float64(y_pred), 2, axis=-1)
    error = y_true - median
    by_median, by_s = -np.sign(error) * np.exp(-s), 1 - np.abs(error) * np.exp(-s)
    values = s + np.abs(error) * np.exp(-s)
    slope = np.concatenate([by_median, by_s], axis=-1) / values.shape[-1]
    return values.mean(axis=-1), slope


@keras.saving.register_keras_serializable("tests")
class Middle(cl.losses.Loss):
    """A user's loss of columns: the distance from the mean of an ensemble."""

    prediction_layout = "columns"

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - ops.mean(y_pred, axis=-1, keepdims=True)), axis=-1)


def middle(y_true, y_pred):
    y_pred = np.float64(y_pred)
    error = np.float64(y_true).reshape(y_pred.shape[:-1]) - y_pred.mean(axis=-1)
    slope = np.repeat((-2 * error / y_pred.shape[-1])[..., None], y_pred.shape[-1], -1)
    return error**2, slope


@dataclasses.dataclass(frozen=True)
class LayoutCase:
    name: str
    make: Callable
    oracle: Callable
    layout: str
    count: int  # predictions of each target
    of_amounts: bool = False  # whether targets are at least 0

    def data(self, *shape, seed=0):
        """Targets of a shape, and predictions for them."""
        y_true = normal(*shape, seed=seed + 21)
        y_true = np.abs(y_true) if self.of_amounts else y_true
        if self.layout == "columns":
            return y_true, normal(*shape, self.count, seed=seed + 22)
        return y_true, normal(*shape[:-1], shape[-1] * self.count, seed=seed + 22)

    def apart(self, y_pred, size):
        """Predictions `(..., k)` of each target."""
        if self.layout == "columns":
            return y_pred
        blocks = y_pred.reshape(*y_pred.shape[:-1], self.count, size)
        return np.swapaxes(blocks, -1, -2)

    def together(self, y_pred):
        if self.layout == "columns":
            return y_pred
        return np.swapaxes(y_pred, -1, -2).reshape(*y_pred.shape[:-2], -1)

    def singles(self, y_true, y_pred):
        """The value of each target, and its slope by its predictions `(..., k)`."""
        return self.oracle(y_true[..., None], self.apart(y_pred, y_true.shape[-1]))

    def elements(self, size):
        """How many targets one value of the loss is the mean of."""
        return size if self.layout == "blocks" else 1


def _of_registry(case):
    made = case.make()
    count = case.y_pred.shape[-1] // case.y_true.shape[-1]
    # The data are any numbers: logits, not probabilities.
    arguments = {"from_logits": True} if hasattr(made, "from_logits") else {}

    def make(**given):
        return case.make(**arguments, **given)

    def oracle(y_true, y_pred):
        return case.values(y_true, y_pred, **arguments)

    amounts = made.target_kind == "amounts"
    return LayoutCase(made.name, make, oracle, made.prediction_layout, count, amounts)


_OURS = [_of_registry(c) for c in CASES if getattr(c.make(), "prediction_layout", None)]
LAYOUT_CASES = [
    # `GaussianNLL` first: some tests are about it alone.
    *sorted(_OURS, key=lambda case: case.name != "gaussian_nll"),
    LayoutCase("laplace", LaplaceNLL, laplace, "blocks", 2),
    LayoutCase("middle", Middle, middle, "columns", 3),
]


def reduced(case, y_true, y_pred, weight=None, there=None, reduction="sum_over_batch_size"):
    """The total of a loss in float64, and its slope by `y_pred`.

    `weight` and `there` (which labels there are) broadcast against the targets from the left.
    """
    values, slopes = case.singles(np.nan_to_num(y_true), y_pred)

    def fit(array):
        missing = y_true.ndim - array.ndim
        return np.broadcast_to(array.reshape(*array.shape, *[1] * missing), y_true.shape)

    mask = np.ones(y_true.shape) if there is None else fit(np.float64(there))
    factor = mask if weight is None else mask * fit(np.float64(weight))
    size = case.elements(y_true.shape[-1])
    counts = {"sum": size, "mean_with_sample_weight": factor.sum()}
    count = counts.get(reduction, mask.sum())
    count = 1.0 if count == 0 else count
    return (values * factor).sum() / count, case.together(slopes * factor[..., None] / count)
