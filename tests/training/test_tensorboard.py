"""The TensorBoard callback: what it writes, and what a person sees of it in a browser."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.browser import SECONDS, open_browser
from tests.training.tiny import arrays, line, sgd, two_heads

pytest.importorskip("tensorflow")
reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

from tensorboard.plugins.custom_scalar import layout_pb2  # noqa: E402
from tensorboard.util.tensor_util import make_ndarray  # noqa: E402

LAYOUT = "custom_scalars__config__"


def nested(**kwargs):
    outer = cl.CompositeLoss({"huber": "huber", "log_cosh": "log_cosh"})
    return cl.CompositeLoss({"mse": "mse", "mae": "mae", "outer": outer}, **kwargs)


def compiled(loss):
    model = line()
    model.compile(sgd(), loss=loss)
    return model


def fitted(model, folder, *callbacks, epochs=2, validation=True, board=None, outputs=None):
    x, y = arrays()
    y = y if outputs is None else [y] * outputs
    board = board or cl.callbacks.TensorBoard(folder, write_graph=False)
    data = {"validation_data": (x, y)} if validation else {}
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=[*callbacks, board], **data)


def events(folder, run):
    found = reader.EventAccumulator(str(folder / run))
    found.Reload()
    return found


def layout(folder):
    """The charts that TensorBoard shows: {composite: {title: tags in it}}."""
    found = events(folder, "train")
    content = make_ndarray(found.Tensors(LAYOUT)[-1].tensor_proto).item()
    tags = found.Tags()["tensors"]
    return {
        category.title: {
            chart.title: sorted(tag for tag in tags if re.match(chart.multiline.tag[0], tag))
            for chart in category.chart
        }
        for category in layout_pb2.Layout.FromString(content).category
    }


@pytest.mark.fast
def test_one_chart_has_all_components(tmp_path):
    fitted(compiled(nested()), tmp_path)
    assert layout(tmp_path) == {
        "composite_loss": {
            "components: mse, mae, outer": ["epoch_mae_loss", "epoch_mse_loss", "epoch_outer_loss"],
            "outer: huber, log_cosh": ["epoch_outer/huber_loss", "epoch_outer/log_cosh_loss"],
        }
    }


def test_all_else_is_as_keras_writes_it(tmp_path):
    for name, cls in (("ours", cl.callbacks.TensorBoard), ("keras", keras.callbacks.TensorBoard)):
        keras.utils.clear_session()  # the layers get the same names
        keras.utils.set_random_seed(0)
        board = cls(tmp_path / name, 1, write_graph=False, update_freq=1)
        fitted(compiled(nested()), None, board=board)
    for run in ("train", "validation"):
        ours, theirs = (events(tmp_path / name, run) for name in ("ours", "keras"))
        tags = theirs.Tags()["tensors"]
        assert set(ours.Tags()["tensors"]) - set(tags) == ({LAYOUT} if run == "train" else set())
        assert any(tag.startswith("batch_") for tag in tags) == (run == "train")
        for tag in tags:
            mine, other = (
                [(e.step, e.tensor_proto) for e in r.Tensors(tag)] for r in (ours, theirs)
            )
            assert [step for step, _ in mine] == [step for step, _ in other]
            if tag.startswith("epoch_"):
                values = [[make_ndarray(proto) for _, proto in each] for each in (mine, other)]
                np.testing.assert_allclose(*values, rtol=1e-6)
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["train", "validation"]


def test_weights_have_a_chart_where_they_change(tmp_path):
    composite = nested(weights={"mae": cl.weightings.LinearRamp(10)})
    fitted(compiled(composite), tmp_path)
    assert layout(tmp_path)["composite_loss"]["weights: mae"] == ["epoch_mae_weight"]


def test_weights_that_change_later_get_into_the_chart(tmp_path):
    def schedule(epoch, logs):
        if epoch == 2:
            composite.set_weight("mae", 0.5)

    composite = nested()
    later = keras.callbacks.LambdaCallback(on_epoch_begin=schedule)
    fitted(compiled(composite), tmp_path, later, epochs=4)
    assert layout(tmp_path)["composite_loss"]["weights: mae"] == ["epoch_mae_weight"]
    assert [event.step for event in events(tmp_path, "train").Tensors("epoch_mae_weight")] == [2, 3]
    assert len(events(tmp_path, "train").Tensors(LAYOUT)) == 2  # none where nothing is new


def test_each_output_has_its_charts(tmp_path):
    model = two_heads()
    model.compile(sgd(), loss={"a": nested(), "b": cl.CompositeLoss(["mse", "mae"], name="b_sum")})
    fitted(model, tmp_path, outputs=2)
    assert layout(tmp_path) == {
        "composite_loss (a)": {
            "components: mse, mae, outer": [
                "epoch_a_mae_loss",
                "epoch_a_mse_loss",
                "epoch_a_outer_loss",
            ],
            "outer: huber, log_cosh": ["epoch_a_outer/huber_loss", "epoch_a_outer/log_cosh_loss"],
        },
        "b_sum (b)": {"components: mse, mae": ["epoch_b_mae_loss", "epoch_b_mse_loss"]},
    }


class Subclassed(cl.ComponentMetricsMixin, keras.Model):
    """Its outputs are not known before the first batch."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model_has_its_chart(tmp_path):
    model = Subclassed()
    model.compile(sgd(), loss=cl.CompositeLoss(["mse", "mae"]))
    fitted(model, tmp_path, validation=False)
    charts = layout(tmp_path)["composite_loss"]
    assert charts == {"components: mse, mae": ["epoch_mae_loss", "epoch_mse_loss"]}


