"""Numbers of every size as arguments: refused with a reason, or the weights are numbers."""

import itertools

import numpy as np
import pytest
from keras import ops

from combined_losses.weightings import (
    Cyclical,
    GradientNormBalance,
    InverseGradientNorm,
    LinearRamp,
    MagnitudeBalance,
    NashMTL,
    Sigmoid,
    SoftAdapt,
    Worst,
)
from tests.weightings import gradients, rules

EXTREMES = [
    *(1e30, 3e38, 1e300, 1e-30, 1e-300, 10**30, 10**400, 2**63, 1e6, 1e-6, 0),
    *(-1.0, -1e30, -3e38, -(10**30), -(10**400)),
]
OWN = {**rules.OWN, **gradients.OWN}
ARGUMENTS = [
    (cls, name)
    for cls, own in OWN.items()
    for name, value in own.items()
    if isinstance(value, (int, float)) and not isinstance(value, bool)
]
# What all have from their base, of some of every sort.
ARGUMENTS += [
    (cls, name)
    for cls in (MagnitudeBalance, Worst, InverseGradientNorm, NashMTL)
    for name in ("update_every", "warmup", "min_weight", "max_weight", "total")
]
LISTS = [
    (cls, name)
    for cls, own in OWN.items()
    for name, value in own.items()
    if isinstance(value, (list, tuple)) and not isinstance(value[0], str)
]
VALUES = rules.losses(steps=2)
ROWS = gradients.samples("plain", 3, 2)


def is_refused(cls, name, value):
    """Whether it is refused by name, with what was given."""
    try:
        made(cls, name, value)
    except ValueError as error:
        assert f"`{name}`" in str(error) and "Received: " in str(error)
        return True
    return False


def made(cls, name, value):
    more = {"loss_weighted": True, "normalized": True} if cls is SoftAdapt else {}
    if cls is Worst and name != "temperature":
        more["temperature"] = 0.5
    if cls is GradientNormBalance:
        more["mode"] = "mean_ref"
        more["reference"] = 1
    table = gradients if cls in gradients.PLAIN else rules
    return table.PLAIN[cls](**{**more, name: value})


def numbers_of(rule):
    """Weights, terms and state of two steps."""
    rule.build(3)
    found = []
    for values, rows in zip(VALUES, ROWS, strict=True):
        given = ops.convert_to_tensor(values)
        rows = ops.convert_to_tensor(rows.astype("float32"))
        weights = rule.weigh(values=given, rows=rows if rule.needs & {"gramian", "rows"} else None)
        found += [weights, ops.convert_to_tensor(rule.offset(given, weights), dtype="float32")]
    return [ops.convert_to_numpy(x) for x in (*found, *(v.value for v in rule.variables))]


def assert_numbers(rule):
    for array in numbers_of(rule):
        assert np.all(np.isfinite(array)), array


def each(arguments):
    return pytest.mark.parametrize(
        "cls, name", arguments, ids=lambda each: getattr(each, "__name__", each)
    )


@each(ARGUMENTS)
def test_a_number_of_any_size_is_refused_or_gives_numbers(cls, name):
    for value in EXTREMES:
        if not is_refused(cls, name, value):
            assert_numbers(made(cls, name, value))


@each(LISTS)
def test_a_list_with_a_number_of_any_size_is_refused_or_gives_numbers(cls, name):
    for value in EXTREMES:
        for given in ([value, 1.0, 2.0], [value] * 3):
            if not is_refused(cls, name, given):
                assert_numbers(made(cls, name, given))


# Schedules.

SCHEDULES = {
    LinearRamp: {"steps": 10, "start": 0.0, "end": 1.0, "delay": 0},
    Sigmoid: {"steps": 10, "start": 0.0, "end": 1.0, "midpoint": 5},
    Cyclical: {"cycle": 10, "ratio": 0.5, "start": 0.0, "end": 1.0, "cycles": 3},
}


@pytest.mark.parametrize("cls", SCHEDULES, ids=lambda cls: cls.__name__)
def test_a_schedule_of_any_numbers_gives_numbers(cls):
    assert set(SCHEDULES) == rules.SCHEDULE_CLASSES
    for name, value in itertools.product(SCHEDULES[cls], EXTREMES):
        for other in ({}, {"end": -3e38}, {"start": 3e38}):
            try:
                schedule = cls(**{**SCHEDULES[cls], **other, name: value})
            except ValueError as error:
                assert f"`{name}`" in str(error) and "Received: " in str(error)
                continue
            for step in (0, 3, 10, 1000):
                found = ops.convert_to_numpy(schedule(ops.convert_to_tensor(step, "int32")))
                assert np.isfinite(found), (name, value, other, step)
