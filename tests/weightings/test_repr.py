"""The `repr` of rules and schedules: the call that makes them, on one line."""

import inspect

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.weightings import (
    Average,
    GramianWeighting,
    LinearRamp,
    Smoothed,
    SoftAdapt,
    UPGrad,
    Weighting,
    Worst,
)
from tests.messages import raises
from tests.weightings import gradients, rules, test_schedules

pytestmark = pytest.mark.backend_free

PLAIN = {**rules.PLAIN, **gradients.PLAIN}
ALTERED = {
    **{cls: lambda cls=cls: rules.altered(cls) for cls in rules.PLAIN},
    **{cls: lambda cls=cls: cls(**gradients.OWN[cls], **gradients.COMMON) for cls in gradients.OWN},
    **test_schedules.ALTERED,
}
every_class = pytest.mark.parametrize("cls", ALTERED, ids=lambda cls: cls.__name__)


def made_by(text):
    """What a `repr` makes where the names of `cl.weightings` are known."""
    return eval(text, vars(cl.weightings))


@every_class
def test_it_is_the_call_that_makes_it(cls):
    instance = ALTERED[cls]()
    assert "\n" not in repr(instance)
    again = made_by(repr(instance))
    assert type(again) is cls and again.get_config() == instance.get_config()


@every_class
def test_it_shows_every_argument_that_is_off_its_default(cls):
    text = repr(ALTERED[cls]())
    assert text.startswith(f"{cls.__name__}(")
    own = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "kwargs")]
    own = [name for name in own if name != "function"]
    common = inspect.signature(Weighting).parameters if issubclass(cls, Weighting) else ()
    assert all(f"{name}=" in text for name in (*own, *common))


@pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)
def test_it_shows_nothing_else(cls):
    needs_arguments = any(
        p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        for p in inspect.signature(cls).parameters.values()
    )
    assert needs_arguments == (cls is Smoothed)
    if not needs_arguments:
        assert repr(cls()) == f"{cls.__name__}()"
    assert repr(cls(*[SoftAdapt()] * needs_arguments, warmup=2)).count("=") == 1 + needs_arguments


def test_examples():
    assert repr(SoftAdapt(beta=2.0, total="k")) == "SoftAdapt(beta=2.0, total='k')"
    assert repr(Smoothed(UPGrad(), 0.5)) == "Smoothed(weighting=UPGrad(), momentum=0.5)"
    assert repr(GramianWeighting(keras.ops.diagonal)) == "GramianWeighting(function=diagonal)"
    assert repr(Worst(weights=np.ones(3))) == "Worst(weights=array([1., 1., 1.]))"
    assert repr(LinearRamp(10)) == "LinearRamp(steps=10)"


def test_long_lists_are_cut_and_equal_numbers_are_no_change():
    assert repr(Worst(weights=list(range(1000)))) == "Worst(weights=[0, 1, 2, 3, 4, 5, ...])"
    assert repr(Worst(weights=1.0, reference=0)) == "Worst()"


class Forgetful(Weighting):
    def __init__(self, speed=1, **kwargs):
        super().__init__(**kwargs)


def test_an_argument_that_is_not_stored_is_left_out():
    assert repr(Forgetful(speed=3, warmup=2)) == "Forgetful(warmup=2)"


def test_a_rule_that_belongs_to_no_composite_says_so():
    with raises(ValueError, "Average()", "`weighting=`", "`build(num_components)`", "Received:"):
        Average().fixed_weights()
