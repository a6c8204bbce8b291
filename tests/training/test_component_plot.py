"""The ComponentPlot callback: which pictures it writes, and what is in them."""

import sys
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.callbacks import figures
from tests.processes import run_python
from tests.training.tiny import arrays, line, sgd


def compiled(loss=None, learning_rate=0.01):
    model = line()
    model.compile(sgd(learning_rate), loss=loss or cl.CompositeLoss(["mse", "mae"]))
    return model


def fit(model, *callbacks, epochs=2, **kwargs):
    x, y = arrays()
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    saved, save = [], figures._save
    monkeypatch.setattr(figures, "_save", lambda f, path: (saved.append(f), save(f, path)))
    return saved


def curves(figure):
    """The training curves on the left: label -> (epochs, values)."""
    solid = [each for each in figure.axes[0].lines if each.get_linestyle() == "-"]
    return {each.get_label(): (list(each.get_xdata()), list(each.get_ydata())) for each in solid}


def test_one_picture_is_overwritten_and_nothing_is_left_beside_it(tmp_path, drawn):
    path = tmp_path / "new" / "folder" / "curves.png"
    history = fit(compiled(), cl.callbacks.ComponentPlot(path), epochs=3).history
    assert list(path.parent.iterdir()) == [path]
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 300 and picture.std() > 0.05
    assert [len(curves(figure)["mse"][0]) for figure in drawn] == [1, 2, 3]
    for name in ("mse", "mae"):
        epochs, values = curves(drawn[-1])[name]
        assert epochs == [1, 2, 3]
        assert values == pytest.approx(history[f"{name}_loss"], rel=1e-6)
    assert drawn[-1].axes[1].get_ylabel() == "share of the loss (%)"


@pytest.mark.parametrize(
    ("every", "epochs", "written"), [(1, 2, [1, 2]), (2, 5, [2, 4, 5]), (3, 2, [2])]
)
def test_pictures_are_numbered_from_1(tmp_path, every, epochs, written):
    path = str(tmp_path / "c_{epoch:03d}.svg")
    fit(compiled(), cl.callbacks.ComponentPlot(path, every=every), epochs=epochs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"c_{n:03d}.svg" for n in written]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("a.jpg", b"\xff\xd8")],
)
def test_the_suffix_is_the_format(tmp_path, name, start):
    fit(compiled(), cl.callbacks.ComponentPlot(tmp_path / name), epochs=1)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_an_old_picture_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half(self, path, **kwargs):
        Path(path).write_text("half")
        raise OSError("disk full")

    path = tmp_path / "curves.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        fit(compiled(), cl.callbacks.ComponentPlot(path), epochs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert path.read_text() == "old"


def test_pyplot_is_left_as_it_is(tmp_path):
    """The user's figure stays the current one. The plot works also if pyplot has no display."""
    source = """
import keras
import matplotlib.pyplot as plt
import numpy as np
import combined_losses as cl
mine = plt.figure()
plt.switch_backend = plt.new_figure_manager = None
model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
plot = cl.callbacks.ComponentPlot("a.png")
model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[plot])
print(plt.get_fignums(), plt.gcf() is mine, mine.axes)
"""
    assert run_python(source, tmp_path, MPLBACKEND="svg") == "[1] True []\n"
    assert (tmp_path / "a.png").exists()


def test_a_resumed_training_goes_on_and_a_new_one_begins_anew(tmp_path, drawn):
    model, plot = compiled(), cl.callbacks.ComponentPlot(tmp_path / "a.png")
    first = fit(model, plot, epochs=2).history["mse_loss"]
    second = fit(model, plot, epochs=4, initial_epoch=2).history["mse_loss"]
    epochs, values = curves(drawn[-1])["mse"]
    assert epochs == [1, 2, 3, 4]
    assert values == pytest.approx([*first, *second])
    third = fit(model, plot, epochs=4, initial_epoch=1).history["mse_loss"]  # epoch 2 again
    assert curves(drawn[-1])["mse"][1] == pytest.approx([*first[:1], *third])
    fit(model, plot, epochs=1)
    assert curves(drawn[-1])["mse"][0] == [1]
    fit(model, cl.callbacks.ComponentPlot(tmp_path / "b.png"), epochs=7, initial_epoch=5)
    assert curves(drawn[-1])["mse"][0] == [6, 7]


