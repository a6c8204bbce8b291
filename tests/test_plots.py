"""The figures of a training, by what their lines and areas say."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses import plots

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


@pytest.mark.backend_free
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


@pytest.mark.backend_free
@pytest.mark.parametrize(("low", "scale"), [(1.0, "linear"), (0.01, "log"), (0.0, "linear")])
def test_components_of_very_different_size_get_a_logarithmic_axis(ax, low, scale):
    plots.components({"big_loss": [1.0, 0.9], "small_loss": [low, low]}, ax)
    assert ax.get_yscale() == scale


@pytest.mark.backend_free
def test_shares_are_of_the_weighted_components_and_add_up(ax):
    plots.shares(LOGS, ax, weights={"boundary": 0.5})
    assert drawn_shares(ax) == pytest.approx({"mse": 80.0, "boundary": 20.0})


@pytest.mark.backend_free
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


@pytest.mark.backend_free
def test_one_epoch_is_seen(ax):
    plots.shares({"mse_loss": [2.0]}, ax)
    low, high = ax.get_xlim()
    assert low < 1 < high
    assert drawn_shares(ax) == pytest.approx({"mse": 100.0})


@pytest.mark.backend_free
@pytest.mark.parametrize("draw", [plots.components, plots.shares])
@pytest.mark.parametrize("logs", [{}, {"loss": [1.0], "val_mse_loss": [1.0]}, {"mse_loss": []}])
def test_history_without_components_is_refused(draw, logs):
    with pytest.raises(ValueError, match=r"must hold components.*Received"):
        draw(logs)


def test_shares_take_the_weights_of_outputs_from_the_model(ax):
    inputs = keras.Input((1,))
    heads = {n: keras.layers.Dense(1, kernel_initializer="zeros", name=n)(inputs) for n in "ab"}
    model = cl.Model(inputs, heads)
    composite = cl.CompositeLoss(["mse", "mae"], weights=[1.0, 3.0])
    model.compile("sgd", loss={"a": composite, "b": "mse"}, loss_weights={"b": 2.5})
    y = np.full((4, 1), 2.0)
    history = model.fit(np.zeros((4, 1)), {"a": y, "b": y}, batch_size=4, verbose=0)
    plots.shares(history, ax)
    assert drawn_shares(ax) == pytest.approx({"a_mse": 20.0, "a_mae": 30.0, "b": 50.0})


@pytest.mark.backend_free
def test_validation_is_drawn_at_the_epochs_that_had_one(ax):
    plots.components({"mse_loss": [6, 5, 4, 3, 2], "val_mse_loss": [7, 6]}, ax)
    assert list(ax.lines[1].get_xdata()) == [2, 4]
    plots.components({"mse_loss": [6, 5, 4], "val_mse_loss": [None, 7, None]}, ax)
    assert list(ax.lines[3].get_xdata()) == [2]


def test_epochs_of_a_resumed_training_go_on(ax):
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    history = model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=5, initial_epoch=3, verbose=0)
    plots.components(history, ax)
    assert list(ax.lines[0].get_xdata()) == [4, 5]


@pytest.mark.backend_free
@pytest.mark.parametrize("draw", [plots.components, plots.shares])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_gaps(ax, draw, bad):
    draw({"a_loss": [1.0, bad, 3.0, 2.0], "b_loss": [bad] * 4, "c_loss": [0.0] * 4}, ax)
    ax.figure.draw_without_rendering()
    assert np.isfinite(ax.get_ylim()).all()
    if draw is plots.components:
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1, np.nan, 3, 2])


@pytest.mark.backend_free
@pytest.mark.parametrize("draw", [plots.components, plots.shares])
def test_no_two_of_many_components_look_alike(ax, draw):
    draw({f"part{i}_loss": [1.0 + i, 2.0] for i in range(60)}, ax)
    if draw is plots.components:
        looks = {(line.get_color(), line.get_marker()) for line in ax.lines}
    else:
        looks = {(tuple(a.get_facecolor()[0]), a.get_hatch()) for a in ax.collections}
    assert len(looks) == 60


def boxes(ax):
    """What must not overlap: the axes with its ticks and labels, the legend; and the figure."""
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    return ax.xaxis.get_tightbbox(), legend, ax.figure.bbox


@pytest.mark.backend_free
@pytest.mark.parametrize("draw", [plots.components, plots.shares, plots.pareto])
@pytest.mark.parametrize("name", ["{}", "{}_of_the_quantity_with_a_very_long_name_of_80_letters"])
@pytest.mark.parametrize("count", [2, 12])
def test_legend_covers_nothing_and_is_not_clipped(draw, name, count):
    names = [name.format(f"run{i}") for i in range(count)]
    logs = {f"{n}_loss": [2.0, 1.0 + i] for i, n in enumerate(names)}
    ax = draw(dict.fromkeys(names, logs) if draw is plots.pareto else logs)
    axis, legend, figure = boxes(ax)
    assert legend.y1 <= axis.y0 + 1
    assert figure.x0 <= legend.x0 and legend.x1 <= figure.x1 and figure.y0 <= legend.y0


@pytest.mark.backend_free
def test_labels_are_written_as_they_are(ax):
    plots.components({"_hidden_loss": [1.0], "$x$_loss": [2.0]}, ax)
    texts = ax.get_legend().get_texts()
    assert [(t.get_text(), t.get_parse_math()) for t in texts] == [
        ("_hidden", False),
        ("$x$", False),
    ]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.backend_free
def test_pareto_tells_the_front_from_the_dominated(ax):
    runs = {
        "left": {"mse": 1.0, "mae": 5.0},
        "middle": {"mse": 2.0, "mae": 3.0},
        "twin": {"mse": 2.0, "mae": 3.0},
        "tie": {"mse": 2.0, "mae": 4.0},  # as good in one, worse in the other
        "right": {"mse": 4.0, "mae": 1.0},
        "worse": {"mse": 5.0, "mae": 5.0},
        "nan": {"mse": np.nan, "mae": 0.0},
        "inf": {"mse": 0.0, "mae": np.inf},
    }
    assert plots.pareto(runs, ax) is ax
    named = ["left", "middle", "twin", "tie (dominated)", "right", "worse (dominated)"]
    assert legend(ax) == [*named, "nan (not finite)", "inf (not finite)", "Pareto front"]
    front, *markers = ax.lines
    np.testing.assert_array_equal(front.get_xydata(), [(1, 5), (2, 3), (2, 3), (4, 1)])
    assert front.get_drawstyle() == "steps-post"
    assert len(markers) == 6
    hollow = [marker.get_markerfacecolor() == "white" for marker in markers]
    assert hollow == [False, False, False, True, False, True]
    assert markers[1].get_markersize() > markers[2].get_markersize()


@pytest.mark.backend_free
def test_pareto_is_the_front_by_definition(ax):
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (40, 2)).astype(float)
    plots.pareto({str(i): {"x": x, "y": y} for i, (x, y) in enumerate(points)}, ax)
    for (x, y), label in zip(points, legend(ax), strict=False):
        beaten = any((a <= x and b <= y) and (a < x or b < y) for a, b in points)
        assert label.endswith("(dominated)") == beaten


@pytest.mark.backend_free
def test_pareto_takes_the_last_epoch_of_the_validation_where_all_have_one(ax):
    logs = {"loss": [9, 8], "b_loss": [4, 3], "val_b_loss": [6, 5], "a_loss": [2, 1]}
    plots.pareto({"one": {**logs, "val_loss": [9, 9]}, "two": logs}, ax)
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [(5, 1)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b (validation)", "a")
    plots.pareto({"one": logs, "two": {"a_loss": [1], "b_loss": [2]}}, ax, x="a", y="b")
    np.testing.assert_array_equal(ax.lines[4].get_xydata(), [(1, 3)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_pareto_takes_histories_and_results_of_evaluate(ax):
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss({"sum": cl.CompositeLoss(["mse"]), "mae": "mae"}))
    x = np.ones((4, 1))
    history = model.fit(x, x, verbose=0)
    results = model.evaluate(x, x, verbose=0, return_dict=True)
    plots.pareto({"fit": history, "evaluate": results}, ax, x="sum")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sum", "mae")
    expected = [history.history["sum_loss"][-1], history.history["mae_loss"][-1]]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [expected])
    plots.pareto({"fit": history}, ax, x="sum_loss", y="sum/mse")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sum", "sum/mse")


@pytest.mark.backend_free
def test_pareto_makes_each_axis_logarithmic_for_itself(ax):
    plots.pareto({"one": {"a": 1.0, "b": 1.0}, "two": {"a": 31.0, "b": 29.0}}, ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("runs", "names", "said"),
    [
        ({}, {}, "at least one run"),
        ({"one": {"a": 1.0}}, {}, "two components"),
        ({"one": {"a": 1.0, "b": 1.0}}, {"x": "a", "y": "a"}, "two components"),
        ({"one": {"a": 1.0, "b": 1.0}}, {"y": "c"}, "component 'c'.*run 'one' with"),
        ({"one": {"a": 1.0, "b": 1.0}, "two": {"a": 1.0}}, {}, "component 'b'.*run 'two' with"),
        ({"one": 3.0}, {}, "History, its logs"),
    ],
)
def test_pareto_refuses_runs_that_cannot_be_compared(runs, names, said):
    with pytest.raises(ValueError, match=said) as error:
        plots.pareto(runs, **names)
    assert "Received: " in str(error.value)


@pytest.mark.backend_free
def test_pareto_of_runs_that_all_failed_is_drawn(ax):
    plots.pareto({"one": {"a": np.nan, "b": 1.0}, "two": {"a": 1.0, "b": np.inf}}, ax)
    ax.figure.draw_without_rendering()
    assert legend(ax) == ["one (not finite)", "two (not finite)", "Pareto front"]


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_shares_of_an_old_training_keep_its_weights(ax):
    loss = cl.CompositeLoss(
        {"one": lambda t, p: 1 + 0 * p[:, 0], "two": lambda t, p: 1 + 0 * p[:, 0]}
    )
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=loss)
    history = model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    loss.set_weight("two", 3.0)
    plots.shares(history, ax)
    assert drawn_shares(ax) == pytest.approx({"one": 50.0, "two": 50.0})


class Late(cl.ComponentMetricsMixin, keras.Model):
    """A model whose outputs are not known before its first batch."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="zeros")

    def call(self, x):
        return self.dense(x)