def test_a_plain_model_has_a_chart_of_what_it_reports(tmp_path):
    composite = cl.CompositeLoss(["mse", "mae"])
    for name, metrics in (("with", composite.as_metrics()), ("without", None)):
        model = line(keras.Sequential)
        model.compile(sgd(), loss=composite, weighted_metrics=metrics)
        fitted(model, tmp_path / name)
    charts = {"components: mse, mae": ["epoch_mae_loss", "epoch_mse_loss"]}
    assert layout(tmp_path / "with") == {"composite_loss": charts}
    assert LAYOUT not in events(tmp_path / "without", "train").Tags()["tensors"]


@pytest.mark.parametrize("cls", [keras.Sequential, cl.Sequential])
def test_a_model_without_a_composite_is_as_with_keras(tmp_path, cls):
    model = line(cls)
    model.compile(sgd(), loss="mse")
    fitted(model, tmp_path)
    tags = events(tmp_path, "train").Tags()["tensors"]
    assert "epoch_loss" in tags and LAYOUT not in tags


def test_names_are_taken_as_they_are_and_many_are_cut_in_the_title(tmp_path):
    names = ["a+b", "(c", "x" * 60, *(f"part{i}" for i in range(30))]
    fitted(compiled(cl.CompositeLoss(dict.fromkeys(names, "mse"))), tmp_path)
    ((title, tags),) = layout(tmp_path)["composite_loss"].items()
    assert title == "components: a+b, (c, …"
    assert tags == sorted(f"epoch_{name}_loss" for name in names)


def test_a_second_training_adds_to_the_same_folder(tmp_path):
    model = compiled(nested())
    board = cl.callbacks.TensorBoard(tmp_path, write_graph=False)
    fitted(model, None, board=board)
    x, y = arrays()
    model.fit(x, y, initial_epoch=2, epochs=4, verbose=0, callbacks=[board])
    assert len(layout(tmp_path)["composite_loss"]) == 2
    assert [event.step for event in events(tmp_path, "train").Tensors("epoch_mse_loss")] == [
        *range(4)
    ]


# The browser.

# Every element, also in shadow roots; then what each chart shows: title, legend, number of lines.
READ_CHARTS = """
const all = (root) => [...root.querySelectorAll('*')].flatMap(
    (element) => [element, ...(element.shadowRoot ? all(element.shadowRoot) : [])]);
const has = (name) => (element) => element.localName === name;
return all(document).filter(has('tf-custom-scalar-multi-line-chart-card')).map((card) => {
  const inside = all(card.shadowRoot || card);
  const button = inside.filter((e) => e.classList.contains('toggle-matches-button'));
  if (inside.some((e) => e.classList.contains('iron-collapse-closed'))) button[0]?.click();
  const legend = inside.filter((e) => e.classList.contains('match-list-entry') && e.innerText);
  return {
    title: inside.filter(has('tf-card-heading')).map((e) => e.displayName || e.textContent).join(),
    legend: legend.map((entry) => entry.innerText.replace(/\\s+/g, ' ').trim()),
    lines: inside.filter((e) => has('path')(e) && e.classList.contains('line')
        && e.getAttribute('d')).length,
  };
});
"""


@pytest.fixture
def driver(tmp_path):
    with open_browser(tmp_path / "browser") as driver:
        yield driver


@pytest.fixture
def wait(driver):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, SECONDS, poll_frequency=0.3)


@pytest.fixture
def tensorboard(tmp_path, wait):
    """TensorBoard on `tmp_path / "logs"`: its address."""
    output = tmp_path / "tensorboard.txt"
    flags = ["--logdir", str(tmp_path / "logs"), "--host", "127.0.0.1", "--port", "0"]
    with output.open("w") as file:
        command = [sys.executable, "-m", "tensorboard.main", *flags]
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        said = wait.until(
            lambda _: process.poll() or re.search(r"http://\S+", output.read_text()),
            "TensorBoard does not say where it is",
        )
        assert process.poll() is None, output.read_text()
        yield said[0]
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.mark.browser
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="once is enough")
def test_a_person_sees_the_components_in_one_chart(tmp_path, driver, wait, request):
    composite = nested()
    later = cl.callbacks.LossWeightScheduler("mae", lambda epoch, weight: 0.5**epoch)
    fitted(compiled(composite), tmp_path / "logs", later, epochs=4)
    driver.get(request.getfixturevalue("tensorboard"))
    tab = ("css selector", "[data-plugin-id=custom_scalars]")
    wait.until(lambda _: driver.find_elements(*tab), "no tab Custom Scalars")[0].click()

    def drawn(_):
        charts = driver.execute_script(READ_CHARTS)
        whole = all(chart["legend"] and chart["lines"] for chart in charts)
        return charts if len(charts) == 3 and whole else False

    charts = {chart["title"].strip(): chart for chart in wait.until(drawn, "no charts")}
    expected = {
        "components: mse, mae, outer": ["mse_loss", "mae_loss", "outer_loss"],
        "outer: huber, log_cosh": ["outer/huber_loss", "outer/log_cosh_loss"],
        "weights: mae": ["mae_weight"],
    }
    assert charts.keys() == expected.keys()
    for title, keys in expected.items():
        legend = " ".join(charts[title]["legend"])
        for key in keys:
            assert all(f"epoch_{key} ({run})" in legend for run in ("train", "validation")), legend
        assert charts[title]["lines"] >= 2 * len(keys)
