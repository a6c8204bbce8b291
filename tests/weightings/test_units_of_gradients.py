"""Rules that read gradients, of lengths between 1e-18 and 1e18: a short gradient is no zero."""

import contextlib
import json

import keras
import numpy as np
import pytest
from keras import ops

from combined_losses._backend import backend
from combined_losses.composite import gradients
from combined_losses.weightings import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradientNormBalance,
    GradNorm,
    InverseGradientNorm,
    NashMTL,
    PCGrad,
    UPGrad,
)
from combined_losses.weightings.products import powers_of_two
from tests.oracles import weightings as oracle
from tests.weightings.gradients import PLAIN, every_rule, rules, rules_but, samples, steps_of

K = 4
UNITS = {
    "short": [1e-8] * K,
    "long": [1e8] * K,
    "shortest": [1e-18] * K,
    "longest": [1e18] * K,
    "short beside long": [1e-8, 1.0, 1e6, 1e-3],
    "shortest beside longest": [1e-18, 1e18, 1.0, 1e-9],
}
each_unit = pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)


def directions(kind="conflicting", k=K, seed=0, n=30):
    """Rows `(k, n)` of length 1, float64."""
    rows = samples(kind, k, 1, seed, n)[0]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def weights_of(rule, rows):
    """The weights `(k,)`, float64, of rows as they are: in float32 alone."""
    if rule.num_components is None:
        rule.build(len(rows))
    rows = ops.convert_to_tensor(np.asarray(rows, "float32"))
    if keras.backend.backend() != "tensorflow" or "history" in rule.needs or rule.draws:
        return np.float64(ops.convert_to_numpy(_weigh(rule, rows)))
    # As a graph, made once for all rules like it: faster than op by op.
    key = json.dumps(keras.saving.serialize_keras_object(rule)), tuple(rows.shape)
    if key not in _COMPILED:
        import tensorflow as tf

        _COMPILED[key] = tf.function(lambda rows: _weigh(rule, rows, False), autograph=False)
    return np.float64(_COMPILED[key](rows).numpy())


_COMPILED: dict = {}


def _weigh(rule, rows, moves=True):
    """The weights; unless it `moves`, the rule stays as it is."""
    with contextlib.nullcontext() if moves else keras.StatelessScope():
        return rule.weigh(values=ops.ones((rows.shape[0],)), rows=rows)


def parts_of(rule, rows):
    """The lengths of the parts `w_i g_i` of the step, in those units in which the largest is 1."""
    parts = weights_of(rule, rows) * np.linalg.norm(np.float64(rows), axis=1)
    return parts / np.abs(parts).max()


# A factor of all gradients: of the weights it is no factor, or one by a power.
POWERS = {NashMTL: -1.0, FairGrad: -1.0}


@each_unit
@every_rule
def test_weights_are_finite_and_a_short_gradient_has_one(cls, units):
    rows = directions() * np.array(units)[:, None]
    weights = weights_of(PLAIN[cls](), rows)
    assert np.all(np.isfinite(weights)) and np.any(weights != 0)
    if cls not in (MGDA, CAGrad, DualProj, UPGrad, AlignedMTL):  # which may leave one out
        assert np.all(weights != 0)


@every_rule
@pytest.mark.parametrize("factor", [1e-18, 1e-10, 1e-4, 1e4, 1e10, 1e18])
def test_a_factor_of_all_gradients_is_one_of_the_step_or_none(cls, factor):
    rows = directions() * np.array([0.5, 1.0, 2.0, 3.0])[:, None]
    expected = weights_of(PLAIN[cls](), rows) * factor ** POWERS.get(cls, 0.0)
    found = weights_of(PLAIN[cls](), rows * factor)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())


# Of each gradient its own factor: the same parts, or the same shares of them.
FREE = (NashMTL, FairGrad, InverseGradientNorm, GradientNormBalance, IMTLG, ConFIG)


