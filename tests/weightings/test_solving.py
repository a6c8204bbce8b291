"""The equations of the rules on the host: what the tensors give, and what the definition says."""

import itertools

import numpy as np
import pytest

from combined_losses._backend import backend
from combined_losses._numerics import pivoting
from combined_losses._numerics.linalg import nonnegative
from combined_losses.weightings import MGDA, CAGrad, DualProj, FairGrad, NashMTL, UPGrad
from tests.weightings.gradients import KINDS, rules, samples, weights_of


def random_problem(k, m, rank, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(k, rank))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T + 1e-6 * np.eye(k), rng.normal(size=(m, k))


def best_of_all_supports(matrix, linear):
    """The one of the 2^k candidates that is a solution."""
    k = len(matrix)
    for chosen in itertools.product([False, True], repeat=k):
        support, z = np.array(chosen), np.zeros(k)
        if support.any():
            z[support] = np.linalg.solve(matrix[np.ix_(support, support)], linear[support])
        if z.min() >= 0 and (matrix @ z - linear)[~support].min(initial=0.0) >= -1e-12:
            return z
    raise AssertionError("no support gives a solution")


@pytest.mark.backend_free
@pytest.mark.parametrize("rank", [2, 4, 9])
def test_of_all_supports_it_finds_the_one_that_solves(rank):
    matrix, linear = random_problem(6, 20, rank, seed=rank)
    expected = [best_of_all_supports(matrix, each) for each in linear]
    found = pivoting.nonnegative(matrix, linear)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.backend_free
def test_where_exchanges_do_not_end_the_interior_method_satisfies_the_conditions():
    matrix, linear = random_problem(64, 64, 32, seed=0)
    with pytest.raises(ArithmeticError):
        pivoting.nonnegative(matrix, linear)
    z = nonnegative(matrix, linear)
    slack = z @ matrix - linear
    assert z.min() >= 0
    assert slack.min() >= -1e-5
    assert np.abs(z * slack).max() <= 1e-5 * np.sum(z * (z @ matrix), axis=1).max()


@pytest.mark.backend_free
def test_of_a_matrix_that_is_not_positive_it_says_that_there_is_no_end():
    with pytest.raises(ArithmeticError, match="does not end"):
        pivoting.nonnegative(np.array([[1.0, -3.0], [-3.0, 1.0]]), np.ones((1, 2)))


@pytest.mark.parametrize("kind", KINDS)
@rules(UPGrad, DualProj, MGDA, CAGrad, NashMTL, FairGrad)
def test_the_host_gives_what_the_tensors_give(cls, kind, monkeypatch):
    rows = samples(kind, 5)[0]
    on_host = weights_of(cls(), rows)
    monkeypatch.setattr(backend, "on_host", lambda function, arrays: None)
    np.testing.assert_allclose(on_host, weights_of(cls(), rows), rtol=1e-3, atol=1e-4)


@rules(UPGrad, DualProj, MGDA, CAGrad)
def test_where_the_host_finds_no_end_the_tensors_go_on(cls, monkeypatch):
    rows = samples("plain", 4)[0]
    expected = weights_of(cls(), rows)

    def failing(matrix, linear):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(pivoting, "nonnegative", failing)
    np.testing.assert_allclose(weights_of(cls(), rows), expected, rtol=1e-3, atol=1e-4)
