"""The figures of a training, by what their lines and areas say."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.reporting import plots

LOGS = {
    "loss": [4.0, 2.5],
    "mse_loss": [2.0, 1.5],
    "boundary/inner_loss": [1.0, 0.2],
    "boundary_loss": [1.0, 0.5],
    "val_loss": [5.0, 3.0],
    "val_mse_loss": [3.0, 2.0],
    "regularization_loss": [1.0, 1.0],
}


@pytest.fixture
def ax():
    from matplotlib.figure import Figure

    return Figure().subplots()


def drawn_shares(ax):
    """The height of each area at the first epoch, by its label."""
    tops = {}
    for area in ax.collections:
        vertices = area.get_paths()[0].vertices
        left = vertices[vertices[:, 0] == vertices[:, 0].min(), 1]
        tops[area.get_label()] = left.max() - left.min()
    return tops


def test_components_draws_each_in_training_and_validation(ax):
    assert plots.components(LOGS, ax) is ax
    lines = [(list(line.get_ydata()), line.get_linestyle()) for line in ax.lines]
    assert lines == [
        ([2.0, 1.5], "-"),
        ([3.0, 2.0], "--"),
        ([1.0, 0.2], "-"),
        ([1.0, 0.5], "-"),
    ]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["mse", "boundary/inner", "boundary", "validation"]


@pytest.mark.parametrize(("low", "scale"), [(1.0, "linear"), (0.01, "log"), (0.0, "linear")])
def test_components_of_very_different_size_get_a_logarithmic_axis(ax, low, scale):
    plots.components({"big_loss": [1.0, 0.9], "small_loss": [low, low]}, ax)
    assert ax.get_yscale() == scale


def test_shares_are_of_the_weighted_components_and_add_up(ax):
    plots.shares(LOGS, ax, weights={"boundary": 0.5})
    assert drawn_shares(ax) == pytest.approx({"mse": 80.0, "boundary": 20.0})


def test_shares_take_moving_weights_from_the_logs(ax):
    logs = {**LOGS, "boundary_weight": [2.0, 3.0]}
    plots.shares(logs, ax, weights={"boundary": 0.5})
    assert drawn_shares(ax) == pytest.approx({"mse": 50.0, "boundary": 50.0})


def test_shares_take_fixed_weights_from_the_model(ax):
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"], weights=[1.0, 6.0]))
    history = model.fit(np.zeros((4, 1)), np.full((4, 1), 2.0), batch_size=4, verbose=0)
    plots.shares(history, ax)
    assert drawn_shares(ax) == pytest.approx({"mse": 25.0, "mae": 75.0})


def test_one_epoch_is_seen(ax):
    plots.shares({"mse_loss": [2.0]}, ax)
    low, high = ax.get_xlim()
    assert low < 1 < high
    assert drawn_shares(ax) == pytest.approx({"mse": 100.0})


@pytest.mark.parametrize("draw", [plots.components, plots.shares])
@pytest.mark.parametrize("logs", [{}, {"loss": [1.0], "val_mse_loss": [1.0]}, {"mse_loss": []}])
def test_history_without_components_is_refused(draw, logs):
    with pytest.raises(ValueError, match=r"must hold components.*Received"):
        draw(logs)