@each_unit
@rules(*FREE)
def test_units_do_not_change_the_direction(cls, units):
    rule = {GradientNormBalance: lambda: GradientNormBalance(momentum=0.0)}.get(cls, cls)
    rows = directions("plain")
    expected = parts_of(rule(), rows)
    found = parts_of(rule(), rows * np.array(units)[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def shortest(rows):
    """MGDA of `z = v n`: the Gramian itself spans more than float64 can solve for."""
    n = np.linalg.norm(rows, axis=1)
    units = rows / n[:, None]
    v = oracle.smallest(units @ units.T, n.min() / n) / n
    return v / v.sum()


TWINS = {
    MGDA: shortest,
    UPGrad: oracle.upgrad,
    DualProj: oracle.dual_proj,
    NashMTL: oracle.nash,
    InverseGradientNorm: oracle.inverse_norm,
}


@pytest.mark.parametrize("units", [[1e-8, 1.0, 1e6, 1e-3], [1e-6, 1e-5, 1e-4, 1e6]], ids=str)
@rules(*TWINS)
def test_it_is_its_twin_in_float64(cls, units):
    for seed in range(3):
        rows = np.float64(np.float32(directions(seed=seed) * np.array(units)[:, None]))
        found, expected = (steps_of(rows, w) for w in (weights_of(cls(), rows), TWINS[cls](rows)))
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


@each_unit
@rules(UPGrad, DualProj, MGDA, ConFIG, NashMTL, IMTLG, FairGrad)
def test_no_component_is_made_worse(cls, units):
    for kind in ("plain", "conflicting"):
        rows = directions(kind) * np.array(units)[:, None]
        step = steps_of(rows, weights_of(cls(), rows))
        along = rows @ step / np.linalg.norm(rows, axis=1) / np.linalg.norm(step)
        assert along.min() >= -1e-3


@pytest.mark.parametrize("c", [0.5, 1.5])
@each_unit
def test_conflict_averse_steps_are_at_their_distance(units, c):
    rows = directions() * np.array(units)[:, None]
    mean = rows.mean(axis=0)
    step = steps_of(rows, weights_of(CAGrad(c=c), rows))
    assert np.linalg.norm(step - mean) == pytest.approx(c * np.linalg.norm(mean), rel=2e-3)


@rules(GradNorm, GradientNormBalance)
def test_learned_weights_do_not_see_a_common_unit(cls):
    rows = directions() * np.array([0.5, 1.0, 2.0, 3.0])[:, None]
    one, other = PLAIN[cls](), PLAIN[cls]()
    for _ in range(5):
        expected = weights_of(one, rows)
        np.testing.assert_allclose(weights_of(other, rows * 1e-10), expected, rtol=1e-4)


@rules_but(PCGrad)
def test_zero_means_zero(cls):
    """Also beside a gradient that is hardly more."""
    rows = directions() * np.array([1e-18, 1.0, 0.0, 1e3])[:, None]
    weights = weights_of(PLAIN[cls](), rows)
    assert weights[2] == 0
    live = [0, 1, 3]
    expected = weights_of(PLAIN[cls](), rows[live])
    np.testing.assert_allclose(weights[live], expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_many_entries_that_have_no_square():
    """Each of 1e-22, whose square float32 has not; together of length 1e-19."""
    rows = np.full((2, 1_000_000), 1e-22)
    rows[1, ::2] *= -1
    weights = weights_of(NashMTL(), rows)
    np.testing.assert_allclose(weights * np.linalg.norm(rows, axis=1), np.sqrt(0.5), rtol=1e-3)


# Powers of two.


def test_scales_are_powers_of_two_near_the_sizes():
    sizes = np.float32(10.0) ** np.linspace(-37, 38, 301, dtype="float32")
    found = ops.convert_to_numpy(powers_of_two(ops.convert_to_tensor(sizes)))
    assert np.all(np.frexp(found)[0] == 0.5)
    assert np.all(sizes / found >= 0.5) and np.all(sizes / found <= 4)
    odd = ops.convert_to_tensor(np.array([0.0, np.inf, np.nan], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(powers_of_two(odd)), 1)


@pytest.mark.parametrize("n", [7, 5000])
def test_the_products_of_each_framework_are_those_of_float64(n):
    """In two arrays, of each the entries of another size."""
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(3, 2 * n)) * np.array([[1e-17], [1.0], [1e17]])
    rows[:, n:] *= 1e-3
    rows = rows.astype("float32")
    columns = [[ops.convert_to_tensor(row) for row in half] for half in np.split(rows, 2, axis=1)]
    found, scales, largest = map(ops.convert_to_numpy, gradients.products_of(columns))
    np.testing.assert_array_equal(largest, np.abs(rows).max(axis=1))
    scaled = np.float64(rows) / scales[:, None]
    expected = scaled @ scaled.T
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(found / size, expected / size, atol=1e-5)


def test_an_array_without_entries_has_no_gradient():
    empty = [ops.zeros((0,)), ops.zeros((0,))]
    np.testing.assert_array_equal(ops.convert_to_numpy(backend.largest(empty)), [0, 0])


@pytest.mark.filterwarnings("ignore:NashMTL cannot see a conflict")  # and there is none
@pytest.mark.parametrize("place", ["output", "parameters"])
def test_in_training_a_short_gradient_is_no_zero(place):
    """One part of length 1e-8 beside one of 1e6: both are brought to 0."""
    import combined_losses as cl

    def part(index, unit):
        def value(y_true, y_pred):
            return unit * ops.mean(ops.square(y_true - y_pred)[:, index])

        return value

    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")
    parts = {"short": part(0, 1e-8), "long": part(1, 1e6)}
    loss = cl.CompositeLoss(parts, weighting=NashMTL(gradients=place))
    model = cl.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(0.05), loss=loss)
    x, y = np.ones((4, 1), "float32"), np.ones((4, 2), "float32")
    for _ in range(30):  # each part of the step has the length of the other
        model.train_on_batch(x, y)
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=0.1)
