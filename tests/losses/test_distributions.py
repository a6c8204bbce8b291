"""What the losses of distributions claim: likelihoods, limits, and slopes at extreme variances."""

import math
from statistics import NormalDist

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises

NLL, Beta = cl.losses.GaussianNLL, cl.losses.BetaNLL
CRPS, KL = cl.losses.GaussianCRPS, cl.losses.GaussianKL

RNG = np.random.default_rng(0)
Y_TRUE = RNG.normal(size=(6, 3)).astype("float32")
Y_PRED = RNG.normal(size=(6, 6)).astype("float32")

COMPARING = {"nll": NLL(), "beta": Beta(), "crps": CRPS()}
EVERY = {**COMPARING, "kl": KL()}
comparing = pytest.mark.parametrize("loss", COMPARING.values(), ids=COMPARING)
every = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def close(actual, expected, rtol=5e-6, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def column(*numbers):
    return np.array(numbers, "float32")[:, None]


def gaussian(mean, log_variance):
    """A prediction of D = 1 for each pair."""
    return np.stack(np.broadcast_arrays(mean, log_variance), axis=-1).astype("float32")


def normal(m, s):
    return NormalDist(float(m), math.exp(float(s) / 2))


def elements():
    """Target, mean and log-variance of each sample and dimension."""
    return zip(Y_TRUE.flat, Y_PRED[:, :3].flat, Y_PRED[:, 3:].flat, strict=True)


# The likelihood.


def test_the_constant_makes_it_the_log_density():
    densities = [normal(m, s).pdf(y) for y, m, s in elements()]
    expected = -np.log(densities).reshape(6, 3).mean(axis=-1)
    close(value(NLL(reduction="none"), Y_TRUE, Y_PRED) + 0.5 * math.log(2 * math.pi), expected)


def test_it_is_that_of_torch():
    torch = pytest.importorskip("torch")
    y_true, mean, variance = map(torch.tensor, (Y_TRUE, Y_PRED[:, :3], np.exp(Y_PRED[:, 3:])))
    expected = torch.nn.functional.gaussian_nll_loss(mean, y_true, variance)
    close(value(NLL(), Y_TRUE, Y_PRED), expected)


def test_it_has_no_lower_bound_at_an_error_of_0():
    y_true = column(1, 1, 1)
    values = value(NLL(reduction="none"), y_true, gaussian(y_true[:, 0], [2, -2, -50]))
    close(values, [1, -1, -25])


@pytest.mark.parametrize("error", [1e-3, 1.0, 50.0])
def test_the_best_variance_is_the_squared_error(error):
    at_best = gaussian([0.0], [math.log(error**2)])
    close(slope(NLL(), column(error), at_best)[0, 1], 0, atol=1e-6)
    assert slope(NLL(), column(error), at_best - np.array([[0, 1]]))[0, 1] < 0
    assert slope(NLL(), column(error), at_best + np.array([[0, 1]]))[0, 1] > 0


@pytest.mark.parametrize("log_variance", [-30.0, -100.0, -1000.0])
def test_a_variance_far_too_small_is_widened(log_variance):
    """A clip at -20 would have the gradient 0.5 there, which makes it smaller still."""
    slopes = slope(NLL(), column(1.0), gaussian([0.0], [log_variance]))
    assert np.all(np.isfinite(slopes)) and np.all(slopes < -1e8)


@comparing
def test_the_true_distribution_is_the_best(loss):
    """Proper: over targets of N(0, 1) the gradient is 0 at N(0, 1), and points to it elsewhere."""
    y_true = column(*[NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])

    def mean_slope(mean, log_variance):
        return slope(loss, y_true, gaussian(np.full(2000, mean), log_variance)).sum(axis=0)

    close(mean_slope(0, 0), [0, 0], atol=1e-3)
    assert mean_slope(0.5, 0)[0] > 0.01 and mean_slope(-0.5, 0)[0] < -0.01
    assert mean_slope(0, 0.5)[1] > 0.01 and mean_slope(0, -0.5)[1] < -0.01


# The power of the variance.


def test_beta_of_0_is_the_likelihood():
    close(value(Beta(0.0), Y_TRUE, Y_PRED), value(NLL(), Y_TRUE, Y_PRED))
    close(slope(Beta(0.0), Y_TRUE, Y_PRED), slope(NLL(), Y_TRUE, Y_PRED))


def test_beta_of_1_has_the_gradient_of_half_the_squared_error_in_the_mean():
    expected = slope(
        lambda y, p: 0.5 * keras.losses.MeanSquaredError()(y, p), Y_TRUE, Y_PRED[:, :3]
    )
    close(slope(Beta(1.0), Y_TRUE, Y_PRED)[:, :3], expected)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_factor_is_the_variance_to_beta_and_has_no_gradient(beta):
    y_true, y_pred = Y_TRUE[:, :1], Y_PRED[:, 2:4]
    factor = np.exp(beta * np.float64(y_pred[:, 1]))
    values = value(NLL(reduction="none"), y_true, y_pred)
    close(value(Beta(beta, reduction="none"), y_true, y_pred), factor * values)
    slopes = slope(NLL(), y_true, y_pred)
    close(slope(Beta(beta), y_true, y_pred), factor[:, None] * slopes)


# The ranked probability score.


def test_it_is_the_integral_that_defines_it():
    """The integral of F^2 below the target plus that of (1 - F)^2 above it, each smooth."""
    distance = np.linspace(0, 25, 4001)
    for y, m, s in elements():
        cdf = np.vectorize(normal(m, s).cdf)
        below, above = cdf(y - distance) ** 2, (1 - cdf(y + distance)) ** 2
        curve = below + above
        integral = np.sum((curve[1:] + curve[:-1]) / 2 * np.diff(distance))  # by trapezoids
        close(value(CRPS(), column(y), gaussian([m], [s])), integral, rtol=5e-5)


def test_a_narrow_one_is_the_absolute_error():
    narrow = np.concatenate([Y_PRED[:, :3], np.full((6, 3), -39.0, "float32")], axis=-1)
    error = Y_TRUE - Y_PRED[:, :3]
    close(value(CRPS(), Y_TRUE, narrow), np.abs(error).mean())
    close(slope(CRPS(), Y_TRUE, narrow)[:, :3], -np.sign(error) / 18)


@pytest.mark.parametrize("log_variance", [-3.0, 0.0, 5.0])
def test_at_the_target_it_is_a_share_of_the_width(log_variance):
    """(sqrt 2 - 1) / sqrt pi = 0.233695 of sigma."""
    share = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    actual = value(CRPS(), column(2.0), gaussian([2.0], [log_variance]))
    close(actual, share * math.exp(log_variance / 2))


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_it_has_the_unit_of_the_target(scale):
    scaled = np.concatenate([scale * Y_PRED[:, :3], Y_PRED[:, 3:] + 2 * math.log(scale)], axis=-1)
    close(value(CRPS(), scale * Y_TRUE, scaled), scale * value(CRPS(), Y_TRUE, Y_PRED))


def test_it_is_never_negative():
    errors = np.concatenate([[0], 10.0 ** np.arange(-8, 9)])
    for log_variance in (-300, -40, -5, 0, 5, 40, 300):
        y_pred = gaussian(np.zeros_like(errors), float(log_variance))
        assert np.all(value(CRPS(reduction="none"), column(*errors), y_pred) >= 0)


# The divergence.


def test_the_prior_costs_nothing_and_has_no_slope():
    prior = np.zeros((6, 8), "float32")
    np.testing.assert_array_equal(value(KL(reduction="none"), None, prior), np.zeros(6))
    np.testing.assert_array_equal(gradient(lambda p: KL()(None, p), prior), prior)


def test_it_is_the_mean_of_the_log_ratio_of_the_densities():
    """The definition, by Gauss-Hermite quadrature: log-densities are polynomials of degree 2."""
    z, weights = np.polynomial.hermite_e.hermegauss(3)
    for _, m, s in elements():
        m, s = float(m), float(s)
        x = m + math.exp(s / 2) * z
        log_ratio = np.log([normal(m, s).pdf(a) / NormalDist().pdf(a) for a in x])
        expected = np.average(log_ratio, weights=weights)
        close(value(KL(), None, gaussian([m], [s])), expected)


@pytest.mark.parametrize("log_variance", [-1e-2, -1e-5, 1e-9, 1e-4])
def test_it_keeps_its_digits_near_the_prior(log_variance):
    """(exp(s) - 1 - s) / 2 is s^2 / 4 (1 + s / 3 + s^2 / 12), and its slope s / 2 (1 + s / 2)."""
    s = np.float64(np.float32(log_variance))
    y_pred = gaussian([0.0], [log_variance])
    close(value(KL(), None, y_pred), s**2 / 4 * (1 + s / 3 + s**2 / 12), atol=0)
    close(gradient(lambda p: KL()(None, p), y_pred), [[0, s / 2 * (1 + s / 2 + s**2 / 6)]], atol=0)


def test_it_is_a_sum_over_the_dimensions():
    twice = np.concatenate([Y_PRED[:, :3]] * 2 + [Y_PRED[:, 3:]] * 2, axis=-1)
    close(value(KL(), None, twice), 2 * value(KL(), None, Y_PRED))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 6), (6, 2, 3), (6, 5, 5, 1)])
