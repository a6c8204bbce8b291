"""Every argument that is a number refuses what no float32 can hold, with a clear error."""

import inspect

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.contracts.registry import CASES

pytestmark = pytest.mark.filterwarnings("ignore")

REQUIRED = {case.loss: case.required for case in CASES}
GIVEN = {
    "ClassWeighted": {"weights": [1.0, 2.0]},
    "OneHot": {"num_classes": 3},
    "OnSlice": {"index": np.s_[..., 0:1]},
    "Scaled": {"scale": 2.0},
    "Activated": {"activation": "sigmoid"},
    "OnOutput": {"output": "a"},
    "OnOutputs": {"outputs": ["a"]},
    "Smoothed": {"weighting": cl.weightings.Average()},
    "LinearRamp": {"steps": 5},
    "Sigmoid": {"steps": 5},
    "Cyclical": {"cycle": 5},
}
TOO_LARGE = {
    "1e39": 1e39,
    "-1e39": -1e39,
    "10**400": 10**400,
    "inf": float("inf"),
    "nan": float("nan"),
}
SOUND = (0.5, 1, 2, 3, -0.5)
NOT_CHECKED = {
    # These stand for "missing": nan is allowed, and any other number is only compared with.
    ("Masked", "mask_value"),
    ("Matched", "mask_value"),
    ("OneHot", "ignore_value"),
    # These are no numbers, but are not checked before the first call shows the shapes.
    ("Masked", "mask"),
    ("DeepSupervision", "outputs"),
}


def classes():
    for module in (cl.losses, cl.weightings, cl.wrappers):
        for name in module.__all__:
            cls = getattr(module, name)
            if isinstance(cls, type) and not inspect.isabstract(cls):
                yield cls


def required_of(cls):
    given = dict(REQUIRED.get(cls, GIVEN.get(cls.__name__, {})))
    if issubclass(cls, cl.wrappers.Wrapper) and "loss" in inspect.signature(cls).parameters:
        given = {"loss": "mse", **given}
    return given


def parameters_of(cls):
    found = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            found |= inspect.signature(vars(base)["__init__"]).parameters
    return [name for name in found if name not in ("self", "name", "args", "kwargs")]


def numbers():
    """`(class, argument)` of every argument that a number can be given for."""
    for cls in classes():
        given = required_of(cls)
        for name in parameters_of(cls):
            for number in SOUND:
                try:
                    cls(**{**given, name: number})
                except Exception:
                    continue
                if (cls.__name__, name) not in NOT_CHECKED:
                    yield cls, name
                break


NUMBERS = list(numbers())


@pytest.mark.backend_free
def test_there_are_such_arguments():
    assert len(NUMBERS) > 60


@pytest.mark.parametrize("cls, name", NUMBERS, ids=[f"{c.__name__}-{n}" for c, n in NUMBERS])
def test_numbers_that_cannot_be(cls, name):
    for bad in TOO_LARGE.values():
        if name == "ignore_value" and bad != bad:
            continue  # the void pixels that are NaN
        with pytest.raises(ValueError, match="Received: "):
            cls(**{**required_of(cls), name: bad})


@pytest.mark.parametrize("bad", TOO_LARGE.values(), ids=TOO_LARGE)
def test_in_a_list_of_weights(bad):
    for make in (
        lambda: cl.CompositeLoss(["mse"], weights=[bad]),
        lambda: cl.wrappers.PerChannel("mse", size=2, weights=[1.0, bad]),
        lambda: cl.wrappers.MultiScale("mse", scales=(1, 2), weights=[1.0, bad]),
        lambda: cl.wrappers.ClassWeighted("mse", [1.0, bad]),
        lambda: cl.wrappers.Scaled("mse", [1.0, bad]),
        lambda: cl.weightings.Worst(weights=[1.0, bad]),
        lambda: cl.weightings.UPGrad(preference=[1.0, bad]),
        lambda: cl.losses.CategoricalFocal(class_weight=[1.0, bad]),
        lambda: 2.0 * cl.as_loss("mse") * bad,
        lambda: cl.as_loss("mse") / bad,
        lambda: cl.as_loss("mse") / 1e-300,
    ):
        with pytest.raises(ValueError, match="Received: "):
            make()


@pytest.mark.parametrize("bad", TOO_LARGE.values(), ids=TOO_LARGE)
def test_in_loss_weights(bad):
    for weights in (bad, [bad], {"head": bad}):
        model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
        with pytest.raises(ValueError, match="`loss_weights` must be a finite number"):
            model.compile("sgd", loss=cl.CompositeLoss(["mse"]), loss_weights=weights)