def test_shares_of_a_model_that_was_built_in_that_training(ax):
    model = Late()
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"], weights=[1.0, 6.0]))
    history = model.fit(np.zeros((4, 1)), np.full((4, 1), 2.0), batch_size=4, verbose=0)
    plots.shares(history, ax)
    assert drawn_shares(ax) == pytest.approx({"mse": 25.0, "mae": 75.0})


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_shares_of_a_training_that_was_stopped_by_hand(ax):
    inputs = keras.Input((1,))
    heads = {n: keras.layers.Dense(1, kernel_initializer="zeros", name=n)(inputs) for n in "ab"}
    model = cl.Model(inputs, heads)
    composite = cl.CompositeLoss(["mse", "mae"], weights=[1.0, 3.0])
    model.compile(
        keras.optimizers.SGD(0.0), loss={"a": composite, "b": "mse"}, loss_weights={"b": 2.5}
    )
    y = np.full((4, 1), 2.0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.zeros((4, 1)), {"a": y, "b": y}, epochs=3, verbose=0, callbacks=[Stop()])
    plots.shares(model.history, ax)
    assert drawn_shares(ax) == pytest.approx({"a_mse": 20.0, "a_mae": 30.0, "b": 50.0})


@pytest.mark.backend_free
def test_components_on_a_shared_axis_that_is_logarithmic_already():
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2, sharey=True)
    plots.components({"a_loss": [1.0, 0.5], "b_loss": [0.001, 0.002]}, left)
    plots.components({"a_loss": [1.0, 0.5], "b_loss": [0.5, 0.4]}, right)  # without a warning
    assert right.get_yscale() == "log"