def test_it_reads_no_target(shape):
    y_true = np.full(shape, np.nan, "float32")
    assert value(KL(), y_true, Y_PRED) == value(KL(), None, Y_PRED)
    assert value(cl.CompositeLoss({"kl": KL()}), None, Y_PRED) == value(KL(), None, Y_PRED)


def test_it_trains_without_a_target():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", loss=cl.CompositeLoss({"kl": KL()}))
    losses = model.fit(Y_TRUE, epochs=3, verbose=0).history["kl_loss"]
    assert losses[2] < losses[0]


# All of them.


@pytest.mark.parametrize("log_variance", [-1000, -300, -100, -40, -20, 20, 40, 100, 300, 1000])
@every
def test_values_and_slopes_are_finite_at_extreme_variances(loss, log_variance):
    errors = np.array([-1e8, -1, -1e-6, 0, 1e-6, 1, 1e8])
    y_true, y_pred = np.zeros((7, 1), "float32"), gaussian(errors, float(log_variance))
    assert np.isfinite(value(loss, y_true, y_pred))
    assert np.all(np.isfinite(slope(loss, y_true, y_pred)))


@every
def test_float16_variances_do_not_overflow(loss):
    """exp(15) is beyond the largest float16, 65504."""
    y_true, y_pred = column(0, 1).astype("float16"), gaussian([1, 0], [-15, 15]).astype("float16")
    wide = value(loss, y_true.astype("float32"), y_pred.astype("float32"))
    assert np.isfinite(wide)
    assert value(loss, y_true, y_pred) == wide