def test_validation_of_some_epochs_is_drawn_at_those(tmp_path, drawn):
    plot = cl.callbacks.ComponentPlot(tmp_path / "a.png")
    fit(compiled(), plot, epochs=5, validation_data=arrays(), validation_freq=[1, 4])
    dashed = [each for each in drawn[-1].axes[0].lines if each.get_linestyle() == "--"]
    assert [list(each.get_xdata()) for each in dashed] == [[1, 4], [1, 4]]


def test_a_weight_that_changes_later_had_its_fixed_value_before(tmp_path, drawn):
    def schedule(epoch, logs):
        if epoch == 2:
            composite.set_weight("mae", 0.0)

    composite = cl.CompositeLoss(["mse", "mae"], weights={"mae": 3.0})
    plot = cl.callbacks.ComponentPlot(tmp_path / "a.png")
    later = keras.callbacks.LambdaCallback(on_epoch_begin=schedule)
    history = fit(compiled(composite), later, plot, epochs=4).history
    area = next(each for each in drawn[-1].axes[1].collections if each.get_label() == "mse")
    vertices = area.get_paths()[0].vertices
    heights = [np.ptp(vertices[vertices[:, 0] == epoch, 1]) for epoch in (1, 2, 3, 4)]
    mse, mae = (np.array(history[f"{name}_loss"]) for name in ("mse", "mae"))
    assert heights == pytest.approx(100 * mse / (mse + np.array([3, 3, 0, 0]) * mae), rel=1e-4)


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_do_not_break_the_picture(tmp_path, drawn, bad):
    model = compiled({"mse": "mse", "bad": lambda t, p: 0 * p + bad}, learning_rate=0.0)
    model.compile(sgd(0.0), loss=cl.CompositeLoss(model.loss))
    fit(model, cl.callbacks.ComponentPlot(tmp_path / "a.png"))
    assert np.isfinite(curves(drawn[-1])["mse"][1][0])
    assert np.isnan(curves(drawn[-1])["bad"][1]).all()
    assert matplotlib.image.imread(tmp_path / "a.png").std() > 0.05


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("path", "every", "said"),
    [
        ("curves", 1, r"format that matplotlib writes: .*\.png.*'curves'"),
        ("curves.csv", 1, r"format that matplotlib writes.*'curves\.csv'"),
        ("{loss}.png", 1, r"may contain \{epoch\}.*'\{loss\}\.png'"),
        ("{.png", 1, r"may contain \{epoch\}"),
        ("{}.png", 1, r"may contain \{epoch\}"),
        ("a.png", 0, "whole number of epochs from 1.*0"),
        ("a.png", 1.5, "whole number of epochs from 1.*1.5"),
    ],
)
def test_arguments_are_checked(path, every, said):
    with pytest.raises(ValueError, match=f"{said}") as error:
        cl.callbacks.ComponentPlot(path, every=every)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("cls", [keras.Sequential, cl.Sequential])
def test_a_model_without_a_composite_is_refused_before_it_trains(tmp_path, cls):
    model = line(cls)
    model.compile(sgd(), loss="mse")
    with pytest.raises(ValueError, match=r"compile the model with a cl.CompositeLoss.*'mse'"):
        fit(model, cl.callbacks.ComponentPlot(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []


def test_a_plain_model_needs_as_metrics(tmp_path):
    composite = cl.CompositeLoss(["mse", "mae"])
    model = line(keras.Sequential)
    model.compile(sgd(), loss=composite)
    with pytest.raises(ValueError, match=r"must hold components.*cl\.track"):
        fit(model, cl.callbacks.ComponentPlot(tmp_path / "a.png"))
    model.compile(sgd(), loss=composite, weighted_metrics=composite.as_metrics())
    fit(model, cl.callbacks.ComponentPlot(tmp_path / "a.png"))
    assert (tmp_path / "a.png").exists()


@pytest.mark.backend_free
def test_the_extra_is_named_where_matplotlib_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "combined_losses\[reports\]"'):
        cl.callbacks.ComponentPlot("a.png")


def test_a_component_looks_alike_on_both_sides(tmp_path, drawn):
    from matplotlib.colors import to_rgb

    outer = cl.CompositeLoss(["huber", "log_cosh"])
    plot = cl.callbacks.ComponentPlot(tmp_path / "a.png")
    fit(compiled(cl.CompositeLoss({"mse": "mse", "outer": outer, "mae": "mae"})), plot)
    left, right = drawn[-1].axes
    lines = {each.get_label(): to_rgb(each.get_color()) for each in left.lines}
    areas = {each.get_label(): tuple(each.get_facecolor()[0][:3]) for each in right.collections}
    assert areas == {name: pytest.approx(lines[name]) for name in ("mse", "outer", "mae")}
