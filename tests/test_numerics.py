"""Arithmetic that several losses share: the right number and slope at every branch and border."""

import numpy as np
import pytest
from keras import ops

from combined_losses._backend import backend
from combined_losses._numerics.floats import div, em1x, linexp, slog
from tests.gradients import gradient


def numbers(function, x):
    return ops.convert_to_numpy(function(ops.array(np.float32(x))))


def close(actual, expected, rtol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol)


def test_linexp_is_exp_and_from_20_on_its_tangent():
    u = np.float32([-80, -20, -1, 0, 1e-7, 19.5, 20, 20.5, 100, 1e8])
    slopes = np.exp(np.minimum(np.float64(u), 20))
    close(numbers(linexp, u), slopes * (1 + np.maximum(np.float64(u) - 20, 0)))
    close(gradient(linexp, u), slopes)


@pytest.mark.parametrize("sign", [1, -1])
def test_em1x_is_exact_near_0_and_linear_beyond_20(sign):
    u = sign * np.float32([1e-18, 1e-9, 1e-4, 0.05, 0.0999, 0.1, 0.2, 1, 19.5, 20, 20.5, 300, 1e8])
    wide = np.longdouble(u)
    centre = np.clip(wide, -20, 20)
    slopes = np.expm1(centre)
    expected = slopes - centre + slopes * (wide - centre)
    # Below 1e-5 the difference has lost its digits, also in longdouble: u^2 / 2 has the rest.
    expected = np.where(np.abs(u) < 1e-5, wide**2 / 2 * (1 + wide / 3), expected)
    close(numbers(em1x, u), expected, 5e-6)
    close(gradient(em1x, u), slopes, 5e-6)


def test_em1x_of_0_is_0_with_slope_0():
    assert numbers(em1x, [0.0]) == gradient(em1x, [0.0]) == 0.0


def test_slog_is_log_and_below_its_floor_the_tangent_there():
    floor = np.float32(1e-7)
    q = np.array([-1, 0, 1e-30, 5e-8, floor, 2e-7, 1e-3, 0.5, 1, 1e20], "float32")
    inside = np.maximum(np.float64(q), floor)
    close(numbers(slog, q), np.log(inside) + (np.float64(q) - inside) / inside)
    close(gradient(slog, q), 1 / inside)


def test_div_is_0_with_slope_0_where_there_is_nothing_to_divide_by():
    numerator = np.float32([3, 0, 3, 3, 0])
    denominator = np.float32([2, 2, 0, -2, 0])

    def by_numerator(n):
        return div(n, ops.array(denominator))

    def by_denominator(d):
        return div(ops.array(numerator), d)

    close(numbers(by_numerator, numerator), [1.5, 0, 0, 0, 0])
    close(gradient(by_numerator, numerator), [0.5, 0.5, 0, 0, 0])
    close(gradient(by_denominator, denominator), [-0.75, 0, 0, 0, 0])


KEEPING = {"linexp": linexp, "em1x": em1x, "slog": slog, "div": lambda x: div(1.0, x)}


@pytest.mark.parametrize("function", KEEPING.values(), ids=KEEPING)
def test_what_is_not_a_number_stays_so(function):
    assert np.isnan(numbers(function, [np.nan]))


@pytest.mark.parametrize("places", [None, [1, 20, 300, 150, 299]])
def test_the_nth_largest_is_found_among_equal_and_infinite_numbers(places):
    rows = np.random.default_rng(0).normal(size=(5, 300)).astype("float32")
    rows[:, ::7], rows[:, 3::11], rows[2] = 0.0, -0.0, 1.5
    rows[0, :20], rows[1, :40] = np.inf, -np.inf
    given = None if places is None else ops.convert_to_tensor(np.array(places, "int32")[:, None])
    found = backend.nth_largest(ops.convert_to_tensor(rows), 300 if places else 37, given)
    expected = [row[n - 1] for row, n in zip(-np.sort(-rows), places or [37] * 5, strict=True)]
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[:, 0], expected)