# What the logs have beside the components, of each composite.


@pytest.mark.backend_free
@pytest.mark.parametrize("before", ["", "in/", "a_", "a_in/"])
@pytest.mark.parametrize("key", ["base_loss", "weighting_loss"])
def test_what_a_composite_adds_is_no_component(key, before, ax):
    logs = {f"{before}{name}": [1.0, 0.5] for name in ("mse_loss", "mae_loss", "mae_weight", key)}
    plots.components(logs, ax)
    assert ax.get_legend_handles_labels()[1][:2] == [f"{before}mse", f"{before}mae"]
    assert not any(key[:4] in label for label in ax.get_legend_handles_labels()[1])
    plots.pareto({"one": logs}, x=f"{before}mse", y=f"{before}mae")
    with pytest.raises(ValueError, match="component"):
        plots.pareto({"one": logs}, x=f"{before}mse", y=before + key.removesuffix("_loss"))


@pytest.mark.backend_free
def test_a_component_may_be_called_like_it(ax):
    moving = {"data_base_loss": [1.0], "data_base_weight": [0.5], "data_mse_weight": [0.5]}
    for logs in ({"data_base_loss": [1.0], "mse_loss": [1.0]}, {**moving, "data_mse_loss": [2.0]}):
        ax.clear()
        plots.components(logs, ax)
        assert "data_base" in ax.get_legend_handles_labels()[1]
