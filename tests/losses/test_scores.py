"""What the scores of ensembles and quantiles claim, and the divergence with free bits."""

import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import Masked
from tests.composite.children import SCALAR_REDUCTIONS, value
from tests.gradients import gradient
from tests.messages import raises
from tests.oracles.distributions import energy_score, gaussian_kl

Ensemble, Energy = cl.losses.EnsembleCRPS, cl.losses.EnergyScore
Quantiles, KL = cl.losses.QuantileCRPS, cl.losses.GaussianKL

RNG = np.random.default_rng(0)
Y_TRUE = RNG.normal(size=(6, 1)).astype("float32")
MEMBERS = RNG.normal(size=(6, 8)).astype("float32")
both = pytest.mark.parametrize("fair", [True, False])


def close(actual, expected, rtol=1e-5, atol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


# Ensembles.


def test_one_member_is_the_absolute_error():
    for loss, shape in ((Ensemble(), (6, 1)), (Energy(), (6, 1, 1))):
        close(
            value(loss, Y_TRUE, MEMBERS[:, :1].reshape(shape)),
            np.mean(np.abs(MEMBERS[:, :1] - Y_TRUE)),
        )


@both
def test_of_one_target_the_energy_score_is_that_of_the_ensemble(fair):
    ensemble, energy = Ensemble(fair=fair), Energy(fair=fair)
    close(value(energy, Y_TRUE, MEMBERS[..., None]), value(ensemble, Y_TRUE, MEMBERS))
    close(value(energy, Y_TRUE[:, 0], MEMBERS[..., None]), value(ensemble, Y_TRUE, MEMBERS))
    close(
        gradient(lambda p: energy(Y_TRUE, p), MEMBERS[..., None])[..., 0],
        gradient(lambda p: ensemble(Y_TRUE, p), MEMBERS),
    )


def test_the_fair_score_does_not_depend_on_the_number_of_members():
    """On average over 40000 targets; the other one tells few members to spread less."""
    y_true = RNG.normal(size=(40000, 1)).astype("float32")
    found = {}
    for number in (2, 10):
        members = RNG.normal(size=(40000, number)).astype("float32")
        for fair in (True, False):
            found[number, fair] = value(Ensemble(fair=fair), y_true, members)
    assert abs(found[2, True] - found[10, True]) < 0.02
    assert found[2, False] - found[10, False] > 0.2
    # The score of the distribution itself: (sqrt 2 - 1) ... of N(0, 1) against N(0, 1), 1 / sqrt pi
    assert abs(found[10, True] - 1 / np.sqrt(np.pi)) < 0.02


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_large_offset_costs_no_digits(offset):
    small = Y_TRUE.round(1), (MEMBERS.round(2))
    moved = [np.float32(np.float64(array) + offset) for array in small]
    near = [array.astype("float64") - offset for array in moved]
    expected = value(Ensemble(), *(array.astype("float32") for array in near))
    close(value(Ensemble(), *moved), expected, rtol=1e-4)


@both
def test_equal_members_have_finite_slopes(fair):
    same = np.repeat(Y_TRUE, 4, axis=1)
    close(value(Ensemble(fair=fair), Y_TRUE, same), 0)
    assert np.all(np.isfinite(gradient(lambda p: Ensemble(fair=fair)(Y_TRUE, p), same)))
    rows = np.repeat(MEMBERS[:, None, :2], 4, axis=1)
    assert np.all(gradient(lambda p: Energy(fair=fair)(MEMBERS[:, :2], p), rows) == 0)


def test_it_sees_whether_members_move_together():
    """Members with the right spread in each target, but independent ones, cost more."""
    first = RNG.normal(size=(2000, 1)).astype("float32")
    y_true = np.concatenate([first, first], axis=-1)
    z, w = RNG.normal(size=(2, 2000, 16, 1)).astype("float32")
    together, apart = np.concatenate([z, z], -1), np.concatenate([z, w], -1)
    assert value(Energy(), y_true, together) < value(Energy(), y_true, apart) - 0.03
    columns = [value(Ensemble(), y_true[:, :1], array[..., 1]) for array in (together, apart)]
    assert abs(columns[0] - columns[1]) < 0.03


THERE = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
ROWS = RNG.normal(size=(6, 3)).astype("float32")
# As many members as targets, so that no shape tells them apart.
OF_ROWS = RNG.normal(size=(6, 3, 3)).astype("float32")


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
def test_a_missing_target_leaves_all_norms(reduction):
    """And its row counts by its share of the targets."""
    shares = THERE.sum(axis=1)
    values = [
        energy_score(y[None, b], p[None][..., b])[0][0] if b.any() else 0.0
        for y, p, b in zip(ROWS, OF_ROWS, THERE, strict=True)
    ]
    count = 3 if reduction == "sum" else shares.sum()
    loss, holes = Masked(Energy(reduction=reduction)), np.where(THERE, ROWS, np.nan)
    close(value(loss, holes, OF_ROWS), np.sum(values * shares) / count)
    found = gradient(lambda p: loss(holes, p), OF_ROWS)
    assert np.all(np.any(found != 0, axis=1) == THERE)  # the middle one of members may have none


def test_weights_of_targets_are_relative_in_a_row():
    weight = np.array([2.0, 0.5, 1.0, 3.0, 0.0, 1.5], "float32")
    of_targets = np.repeat(weight[:, None], 3, axis=1)
    close(value(Energy(), ROWS, OF_ROWS, of_targets), value(Energy(), ROWS, OF_ROWS, weight))
    some = (THERE * weight[:, None]).astype("float32")
    masked = Masked(Energy(reduction="mean_with_sample_weight"))
    holes = np.where(THERE, ROWS, np.nan)
    loss = Energy(reduction="mean_with_sample_weight")
    close(value(loss, holes, OF_ROWS, some), value(masked, holes, OF_ROWS, weight))


def test_weights_of_members_are_an_error():
    y, members = np.zeros((6, 2, 3)), np.zeros((6, 2, 4, 3))
    with raises(ValueError, "sample_weight of component 'energy_score'", "shape (6, 2, 4)"):
        Energy()(y, members, np.ones((6, 2, 4)))


def test_shapes_of_ensembles():
    with raises(ValueError, "EnergyScore", "Reshape((M, D))", "Received: y_pred of shape (6, 8)"):
        Energy()(Y_TRUE, MEMBERS)
    with raises(ValueError, "EnergyScore", "(6, 3)", "Received: y_true of shape (6, 2)"):
        Energy().call(ROWS[:, :2], OF_ROWS)


# Quantiles.


def test_even_levels_are_twice_the_pinball_loss():
    levels = [0.125, 0.375, 0.625, 0.875]
    pinball = cl.losses.Pinball(levels)
    close(
        value(Quantiles(levels), Y_TRUE, MEMBERS[:, :4]), 2 * value(pinball, Y_TRUE, MEMBERS[:, :4])
    )
    mae = np.mean(np.abs(Y_TRUE - MEMBERS[:, :1]))
    close(value(Quantiles([0.5]), Y_TRUE, MEMBERS[:, :1]), mae)


def test_many_levels_are_the_score_of_the_distribution():
    from scipy import stats

    levels = ((np.arange(400) + 0.5) / 400).tolist()
    y_pred = np.repeat(stats.norm.ppf(levels)[None], 6, axis=0).astype("float32")
    gaussian = value(cl.losses.GaussianCRPS(), Y_TRUE, np.zeros((6, 2), "float32"))
    close(value(Quantiles(levels), Y_TRUE, y_pred), gaussian, rtol=1e-3)


# Free bits.

CODES = RNG.normal(size=(6, 5, 8)).astype("float32")


def test_the_prior_costs_the_free_bits_and_has_no_slope():
    for over in ("sample", "batch"):
        loss = KL(0.5, over=over)
        close(value(loss, None, np.zeros((4, 6), "float32")), 1.5)
        assert np.all(gradient(lambda p, f=loss: f(None, p), np.zeros((4, 6), "float32")) == 0)


@pytest.mark.parametrize("over", ["sample", "batch"])
@pytest.mark.parametrize("place", [1, 5], ids=["mean", "log-variance"])
def test_what_is_not_a_number_is_no_free_bit(over, place):
    code = CODES[:, 0].copy()
    code[2, place] = np.nan
    assert np.isnan(value(KL(0.5, over=over), None, code))


def test_the_mean_over_the_batch_is_that_of_kingma():
    means = gaussian_kl(None, CODES[..., [0, 4]])[0].mean()
    each = [gaussian_kl(None, CODES[..., [k, k + 4]])[0].mean() for k in range(4)]
    assert each[0] == means
    for free in (0.0, 1.0, 1.5, 5.0):
        expected = np.sum(np.maximum(each, free))
        close(value(KL(free, over="batch"), None, CODES), expected)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_weights_of_rows_and_of_steps(over):
    """A weight of 0 leaves the mean over the batch; weights of steps are those of rows."""
    weight = RNG.uniform(0.5, 2, (6, 5)).astype("float32") * (RNG.random((6, 5)) > 0.3)
    loss = KL(1.0, over=over, reduction="mean_with_sample_weight")
    kept = weight.reshape(-1) > 0
    flat = CODES.reshape(-1, 8)
    expected = value(loss, None, flat[kept], weight.reshape(-1)[kept])
    close(value(loss, None, CODES, weight), expected)
    close(value(loss, None, flat, weight.reshape(-1)), expected)
    spoiled = np.where(weight[..., None] > 0, CODES, np.nan).astype("float32")
    close(value(loss, None, spoiled, weight), expected)
    assert np.all(np.isfinite(gradient(lambda p: loss(None, p, weight), spoiled)))
