"""What a `Diagnosis` shows: table, data frame, figure, page."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.messages import raises
from tests.training.tiny import arrays, line


def upwards(y_true, y_pred):
    return -ops.mean(y_pred, axis=-1)


def downwards(y_true, y_pred):
    return ops.mean(y_pred, axis=-1)


def detached(y_true, y_pred):
    return ops.mean(ops.square(ops.stop_gradient(y_pred)), axis=-1)


LONG = "a component with a <long> & unusual name"


@pytest.fixture(scope="module")
def sick():
    """A diagnosis with faults of three components, one of them nested, and a name to be escaped."""
    inner = cl.CompositeLoss({"mse": "mse", "mae": "mae"})
    losses = {"up": upwards, LONG: downwards, "nested": inner, "detached": detached}
    model = line(outputs=2)
    model.compile("sgd", loss=cl.CompositeLoss(losses, weights={"nested": 0.01}))
    x, y = arrays(32, outputs=2)
    return cl.diagnose(model, x, y)


@pytest.fixture(scope="module")
def healthy():
    model = line(outputs=2)
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse"}))
    x, y = arrays(1, outputs=2)
    return cl.diagnose(model, x, y)


def test_the_table_has_a_row_for_each_component(sick):
    lines = str(sick).splitlines()
    assert re.search(r": loss \S+ on 32 samples in 1 batch, gradients at the output", lines[0])
    rows = [line.split("│") for line in lines if line.startswith("│")]
    names = [row[1].rstrip() for row in rows if row[2].strip()]
    # A name that is too long is folded, not cut.
    assert [names[0], *names[2:]] == [
        " up",
        " nested",
        "   nested/mse",
        "   nested/mae",
        " detached",
    ]
    assert "".join(row[1].strip() + " " for row in rows[1:3]).strip().startswith("a component")
    assert all(len(line) <= 100 for line in lines)


def test_the_table_says_what_is_wrong_and_what_to_do(sick):
    text = " ".join(str(sick).split())
    assert "conflicts: what one gains the other loses" in text
    assert f"up: it pulls against '{LONG}' (cosine -1.00)" in text
    assert "detached: its value changes with the predictions, its gradient is 0 everywhere." in text
    assert "Gradients equally long: weights={'up': 1" in text
    assert "Nothing is wrong." not in text
    assert repr(sick).startswith("<Diagnosis of 'sequential")
    assert "up: conflicts; " not in repr(sick) and "detached: no gradient" in repr(sick)


def test_the_table_of_one_healthy_component(healthy):
    text = str(healthy)
    assert "1 sample in 1 batch" in text
    assert text.rstrip().endswith("Nothing is wrong.")  # and no proposal for a single weight
    assert repr(healthy).endswith("nothing is wrong>")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0 %"), (1e-9, "<0.1 %"), (0.5, "50.0 %"), (0.99999, ">99.9 %"), (1.0, "100.0 %")],
)
@pytest.mark.backend_free
def test_percentages_do_not_round_to_none_or_all(share, shown):
    from combined_losses.diagnosis.tables import percent

    assert percent(share) == shown
    assert percent(float("nan")) == "–"


def test_data_frame(sick):
    frame = sick.to_frame()
    assert list(frame.index) == list(sick.names)
    assert frame.index.name == "component"
    assert list(frame.columns) == [
        *("value", "rows", "weight", "share", "gradient_norm", "gradient_share"),
        *("min_cosine", "mean_cosine", "proposed_weight", "flags"),
    ]
    assert frame.loc["nested/mae", "value"] == sick["nested/mae"].value
    assert frame.loc["detached", "flags"] == "no gradient"
    assert frame.loc["nested", "flags"] == ""
    assert frame["value"].dtype == "float64"


def texts_inside(figure):
    """Every text of a figure, and whether it lies within the picture."""
    figure.canvas.draw()
    size = figure.bbox
    texts = [t for t in figure.findobj(match=lambda a: hasattr(a, "get_text")) if t.get_text()]
    texts = [t for t in texts if t.get_visible()]
    for text in texts:
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= size.x1 + 1 and box.y1 <= size.y1 + 1
        yield text.get_text(), inside


def test_figure(sick):
    figure = sick.plot()
    bars, squares = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()][2:] == list(sick.names[2:])
    of_loss, of_gradient = (container.patches for container in bars.containers)
    for patches, what in ((of_loss, "share"), (of_gradient, "gradient_share")):
        shown = [bar.get_width() for bar in patches]
        np.testing.assert_allclose(shown, [100 * getattr(part, what) for part in sick])
    # Whole components alone: parts are compared among themselves.
    assert squares.images[0].get_array().shape == (4, 4)
    written = [text.get_text() for text in squares.texts]
    assert written[:4] == ["+1.00", "-1.00", *written[2:4]]
    assert written[-1] == "–"
    assert [t for t, inside in texts_inside(figure) if not inside] == []


@pytest.mark.fast
def test_conflicts(sick):
    ax = cl.plots.conflicts(sick)
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.isnan(sick.cosines))
    assert shown[0, 1] == pytest.approx(-1.0, abs=1e-5)
    assert [t for t, inside in texts_inside(ax.figure) if not inside] == []
    with raises(ValueError, "what cl.diagnose returned", "Received: 3"):
        cl.plots.conflicts(3)
    with raises(ValueError, "at least one measurement"):
        cl.plots.conflicts(cl.callbacks.GradientConflict())


class Page(HTMLParser):
    """Text and attributes of a page; every element that is opened is closed."""

    VOID = ("meta", "br", "link", "img", "hr")

    def __init__(self, source):
        super().__init__()
        self.open, self.text, self.links = [], [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_one_file_and_escapes_names(sick):
    source = sick.to_html()
    page = Page(source)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "url(http" not in source and "@import" not in source
    text = "".join(page.text)
    assert LONG in text and LONG not in source
    assert "no gradient" in text and "weights={" in text
    assert source.count("<svg") == 1


def test_notebooks_show_the_table(sick, healthy):
    source = sick._repr_html_()
    assert not Page(source).links
    assert source.count("<tr>") == 1 + len(sick)
    assert "Nothing is wrong." in healthy._repr_html_()
