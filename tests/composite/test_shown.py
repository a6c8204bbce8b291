"""How losses show themselves: on one line, and composites as a table in a notebook."""

import html
import re

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.contracts.registry import CASES


def under(y_true, y_pred):
    return keras.ops.relu(y_true - y_pred)


@pytest.mark.parametrize(
    "make, shown",
    [
        (lambda: cl.as_loss("mse"), "as_loss('mse')"),
        (lambda: cl.as_loss(under), "as_loss(under)"),
        (lambda: cl.losses.Dice(), "Dice()"),
        (
            lambda: cl.losses.Dice(2.0, from_logits=True, name="d", dtype="float64"),
            "Dice(smooth=2.0, from_logits=True, name='d', dtype='float64')",
        ),
        (
            lambda: cl.losses.Expectile(0.9, reduction="sum"),
            "Expectile(expectile=0.9, reduction='sum')",
        ),
        (
            lambda: cl.losses.Pinball([0.1, 0.9], parts=True),
            "Pinball(quantile=[0.1, 0.9], parts=True)",
        ),
        (lambda: cl.wrappers.Masked("mse", -1.0), "Masked('mse', mask_value=-1.0)"),
        (
            lambda: cl.wrappers.Masked(cl.wrappers.StopGradient(under, name="s"), reduction="sum"),
            "Masked(StopGradient(under, name='s'), reduction='sum')",
        ),
        (
            lambda: cl.wrappers.PerChannel(["mse", keras.losses.Huber(5.0)], names=["u", "v"]),
            "PerChannel(['mse', Huber(delta=5.0)], names=['u', 'v'])",
        ),
        (
            lambda: cl.wrappers.Scaled("mse", np.arange(1.0, 9.0)),
            "Scaled('mse', scale=array([1., 2...., 6., 7., 8.]))",
        ),
        (lambda: cl.wrappers.OnInputs(of_model), "OnInputs(function=of_model)"),
        (lambda: cl.wrappers.OnInputs(of_model, name="a"), "OnInputs(function=of_model, name='a')"),
        (
            lambda: cl.wrappers.Scaled(keras.losses.Huber(5.0), 10.0),
            "Scaled(Huber(delta=5.0), scale=10.0)",
        ),
    ],
)
def test_a_loss_is_the_call_that_makes_it(make, shown):
    assert repr(make()) == shown


def of_model(model, x, y, y_pred):
    return y_pred


@pytest.mark.parametrize(
    "make, shown",
    [
        (lambda: cl.CompositeLoss(["mse", "mae"]), "CompositeLoss({'mse': 'mse', 'mae': 'mae'})"),
        (
            lambda: cl.CompositeLoss(
                {"mse": "mse", "under": cl.losses.UnderestimationPenalty(weight=1.0)},
                weights={"under": 0.5},
            ),
            "CompositeLoss({'mse': 'mse', 'under': UnderestimationPenalty(weight=1.0)}, "
            "weights={'under': 0.5})",
        ),
        (
            lambda: cl.CompositeLoss([under], reduction="sum", name="a", on_nonfinite="skip"),
            "CompositeLoss({'under': under}, reduction='sum', name='a', on_nonfinite='skip')",
        ),
        (
            lambda: 0.5 * cl.as_loss("mse") + keras.losses.Huber(),
            "CompositeLoss({'mse': 'mse', 'huber': Huber()}, weights={'mse': 0.5})",
        ),
        (
            lambda: cl.CompositeLoss({"a": cl.CompositeLoss(["mse"]), "b": "mae"}, [2, 1]),
            "CompositeLoss({'a': CompositeLoss({'mse': 'mse'}), 'b': 'mae'}, weights={'a': 2.0})",
        ),
        (
            lambda: cl.CompositeLoss(["mse", "mae"], {"mae": cl.weightings.LinearRamp(9)}),
            "CompositeLoss({'mse': 'mse', 'mae': 'mae'}, weights={'mae': LinearRamp(steps=9)})",
        ),
        (
            lambda: cl.CompositeLoss(["mse"], weighting=cl.weightings.Average(total="k")),
            "CompositeLoss({'mse': 'mse'}, weighting=Average(total='k'))",
        ),
    ],
)
def test_a_composite_shows_names_losses_and_weights(make, shown):
    assert repr(make()) == shown


def test_it_shows_the_weights_of_now():
    loss = cl.CompositeLoss(["mse", "mae"], {"mse": 2.0})
    loss.set_weight("mse", 1.0)
    loss.set_weight("mae", 0.25)
    assert repr(loss) == "CompositeLoss({'mse': 'mse', 'mae': 'mae'}, weights={'mae': 0.25})"


def test_of_many_components_the_first_are_shown():
    loss = cl.CompositeLoss({f"a{i}": "mse" for i in range(1_000)}, [2.0] * 1_000)
    assert repr(loss).count("… 980 more") == 2 and len(repr(loss)) < 1_000
    assert loss._repr_html_().count("<tr>") == 202  # the head, 200 components, how many more


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_every_loss_shows_each_argument_on_one_line(case):
    shown = repr(case.make(**case.arguments))
    parts_at_default = {"parts"} if case.loss is cl.losses.Pinball else set()
    given = {*case.required, *case.arguments} - parts_at_default
    assert {name for name in given if f"{name}=" not in shown} == set()
    assert re.fullmatch(rf"{case.loss.__name__}\(.*\)", shown) and " at 0x" not in shown


def cells(table):
    """The texts of the rows of a table, and how far the first cell of each is indented."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", table)
    texts = [re.findall(r"<td[^>]*>(?:<code>)?(.*?)(?:</code>)?</td>", row) for row in rows]
    indents = [float(found) for found in re.findall(r"padding-left: ([\d.]+)em", table)]
    return [(*map(html.unescape, row), indent) for row, indent in zip(texts, indents, strict=True)]


def test_table_shows_what_is_nested():
    inner = cl.CompositeLoss({"a": "mse", "b": under}, {"b": 0.5})
    wrapped = cl.wrappers.OnSlice(cl.CompositeLoss(["mae"]), np.s_[:, 0])
    loss = cl.CompositeLoss({"first": "mse", "inner": inner, "view": wrapped}, {"inner": 2.0})
    assert cells(loss._repr_html_()) == [
        ("first", "'mse'", "1.0", 0.8),
        ("inner", "CompositeLoss", "2.0", 0.8),
        ("a", "'mse'", "1.0", 2.2),
        ("b", "under", "0.5", 2.2),
        ("view", "OnSlice(…, index=(slice(None, None, None), 0))", "1.0", 0.8),
        ("mae", "'mae'", "1.0", 2.2),
    ]


def test_table_is_escaped():
    def evil(y_true, y_pred):
        return y_pred

    evil.__name__ = "<script>alert('&')</script>"
    rule = cl.weightings.Average()
    loss = cl.CompositeLoss({"<u>&": evil, 'a"b': "mse"}, weighting=rule, name="<i>x</i>")
    table = loss._repr_html_()
    assert "<script>" not in table and "<u>&" not in table and "<i>" not in table
    assert cells(table)[0][:2] == ("<u>&", "<script>alert('&')</script>")
    assert "weights by Average()" in table
