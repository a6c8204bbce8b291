"""Points in boxes: where they are, how even they are, and what scipy draws."""

import builtins

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

import combined_losses as cl
from tests.messages import raises

pytestmark = pytest.mark.backend_free
METHODS = ["uniform", "latin", "sobol"]
LOW, HIGH = [-1.0, 0.0, 5.0], [1.0, 0.25, 5.0]  # the last coordinate is fixed


def unit(method, batch, steps, dimensions=2, seed=0):
    box = cl.Box([0.0] * dimensions, [1.0] * dimensions, method=method)
    return box.draw(batch, steps, np.random.default_rng(seed))


@pytest.mark.parametrize("method", METHODS)
def test_points_are_in_the_box(method):
    points = cl.Box(LOW, HIGH, method=method).draw(16, 3, np.random.default_rng(0))
    assert points.shape == (48, 3) and points.dtype == "float64"
    assert (points >= LOW).all() and (points <= HIGH).all()
    assert (points[:, 2] == 5.0).all()
    assert np.ptp(points[:, 0]) > 1.5 and np.ptp(points[:, 1]) > 0.15  # fill it


@pytest.mark.parametrize("method", METHODS)
def test_each_coordinate_is_uniform(method):
    points = unit(method, 500, 4)
    for column in points.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_coordinates_are_independent(method):
    """Each of 4 x 4 cells has its share; with 2,000 points one in 16 has 125 +- 11."""
    counts = np.histogram2d(*unit(method, 500, 4).T, bins=4, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def strata(points):
    return np.sort(np.floor(points * len(points)).astype(int), axis=0)


@pytest.mark.parametrize(("batch", "steps"), [(8, 1), (8, 5), (1, 6), (7, 3)])
def test_latin_batches_are_latin_hypercubes_and_so_is_the_epoch(batch, steps):
    points = unit("latin", batch, steps, dimensions=3)
    for part in [points, *np.split(points, steps)]:
        np.testing.assert_array_equal(strata(part), np.arange(len(part))[:, None] * [1, 1, 1])


@pytest.mark.parametrize(("batch", "steps"), [(8, 4), (5, 3), (1, 1)])
def test_sobol_points_are_those_of_scipy(batch, steps):
    low, high = [-1.0, 0.0], [1.0, 3.0]
    found = cl.Box(low, high, method="sobol").draw(batch, steps, np.random.default_rng(3))
    sequence = qmc.Sobol(2, scramble=True, rng=np.random.default_rng(3))
    expected = qmc.scale(sequence.random_base2(5), low, high)[: batch * steps]
    if batch * steps > 1:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    assert found.shape == (batch * steps, 2)


def test_sobol_batches_of_a_power_of_two_are_even_too():
    """A block of 16 points has one in each of the 16 parts of each coordinate."""
    for part in np.split(unit("sobol", 16, 4), 4):
        np.testing.assert_array_equal(strata(part), np.arange(16)[:, None] * [1, 1])


def test_even_points_have_a_lower_discrepancy():
    found = {m: qmc.discrepancy(unit(m, 64, 4), method="L2-star") for m in METHODS}
    assert found["sobol"] < found["latin"] < found["uniform"]


def test_without_scipy_sobol_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_scipy(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with raises(ImportError, "scipy", 'pip install "combined_losses[points]"', "latin"):
        cl.Box([0.0], [1.0], method="sobol")
    assert cl.Box([0.0], [1.0], method="latin").draw(2, 1, np.random.default_rng(0)).size == 2


def test_a_box_is_shown_as_the_call_that_makes_it():
    assert repr(cl.Box([0.0], [1.0])) == "Box([0.0], [1.0])"
    assert repr(cl.Box([0], [1], method="sobol")) == "Box([0], [1], method='sobol')"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.0], [1.0, 2.0]), ("one for each coordinate", "high=[1.0, 2.0]")),
        ((0.0, 1.0), ("lists of finite numbers", "low=0.0")),
        (([0.0], [np.inf]), ("finite", "high=[inf]")),
        (([], []), ("lists of finite numbers",)),
        (([0.0, 2.0], [1.0, 1.0]), ("at most that in `high`", "low=[0.0, 2.0]")),
    ],
)
def test_wrong_bounds_are_refused(arguments, said):
    with raises(ValueError, "Received", *said):
        cl.Box(*arguments)


def test_an_unknown_method_is_refused():
    with raises(ValueError, "'uniform', 'latin' or 'sobol'", "Received: 'halton'"):
        cl.Box([0.0], [1.0], method="halton")
