"""Gradient accumulation: what several small batches train, beside one large batch."""

import warnings

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.training.tiny import arrays, line, weights_of

WEIGHTS = np.array([1.0, 2.0, 0.5, 0.5, 8.0, 4.0, 8.0, 4.0], "float32")  # of the halves 4 and 24


def compiled(loss, accumulate, scaled=False):
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=accumulate)
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    model = line()
    model.compile(optimizer, loss=loss)
    return model


def trained(loss, accumulate, sample_weight):
    """The weights after one step of the optimizer on eight samples."""
    x, y = arrays(8)
    model = compiled(loss, accumulate)
    size = 8 // (accumulate or 1)
    for i in range(0, 8, size):
        part = slice(i, i + size)
        model.train_on_batch(x[part], y[part], sample_weight[part])
    return weights_of(model)


def composite(reduction):
    return cl.CompositeLoss(["mse", "mae"], reduction=reduction)


@pytest.mark.parametrize("reduction", ["per_component", "sum_over_batch_size"])
def test_batches_of_one_size_are_together_the_larger_batch(reduction):
    found = trained(composite(reduction), 2, WEIGHTS)
    np.testing.assert_allclose(found, trained(composite(reduction), None, WEIGHTS), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*gradient_accumulation_steps")
def test_so_are_means_over_sample_weights_of_one_sum_alone():
    """The small batches equal the large one only if their sums of weights are equal."""
    equal = np.concatenate([WEIGHTS[:4], WEIGHTS[3::-1]])
    for weights, is_whole in ((equal, True), (WEIGHTS, False)):
        found = trained(composite("mean_with_sample_weight"), 2, weights)
        whole = trained(composite("mean_with_sample_weight"), None, weights)
        assert np.allclose(found, whole, rtol=1e-5) == is_whole


def weighted_mse():
    return keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")


LOSSES = {
    "'composite_loss'": lambda: composite("mean_with_sample_weight"),
    "'mse'": lambda: cl.CompositeLoss({"mse": weighted_mse(), "mae": "mae"}),
    "'in/mse'": lambda: cl.CompositeLoss({"in": cl.CompositeLoss({"mse": weighted_mse()})}),
    "'scaled'": lambda: cl.CompositeLoss({"scaled": cl.wrappers.Scaled(weighted_mse(), 2.0)}),
}


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
@pytest.mark.parametrize("named", LOSSES)
def test_a_warning_names_the_mean_and_what_to_do(named, scaled):
    said = rf"{named}: a mean.*gradient_accumulation_steps=3.*'sum_over_batch_size'.*Received: "
    with pytest.warns(UserWarning, match=said):
        compiled(LOSSES[named](), 3, scaled)


@pytest.mark.parametrize("reduction", ["per_component", "sum", "mean_with_sample_weight"])
def test_other_ways_are_silent(reduction):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(composite(reduction), 3 if reduction != "mean_with_sample_weight" else None)
        # The reduction imposed on all components replaces the one that would warn.
        imposed = cl.CompositeLoss({"mse": weighted_mse()}, reduction="sum_over_batch_size")
        compiled(imposed, 3)
