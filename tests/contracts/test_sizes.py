"""A small file cannot ask for gigabytes or hours, and a config that lacks a key names it."""

import inspect
import json

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.config import read_entry
from tests.contracts.registry import CASES
from tests.messages import raises

TOO_MANY = {
    "elements": lambda: cl.wrappers.PerElement("mse", size=[100_000, 100_000]),
    "channels": lambda: cl.wrappers.PerChannel("mse", size=10**9),
    "names": lambda: cl.wrappers.PerChannel("mse", names=["a"] * 10**6),
    "axes": lambda: cl.losses.BoundaryDisagreement(axes=[1] * 10**6),
    "scales": lambda: cl.wrappers.MultiScale("mse", scales=range(1, 10**6)),
    "a tuple of scales": lambda: cl.wrappers.MultiScale("mse", tuple(range(1, 10**6))),
    "classes": lambda: cl.losses.CategoricalFocal(class_weight=[1.0] * 10**6),
    "quantiles": lambda: cl.losses.Pinball([0.5] * 10**6),
    "weights": lambda: cl.CompositeLoss(["mse"], weights=[1.0] * 10**6),
    "losses": lambda: cl.CompositeLoss(["mse"] * 10**6),
    "a dict of losses": lambda: cl.CompositeLoss(dict.fromkeys(map(str, range(10**6)), "mse")),
    "preferences": lambda: cl.weightings.UPGrad(preference=[1.0] * 10**6),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("make", TOO_MANY.values(), ids=TOO_MANY)
def test_more_than_anybody_needs(make):
    with pytest.raises(ValueError, match="Received: "):
        make()


LOADED = {
    "elements": (cl.wrappers.PerElement, {"size": [100_000, 100_000], "loss": "mse"}),
    "channels": (cl.wrappers.PerChannel, {"size": 10**9, "loss": "mse"}),
    "axes": (cl.losses.BoundaryDisagreement, {"axes": [1] * 10**6}),
}


@pytest.mark.parametrize("cls, config", LOADED.values(), ids=LOADED)
def test_also_from_a_config(cls, config):
    with raises(ValueError, cls.__name__, "at most 100,000 entries", "Received: "):
        cls.from_config(config)


def test_ten_thousand_components_of_one_name():
    loss = cl.CompositeLoss(["mse"] * 10_000)
    again = cl.CompositeLoss.from_config(loss.get_config())
    assert again.names[-1] == "mse_10000"


CONFIGURED = [case.make() for case in CASES] + [
    cl.CompositeLoss(["mse"]),
    cl.wrappers.OnSlice("mse", np.s_[..., 0:1]),
    cl.wrappers.Scaled("mse", 2.0),
    cl.wrappers.OneHot("mse", 3),
    cl.wrappers.OnOutput("mse", "a"),
    cl.wrappers.ClassWeighted("mse", [1.0, 2.0]),
    cl.wrappers.Activated("mse", "sigmoid"),
    cl.weightings.Smoothed(cl.weightings.Average()),
]


@pytest.mark.parametrize("loss", CONFIGURED, ids=lambda loss: type(loss).__name__)
def test_a_config_with_a_missing_or_strange_key(loss):
    cls, config = type(loss), loss.get_config()
    required = [
        name
        for name, p in inspect.signature(cls).parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    for key in required:
        short = {name: value for name, value in config.items() if name != key}
        with raises(ValueError, cls.__name__, f"lacks '{key}'", "Received: "):
            cls.from_config(short)
    with raises(ValueError, cls.__name__, "'strange'", "Received: "):
        cls.from_config({**config, "strange": 1})
    with raises(ValueError, cls.__name__, "must be a dict"):
        cls.from_config([1, 2])
    assert isinstance(cls.from_config(config), cls)
    assert keras.saving.serialize_keras_object(loss)["config"].keys() == config.keys()


def nested(wrap, levels=200):
    loss = "mse"
    for _ in range(levels):
        loss = wrap(loss)
    return loss


DEEP = {
    "composites": lambda loss: cl.CompositeLoss({"a": loss}),
    "wrappers": lambda loss: cl.wrappers.Scaled(loss, 1.0),
    "both": lambda loss: cl.wrappers.Scaled(cl.CompositeLoss({"a": loss}), 1.0),
}


@pytest.mark.parametrize("kind", DEEP)
def test_two_hundred_nested_levels(kind):
    """Python by itself stops at 1,000 calls."""
    loss = nested(DEEP[kind], 100 if kind == "both" else 200)
    y_true, y_pred = np.zeros((2, 2), "float32"), np.ones((2, 2), "float32")
    assert float(loss(y_true, y_pred)) == 1.0
    again = type(loss).from_config(loss.get_config())
    assert float(again(y_true, y_pred)) == 1.0
    if kind == "composites":
        assert len(again.component_names) == 200
        again.set_weight("/".join("a" * 200), 3.0)
        assert float(again(y_true, y_pred)) == 3.0


def test_two_hundred_nested_levels_are_trained():
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=nested(DEEP["composites"]))
    x = np.ones((4, 2), "float32")
    logs = model.fit(x, x, verbose=0).history
    assert len(logs) == 201
    assert len(set(np.round([values[0] for values in logs.values()], 5))) == 1


@pytest.mark.parametrize("kind", ["composites", "wrappers"])
def test_two_hundred_nested_levels_come_back_from_a_file(kind, tmp_path):
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": nested(DEEP[kind])}))
    x = np.ones((4, 2), "float32")
    before = model.evaluate(x, x, verbose=0)
    model.save(tmp_path / "deep.keras")
    after = keras.models.load_model(tmp_path / "deep.keras").evaluate(x, x, verbose=0)
    assert after == pytest.approx(before, rel=1e-5)


def test_a_long_list_anywhere_in_a_config_is_refused():
    """Keras reads stored lists one entry at a time, in Python."""
    config = cl.CompositeLoss(["mse", "mae"], [1.0, 2.0]).get_config()
    config["weights"] = [1.0, [1.0] * 10**6]
    with raises(ValueError, "'weights' of the config of CompositeLoss", "at most 100,000 entries"):
        cl.CompositeLoss.from_config(config)


@pytest.mark.parametrize("dtype", ["int32", "nope", 3.5, {"a": 1}, float("inf")])
@pytest.mark.parametrize("cls", [cl.CompositeLoss, cl.losses.Dice, cl.wrappers.Masked])
def test_a_dtype_that_is_none(cls, dtype):
    given = () if cls is cl.losses.Dice else ("mse",) if cls is cl.wrappers.Masked else (["mse"],)
    with raises(ValueError, f"The `dtype` of {cls.__name__} '", "float32", "Received: dtype="):
        cls(*given, dtype=dtype)


@pytest.mark.parametrize(
    "schedule",
    [
        cl.weightings.LinearRamp(10, end=10**30),
        cl.weightings.Sigmoid(10, end=10**30),
        cl.weightings.Cyclical(10, end=10**30),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_of_large_whole_numbers(schedule):
    """Above 2**63 a backend takes no whole number."""
    loss = cl.CompositeLoss(["mse"], [schedule])
    assert float(schedule(1009)) == pytest.approx(1e30, rel=1e-5)
    assert np.isfinite(loss.weight_of("mse"))


@pytest.mark.backend_free
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", ">f4"])
def test_a_long_array_is_stored_as_text(dtype):
    numbers = np.arange(200_002).astype("uint8").astype(dtype).reshape(2, -1)
    loss = cl.losses.TreeCrossEntropy(levels=[[0, 0, 1]])
    loss.levels = numbers
    text = loss.get_config()["levels"]
    assert isinstance(json.loads(json.dumps(text))["packed"], str)
    again = read_entry(cl.losses.TreeCrossEntropy, "levels", text)
    np.testing.assert_array_equal(again, numbers)
    assert again.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "change",
    [
        {"packed": "AAAA"},
        {"packed": "?"},
        {"packed": 3},
        {"dtype": "O"},
        {"dtype": 1},
        {"shape": 7},
    ],
    ids=repr,
)
def test_a_changed_text_of_an_array_is_an_error(change):
    stored = {"packed": "AACAPwAAAEA=", "dtype": "<f4", "shape": [2]}
    cls = cl.losses.InBatchSoftmax
    assert list(cls.from_config({"log_q": stored}).log_q) == [1.0, 2.0]
    with raises(ValueError, "'log_q' of the config of InBatchSoftmax cannot be read"):
        cls.from_config({"log_q": {**stored, **change}})