@comparing
def test_values_are_means_over_the_dimensions(loss):
    columns = [value(loss, Y_TRUE[:, k], Y_PRED[:, [k, k + 3]]) for k in range(3)]
    close(value(loss, Y_TRUE, Y_PRED), np.mean(columns))


@comparing
def test_the_axis_of_one_dimension_may_be_left_out(loss):
    y_pred = np.stack([Y_PRED[:, :3], Y_PRED[:, 3:]], axis=-1)
    values = loss.call(ops.array(Y_TRUE), ops.array(y_pred))
    assert tuple(values.shape) == (6, 3)
    with_axis = loss.call(ops.array(Y_TRUE[..., None]), ops.array(y_pred))
    close(ops.convert_to_numpy(values), ops.convert_to_numpy(with_axis))


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2), (3, 6), (3, 3, 1), (1, 3)])
@comparing
def test_targets_are_never_broadcast(loss, shape):
    """The batch is as large as D here, so that a vector of samples would fit the dimensions."""
    received = f"Received: y_true of shape {shape} and y_pred of shape (3, 6)"
    with raises(ValueError, type(loss).__name__, "(3, 3)", "Reshape the targets", received):
        loss.call(ops.ones(shape), ops.ones((3, 6)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 5)])
@every
def test_predictions_have_two_halves(loss, shape):
    owner, received = type(loss).__name__, f"Received: y_pred of shape {shape}"
    with raises(ValueError, owner, "(batch, ..., 2 * D)", "Dense(2 * D)", received):
        loss.call(ops.ones((6, 1)), ops.ones(shape))
