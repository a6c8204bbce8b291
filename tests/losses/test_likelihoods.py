"""What the likelihoods claim: densities, limits, slopes, and what a missing target takes away."""

import math

import numpy as np
import pytest
from scipy import stats

import combined_losses as cl
from combined_losses.wrappers import Masked
from tests.composite.children import SCALAR_REDUCTIONS, value
from tests.gradients import gradient
from tests.messages import raises

Laplace, StudentT = cl.losses.LaplaceNLL, cl.losses.StudentTNLL
LogNormal, Counts = cl.losses.LogNormalNLL, cl.losses.NegativeBinomialNLL
Gaussian, Mixture = cl.losses.GaussianNLL, cl.losses.MixtureNLL

RNG = np.random.default_rng(0)
Y_TRUE = RNG.normal(size=(6, 3)).astype("float32")
Y_PRED = RNG.normal(size=(6, 6)).astype("float32")
COUNTS = RNG.integers(0, 40, (6, 3)).astype("float32")

BLOCKS = {"laplace": Laplace(), "t": StudentT(), "log normal": LogNormal(), "counts": Counts()}
every = pytest.mark.parametrize("loss", BLOCKS.values(), ids=BLOCKS)


def close(actual, expected, rtol=5e-6, atol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def pair(*numbers):
    return np.array([numbers], "float32")


def halves():
    return np.float64(Y_PRED[:, :3]), np.float64(Y_PRED[:, 3:])


# Densities.


def test_they_are_the_densities_of_scipy():
    m, s = halves()
    y, amounts = np.float64(Y_TRUE), np.exp(np.float64(Y_TRUE))
    expected = stats.laplace(m, np.exp(s)).logpdf(y).mean(axis=-1)
    close(value(Laplace(reduction="none"), Y_TRUE, Y_PRED) + math.log(2), -expected)
    for df in (1.0, 3.0, 30.0):
        constant = math.lgamma(df / 2) - math.lgamma((df + 1) / 2) + math.log(math.pi * df) / 2
        expected = stats.t(df, m, np.exp(s)).logpdf(y).mean(axis=-1)
        close(value(StudentT(df, reduction="none"), Y_TRUE, Y_PRED) + constant, -expected)
    expected = stats.lognorm(np.exp(s / 2), scale=np.exp(m)).logpdf(amounts).mean(axis=-1)
    values = value(LogNormal(reduction="none"), amounts.astype("float32"), Y_PRED)
    close(values + math.log(2 * math.pi) / 2, -expected)
    mu, r = np.exp(m), np.exp(s)
    expected = stats.nbinom(r, r / (r + mu)).logpmf(COUNTS).mean(axis=-1)
    close(value(Counts(reduction="none"), COUNTS, Y_PRED), -expected)


def test_the_mixture_is_that_of_torch():
    torch = pytest.importorskip("torch")
    from torch import distributions as d

    logits, means, s = (RNG.normal(size=(6, 2, *rest)) for rest in ((), (3,), (3,)))
    parts = d.Independent(d.Normal(torch.tensor(means), torch.tensor(np.exp(s / 2))), 1)
    mixture = d.MixtureSameFamily(d.Categorical(logits=torch.tensor(logits)), parts)
    expected = -mixture.log_prob(torch.tensor(np.float64(Y_TRUE))).numpy() / 3
    y_pred = np.concatenate([a.reshape(6, -1) for a in (logits, means, s)], -1).astype("float32")
    values = value(Mixture(2, reduction="none"), Y_TRUE, y_pred)
    close(values + math.log(2 * math.pi) / 2, expected)


# Limits.


def test_many_degrees_of_freedom_are_a_gaussian():
    wide = np.concatenate([Y_PRED[:, :3], 2 * Y_PRED[:, 3:]], axis=-1)
    close(value(StudentT(1e7), Y_TRUE, Y_PRED), value(Gaussian(), Y_TRUE, wide), rtol=1e-4)


@pytest.mark.parametrize("df", [1.0, 4.0])
def test_the_pull_of_an_outlier_is_bounded_and_falls(df):
    errors = 10.0 ** np.arange(-3, 9)
    y_pred = np.zeros((len(errors), 2), "float32")
    pull = np.abs(slope(StudentT(df, reduction="sum"), errors, y_pred)[:, 0])
    assert np.all(pull <= (df + 1) / (2 * math.sqrt(df)) * (1 + 1e-5))
    assert pull[-1] < 1e-6 and pull[-1] > 0


def test_a_large_size_is_poisson():
    m = np.log(RNG.uniform(0.5, 30, (6, 3)))
    y_pred = np.concatenate([m, np.full((6, 3), 20.0)], axis=-1).astype("float32")
    expected = -stats.poisson(np.exp(m)).logpmf(COUNTS)
    close(value(Counts(), COUNTS, y_pred), expected.mean(), rtol=1e-5)
    by_m = slope(Counts(reduction="sum"), COUNTS, y_pred)[:, :3] * 3
    close(by_m, np.exp(m) - COUNTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("a", [-45.0, -40.0, -5.0, 0.0, 5.0, 20.0, 25.0])
@pytest.mark.parametrize("m", [-10.0, 0.0, 5.0, 20.0])
def test_no_count_is_the_chance_of_none(m, a):
    r = math.exp(min(max(a, -40), 20))
    expected = r * np.log1p(math.exp(m) / r)
    close(value(Counts(), pair(0), pair(m, a)), expected, rtol=1e-5, atol=1e-9)


def test_a_count_below_0_is_not_passed_over():
    values = value(Counts(reduction="none"), np.array([[-0.5], [1.0]]), np.zeros((2, 2)))
    assert np.isnan(values[0]) and np.isfinite(values[1])


def test_equal_slopes_at_equal_logs():
    """m = a is where two forms of one term meet."""
    for level in (-3.0, 0.0, 3.0, 15.0):
        at, above, below = (
            slope(Counts(), pair(7), pair(level + d, level)) for d in (0, 1e-3, -1e-3)
        )
        close(at, (above + below) / 2, rtol=1e-3, atol=1e-4)


def test_one_component_or_equal_ones_are_a_gaussian():
    logit = np.zeros((6, 1), "float32")
    one = np.concatenate([logit, Y_PRED], axis=-1)
    close(value(Mixture(1), Y_TRUE, one), value(Gaussian(), Y_TRUE, Y_PRED))
    m, s = Y_PRED[:, :3], Y_PRED[:, 3:]
    two = np.concatenate([Y_TRUE[:, :2], m, m, s, s], axis=-1)  # whatever the logits are
    close(value(Mixture(2), Y_TRUE, two), value(Gaussian(), Y_TRUE, Y_PRED))


def test_the_order_of_the_components_does_not_matter():
    y_pred = RNG.normal(size=(6, 2 + 12)).astype("float32")
    order = [1, 0, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10]
    close(value(Mixture(2), Y_TRUE, y_pred), value(Mixture(2), Y_TRUE, y_pred[:, order]))


def test_far_from_all_components_the_nearest_moves():
    y_pred = pair(0, 0, -1, 1, 0, 0)
    for target in (1e3, 1e8, 1e15):  # from the last two on, both are as near in float32
        found = slope(Mixture(2), pair(target), y_pred)
        assert np.isfinite(value(Mixture(2), pair(target), y_pred))
        assert np.all(np.isfinite(found)) and found[0, 3] < 0
    assert abs(slope(Mixture(2), pair(1e3), y_pred)[0, 2]) < 1e-6


# Extremes.


@pytest.mark.parametrize("log_scale", [-1000, -100, -20, 20, 100, 1000])
@every
def test_values_and_slopes_are_finite_at_extreme_scales(loss, log_scale):
    targets = np.array([[0, 1e-6, 1, 1e8]]).T
    y_pred = np.stack([np.array([0, 1e-6, -1, 10.0]), np.full(4, float(log_scale))], axis=-1)
    assert np.isfinite(value(loss, targets, y_pred))
    assert np.all(np.isfinite(slope(loss, targets, y_pred)))


@every
def test_values_are_means_over_the_dimensions(loss):
    y_true = COUNTS if loss.target_kind else Y_TRUE
    columns = [value(loss, y_true[:, k], Y_PRED[:, [k, k + 3]]) for k in range(3)]
    close(value(loss, y_true, Y_PRED), np.mean(columns))


@every
def test_targets_are_never_broadcast(loss):
    received = "Received: y_true of shape (3, 2) and y_pred of shape (3, 6)"
    with raises(ValueError, type(loss).__name__, "(3, 3)", received):
        loss.call(np.ones((3, 2)), np.ones((3, 6)))
    with raises(ValueError, type(loss).__name__, "(batch, ..., 2 * D)", "of shape (3, 5)"):
        loss.call(np.ones((3, 2)), np.ones((3, 5)))


@pytest.mark.parametrize("width", [1, 2, 3, 9, 11])
def test_a_mixture_needs_a_fitting_width(width):
    shapes = f"Received: y_pred of shape (3, {width})"
    with raises(ValueError, "MixtureNLL of 2 components", "2 + 4 * D", shapes):
        Mixture(2).call(np.ones((3, 1)), np.ones((3, width)))


# Missing targets, and weights of single ones, of a row that is scored as one.

THERE = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
WEIGHT = np.array([2.0, 0.5, 1.0, 3.0, 0.0, 1.5], "float32")
OF_TARGETS = RNG.uniform(0.2, 2.0, (6, 3)).astype("float32")
MIXED = RNG.normal(size=(6, 2 + 12)).astype("float32")


def of_row(y, p, there, weight=None):
    """The row's own weighted mean: the mixture of the targets that are there alone."""
    known = [k for k in range(3) if there[k]]
    if not known:
        return 0.0
    w = np.ones(3) if weight is None else np.float64(weight)
    w = w[known] * len(known) / w[known].sum()
    p = np.float64(p)
    m, s = p[2:8].reshape(2, 3)[:, known], p[8:].reshape(2, 3)[:, known]
    scores = p[:2] - np.logaddexp(*p[:2])
    scores -= 0.5 * np.sum(w * (s + (y[known] - m) ** 2 * np.exp(-s)), axis=-1)
    return -np.logaddexp(*scores) / len(known)


def expected_of(there, row_weight, of_targets, reduction):
    """`sum w l / sum w` over the targets: a row counts with its share of them."""
    inner = np.ones((6, 3)) if of_targets is None else np.float64(of_targets)
    factor = there * inner * row_weight[:, None]
    values = [of_row(y, p, b, w) for y, p, b, w in zip(Y_TRUE, MIXED, there, inner, strict=True)]
    total = np.sum(values * factor.sum(axis=1))
    counts = {"sum": 3, "mean_with_sample_weight": factor.sum()}
    return total / counts.get(reduction, there.sum())


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
@pytest.mark.parametrize("kind", ["none", "rows", "targets"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_row_counts_by_its_share_of_the_targets(reduction, kind, missing):
    there = THERE if missing else np.ones((6, 3), bool)
    rows = WEIGHT if kind == "rows" else np.ones(6)
    of_targets = OF_TARGETS if kind == "targets" else None
    given = {"none": (), "rows": (WEIGHT,), "targets": (OF_TARGETS,)}[kind]
    expected = expected_of(there, rows, of_targets, reduction)
    loss, holes = Mixture(2, reduction=reduction), np.where(there, Y_TRUE, np.nan)
    loss = Masked(loss) if missing else loss
    close(value(loss, holes, MIXED, *given), expected, rtol=1e-5)
    found = gradient(lambda p: loss(holes, p, *given), MIXED)
    assert np.all(np.isfinite(found)) and np.all(found[3] == 0) == missing


def test_equal_weights_of_the_targets_are_the_weight_of_the_row():
    of_targets = np.repeat(WEIGHT[:, None], 3, axis=1)
    for reduction in SCALAR_REDUCTIONS:
        loss = Mixture(2, reduction=reduction)
        close(value(loss, Y_TRUE, MIXED, of_targets), value(loss, Y_TRUE, MIXED, WEIGHT))


def test_what_a_missing_target_holds_does_no_harm():
    weight = OF_TARGETS * THERE
    bad = np.where(THERE, Y_TRUE, np.nan)
    close(value(Mixture(2), bad, MIXED, weight), value(Mixture(2), Y_TRUE, MIXED, weight))
    close(
        gradient(lambda p: Mixture(2)(bad, p, weight), MIXED),
        gradient(lambda p: Mixture(2)(Y_TRUE, p, weight), MIXED),
    )


def test_one_component_is_the_gaussian_of_the_targets_that_are_there():
    """So a row that is scored as one, and targets that are scored alone, count alike."""
    one = np.concatenate([np.zeros((6, 1), "float32"), Y_PRED], axis=-1)
    holes = np.where(THERE, Y_TRUE, np.nan)
    for given in ((), (WEIGHT,), (OF_TARGETS,)):
        for reduction in SCALAR_REDUCTIONS:
            gaussian, mixture = (
                Masked(f) for f in (Gaussian(reduction), Mixture(1, reduction=reduction))
            )
            close(value(mixture, holes, one, *given), value(gaussian, holes, Y_PRED, *given))


def test_nothing_there_is_0_without_a_gradient():
    nothing = np.full_like(Y_TRUE, np.nan)
    assert value(Masked(Mixture(2)), nothing, MIXED) == 0
    assert np.all(gradient(lambda p: Masked(Mixture(2))(nothing, p), MIXED) == 0)
