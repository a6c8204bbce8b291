"""Values in other units: all times s, each times its own s, from 1e-10 to 1e10."""

import numpy as np
import pytest

from combined_losses.weightings import (
    FAMO,
    Average,
    CoVWeighting,
    DynamicWeightAverage,
    GeometricMean,
    MagnitudeBalance,
    RandomWeighting,
    ReLoBRaLo,
    Smoothed,
    SoftAdapt,
    UncertaintyWeighting,
    Worst,
)
from tests.weightings.rules import RULE_CLASSES, close, losses, run

SCALES = [1e-10, 1e-6, 1e-3, 1e3, 1e6, 1e10]


def smoothed(make):
    return lambda: Smoothed(make())


# The rules by what another unit does to their weights.
SAME = {
    "DynamicWeightAverage": lambda: DynamicWeightAverage(period=3),
    "DynamicWeightAverage(1)": lambda: DynamicWeightAverage(period=1, temperature=0.5),
    "ReLoBRaLo": lambda: ReLoBRaLo(alpha=0.9, rho=0.5, seed=3),
    "ReLoBRaLo(cold)": lambda: ReLoBRaLo(alpha=0.5, rho=0.9, temperature=0.5, seed=4),
    "CoVWeighting": CoVWeighting,
    "CoVWeighting(decay)": lambda: CoVWeighting(decay=0.9),
}
SAME["Smoothed(ReLoBRaLo)"] = smoothed(SAME["ReLoBRaLo"])
COMMON = {
    **SAME,
    "SoftAdapt": lambda: SoftAdapt(normalized=True),
    "SoftAdapt(loss_weighted)": lambda: SoftAdapt(3.0, normalized=True, loss_weighted=True),
    "GeometricMean": GeometricMean,
    "Smoothed(GeometricMean)": smoothed(GeometricMean),
    "Worst": Worst,
    "Average": Average,
    "RandomWeighting": lambda: RandomWeighting(seed=3),
}
INVERSE = {
    "MagnitudeBalance": MagnitudeBalance,
    "MagnitudeBalance(0.5)": lambda: MagnitudeBalance(momentum=0.5),
    "Smoothed(MagnitudeBalance)": smoothed(MagnitudeBalance),
}
PARTS = {"GeometricMean": GeometricMean, **INVERSE}
# A number in their formula has a unit, as their docstrings say.
WITH_UNITS = {FAMO, UncertaintyWeighting}


def named(rules):
    return pytest.mark.parametrize("make", rules.values(), ids=rules)


every_scale = pytest.mark.parametrize(
    "s",
    [
        SCALES[0],
        SCALES[-1],
        *(pytest.param(s, marks=pytest.mark.thorough) for s in SCALES[1:-1]),
    ],
)
every_size = pytest.mark.parametrize("k, odd", [(2, False), (5, True)], ids=["plain", "odd"])


@pytest.mark.backend_free
def test_every_rule_is_here():
    made = {type(make()) for make in (*COMMON.values(), *INVERSE.values())}
    assert made | WITH_UNITS == RULE_CLASSES
    assert all("1e-8" in FAMO.__doc__ and "units" in cls.__doc__ for cls in WITH_UNITS)


def values_of(k, odd=False, first=0):
    """Values of components, with zeros, missing ones and a pause where they are `odd`."""
    values = np.float64(losses(steps=12, k=k, low=1e-3, high=2.0))
    if odd:
        values[first, 0] = values[4:8, 1] = values[9] = 0.0
        values[2, 0] = values[5, 1] = values[3:8, 3] = np.nan
    return values


def in_float32(values):
    return values.astype("float32")


@every_size
@every_scale
@named(COMMON)
def test_a_common_unit_does_not_change_the_weights(make, s, k, odd):
    values = values_of(k, odd)
    expected = run(make(), in_float32(values))
    close(run(make(), in_float32(values * s)), expected, rtol=1e-4, atol=1e-6)


@every_size
@every_scale
@named(INVERSE)
def test_a_common_unit_divides_the_weights(make, s, k, odd):
    values = values_of(k, odd)
    expected = run(make(), in_float32(values)) / s
    close(run(make(), in_float32(values * s)), expected, rtol=1e-4, atol=0)


def own_units(k, seed):
    return 10.0 ** np.random.default_rng(seed).uniform(-10, 10, k)


@every_size
@named(SAME)
@pytest.mark.parametrize("seed", range(3))
def test_units_of_single_components_do_not_change_the_weights(make, seed, k, odd):
    values = values_of(k, odd)
    expected = run(make(), in_float32(values))
    found = run(make(), in_float32(values * own_units(k, seed)))
    close(found, expected, rtol=1e-4, atol=1e-6)


@every_size
@named(PARTS)
@pytest.mark.parametrize("seed", range(3))
def test_units_of_single_components_do_not_change_their_shares(make, seed, k, odd):
    """The weighted values are the same up to one common factor."""
    # No zero at first: what has no unit yet is given the weight of others, and smoothed with it.
    values, units = values_of(k, odd, first=3), own_units(k, seed)
    expected = np.nan_to_num(run(make(), in_float32(values)) * values)
    found = np.nan_to_num(run(make(), in_float32(values * units)) * values * units)
    steps = expected.max(axis=1) > 0
    expected, found = (p[steps] / p[steps].max(axis=1, keepdims=True) for p in (expected, found))
    close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_has_been_0_so_far_has_the_mean_weight_of_the_others():
    values = np.array([[0.0, 4.0, 1.0], [0.0, 4.0, 1.0], [3.0, 4.0, 1.0]], "float32")
    expected = [[0.5, 0.25, 1.0], [0.5, 0.25, 1.0], [1 / 3, 0.25, 1.0]]
    close(run(MagnitudeBalance(), values), expected)
    close(run(MagnitudeBalance(), np.zeros((2, 2), "float32")), np.ones((2, 2)))


def test_a_component_at_the_bound_of_a_geometric_mean_takes_what_it_took():
    """1e-8 of the mean of the others, in any unit."""
    for s in SCALES:
        weights = run(GeometricMean(), np.array([[0.0, s]], "float32"))
        close(weights, [[1e-4 / 2e-8, 0.5e-4]], rtol=1e-4)


@pytest.mark.parametrize("s", [1e-3, 1e3])
def test_famo_keeps_units_as_far_as_its_paper_does(s):
    """Up to one common factor of `w l`, where values are far above 1e-8."""
    values = losses(low=0.2)
    expected = run(FAMO(), values)
    close(run(FAMO(), values * np.float32(s)), expected, rtol=1e-3)
