"""The rules that read gradients: stored cases, the claims of their papers, odd and missing rows."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

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
from combined_losses.weightings.products import Products, describe
from combined_losses.weightings.projections import _weights_for_orders
from tests.oracles import weightings as oracle
from tests.weightings.gradients import (
    KINDS,
    METHODS,
    OWN,
    PLAIN,
    SEQUENCES,
    compiled_weights,
    drawn,
    every_rule,
    gramian_of,
    mapped,
    read_cases,
    rules,
    rules_but,
    run,
    samples,
    steps_of,
    weights_of,
)

STORED, ARRAYS = read_cases()
BACKEND = keras.backend.backend()


def norms_of(rows):
    return np.linalg.norm(np.float64(rows), axis=-1)


def assert_same_step(rows, weights, expected, rtol=1e-4):
    """The two give the same direction, relative to the parts that it is made of."""
    step, wanted = steps_of(rows, weights), steps_of(rows, expected)
    scale = np.maximum(norms_of(wanted), 1e-3 * np.mean(np.abs(expected) * norms_of(rows)))
    assert norms_of(step - wanted) <= rtol * scale


# Reference cases.

EACH_CASE = [
    (case, method)
    for case, entry in STORED["cases"].items()
    for method in entry["methods"]
    if method != "PCGrad"
]


@pytest.mark.backend_free
def test_every_rule_has_stored_cases():
    made = {type(make()) for make in (*METHODS.values(), *SEQUENCES.values())}
    assert made == set(PLAIN)


def assert_close_weights(weights, expected, rows, rtol):
    sizes, wanted = norms_of(rows), np.abs(expected) * norms_of(rows)
    scale = np.maximum(wanted, 1e-3 * wanted.max())
    assert np.all(np.abs(weights - expected) * sizes <= rtol * scale)


@pytest.mark.parametrize("case, method", EACH_CASE)
def test_it_gives_the_stored_weights_and_direction(case, method):
    tolerance, rows = STORED["cases"][case]["methods"][method], ARRAYS[f"J/{case}"]
    # The rank that AlignedMTL decides on is that of float32.
    ending = "/f32rank" if f"w/{case}/{method}/f32rank" in ARRAYS else ""
    expected = ARRAYS[f"w/{case}/{method}{ending}"]
    direction = ARRAYS[f"d/{case}/{method}{ending}"]
    weights = weights_of(METHODS[method](), rows)
    if not ending:
        assert_close_weights(weights, expected, rows, tolerance["rtol_weights_f32"])
    scale = max(norms_of(direction), 1e-3 * np.mean(np.abs(expected) * norms_of(rows)))
    error = norms_of(steps_of(rows, weights) - direction)
    assert error <= tolerance["rtol_direction_f32"] * scale


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", STORED["degenerate"])
def test_it_gives_the_stored_answer_to_degenerate_rows(case, method):
    entry, rows = STORED["degenerate"][case], ARRAYS[f"degenerate/{case}/J"]
    weights = weights_of(METHODS[method](), rows)
    assert np.all(np.isfinite(weights))
    expected = ARRAYS.get(f"degenerate/{case}/w/{method}")
    if expected is not None:
        np.testing.assert_allclose(weights, expected, rtol=2e-4, atol=1e-6)
    direction = ARRAYS.get(f"degenerate/{case}/d/{method}")
    if direction is not None:
        rtol = entry.get("looser", {}).get(method, entry.get("rtol_direction_f32", 0.0))
        atol = 5e-3 * norms_of(rows).mean() if "atol_direction_f32" in entry else 1e-6
        error = norms_of(steps_of(rows, weights) - direction)
        assert error <= rtol * norms_of(direction) + atol
    if case == "all_zero":
        np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)


def in_orders(rows, orders):
    active = ops.ones((len(rows),))
    gradients = describe(Products(ops.convert_to_tensor(gramian_of(rows))), active, active)
    weights = _weights_for_orders(gradients, ops.convert_to_tensor(np.asarray(orders, "int32")))
    return ops.convert_to_numpy(weights)


@pytest.mark.parametrize("case", STORED["cases"])
def test_surgery_in_a_given_order_is_as_stored(case):
    rows, k = ARRAYS[f"J/{case}"], STORED["cases"][case]["k"]
    orders, expected = ARRAYS[f"pcgrad/{case}/orders"], ARRAYS[f"pcgrad/{case}/w_by_order"]
    chosen = range(0, len(orders), max(1, len(orders) // 12))
    for order, weights in ((orders[i], expected[i]) for i in chosen):
        found = in_orders(rows, np.tile(order, (k, 1)))
        assert_close_weights(found, weights, rows, 2e-4)
    found = in_orders(rows, ARRAYS[f"pcgrad/{case}/row_orders"])
    assert_close_weights(found, ARRAYS[f"pcgrad/{case}/w_row_orders"], rows, 2e-4)


@pytest.mark.parametrize("case", ["conflict", "crowded"])
def test_surgery_in_random_orders_has_the_stored_mean(case):
    """All orders of a row are as likely."""
    rows, count = ARRAYS[f"J/{case}"], 2000
    found = drawn(PCGrad(seed=0), rows, count)
    expected, spread = (ARRAYS[f"pcgrad/{case}/{name}"] for name in ("w_expected", "w_sd"))
    error = np.abs(found.mean(axis=0) - expected)
    assert np.all(error <= 5 * spread / np.sqrt(count) + 1e-5 * np.abs(expected))
    assert np.all(found.std(axis=0) >= 0.5 * spread)


def test_surgery_of_two_needs_no_draw():
    rows = ARRAYS["J/k2"]
    found = np.stack([weights_of(PCGrad(seed=seed), rows) for seed in range(2)])
    np.testing.assert_array_equal(found, found[[0, 0]])
    np.testing.assert_allclose(found[0], ARRAYS["pcgrad/k2/w_expected"], rtol=1e-5)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("case", STORED["sequences"])
def test_it_gives_the_stored_sequence(case, name):
    entry = STORED["sequences"][case]
    rows, values = ARRAYS[f"seq/{case}/J"], ARRAYS[f"seq/{case}/values"]
    expected = ARRAYS[f"seq/{case}/{name}/w"]
    weights = run(SEQUENCES[name](), rows, values)
    scale = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max(axis=1, keepdims=True))
    tolerance = entry["looser"].get(name, entry["rtol_f32"])
    assert np.max(np.abs(weights - expected) / scale) <= tolerance


# Golden values.

GOLDEN_ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
GOLDEN = {
    "UPGrad": (0.2924, 1.9006, 1.9006),
    "DualProj": (0.556, 1.111, 1.111),
    "MGDA": (0.0, 1.0, 1.0),
    "PCGrad": (0.5848, 3.8012, 3.8012),
    "CAGrad": (0.1835, 1.2041, 1.2041),
    "IMTLG": (0.0767, 1.0, 1.0),
    "AlignedMTL": (0.2133, 0.9673, 0.9673),
    "ConFIG": (0.1588, 2.0706, 2.0706),
    "NashMTL_unclipped": (0.0766, 0.9985, 0.9985),
    "NashMTL": (0.0542, 0.7061, 0.7061),
}


@pytest.mark.parametrize("method", GOLDEN)
def test_it_gives_the_published_direction(method):
    step = steps_of(GOLDEN_ROWS, weights_of(METHODS[method](), GOLDEN_ROWS))
    np.testing.assert_allclose(step, GOLDEN[method], atol=6e-4)


# Twins, with every argument off its default.

TWINS = {
    InverseGradientNorm: oracle.inverse_norm,
    MGDA: oracle.mgda,
    UPGrad: oracle.upgrad,
    DualProj: oracle.dual_proj,
    IMTLG: oracle.imtlg,
    ConFIG: oracle.config,
    NashMTL: oracle.nash,
    FairGrad: oracle.fair,
    AlignedMTL: oracle.aligned,
}


@rules(*TWINS)
@pytest.mark.parametrize("kind", ["plain", "conflicting", "agreeing"])
def test_it_is_its_twin(cls, kind):
    for own in ({}, OWN[cls]):
        for rows in samples(kind, 3, 3):
            expected = TWINS[cls](rows, **own)
            assert_same_step(rows, weights_of(cls(**own), rows), expected, rtol=1e-3)


@rules(NashMTL, FairGrad, InverseGradientNorm, MGDA, UPGrad, DualProj)
def test_it_is_its_twin_whatever_the_lengths(cls):
    for rows in samples("scaled", 4, 3):
        assert_same_step(rows, weights_of(cls(), rows), TWINS[cls](rows), rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5, 1, 4.0, 8, 30.0, 100])
def test_a_fair_share_solves_its_equation(alpha):
    for rows in samples("scaled", 5, 3) if 0.25 <= alpha <= 8 else ():
        assert_same_step(rows, weights_of(FairGrad(alpha=alpha), rows), oracle.fair(rows, alpha))
    for rows in samples("plain", 5, 3):
        weights = np.float64(weights_of(FairGrad(alpha=alpha), rows))
        assert np.all(weights > 0)
        np.testing.assert_allclose(rows @ rows.T @ weights, weights ** (-1 / alpha), rtol=2e-3)


def test_surgery_is_what_it_does_to_the_gradients():
    rng = np.random.default_rng(0)
    for rows in samples("conflicting", 4, 4):
        orders = np.argsort(rng.uniform(size=(4, 4)), axis=1)
        step = steps_of(rows, in_orders(rows, orders))
        np.testing.assert_allclose(step, oracle.pcgrad_step(rows, orders), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["norm_sum", "norm_ref", "max_mean", "mean_ref"])
def test_a_balance_of_lengths_is_a_running_mean_of_ratios(mode):
    rows, reference = samples("scaled", 3, 6, n=5), None if mode == "norm_sum" else 1
    rule = GradientNormBalance(momentum=0.75, mode=mode, reference=reference)
    balance, expected, sizes = np.ones(3), [], np.abs(rows)
    for n, largest, mean in zip(norms_of(rows), sizes.max(2), sizes.mean(2), strict=True):
        ratio = {
            "norm_sum": n.sum() / n,
            "norm_ref": n[1] / n,
            "max_mean": largest[1] / mean,
            "mean_ref": mean[1] / mean,
        }[mode]
        if reference is not None:
            ratio[reference] = 1.0
        balance = 0.75 * balance + 0.25 * ratio
        expected.append(balance)
    np.testing.assert_allclose(run(rule, rows), expected, rtol=1e-4)


# Laws that the sheet states.

# JAX maps one program over all; the others call it again and again.
MANY = {"jax": 500, "tensorflow": 60, "torch": 20}[BACKEND]


@rules(UPGrad, DualProj, MGDA, ConFIG, NashMTL, IMTLG)
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_no_component_is_made_worse(cls, k):
    """Whatever the lengths: over six powers of ten."""
    rows = samples("scaled", k, MANY)
    weights = mapped(cls(), rows)
    steps = steps_of(rows, weights)
    along = np.einsum("mkn,mn->mk", rows, steps) / norms_of(rows) / norms_of(steps)[:, None]
    assert np.min(along) >= -1e-3
    if cls in (UPGrad, DualProj, MGDA, NashMTL):
        assert np.min(weights) >= 0


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2, 3, 5, 8])
@pytest.mark.parametrize("k", [2, 8, 16])
def test_a_fair_share_makes_no_component_worse(alpha, k):
    """Over six powers of ten: up to rounding, where a gain is next to nothing."""
    rows = samples("scaled", k, MANY, n=40)
    weights = mapped(FairGrad(alpha=alpha), rows)
    assert np.all(weights >= 0)
    # Relative to the largest part: weights at alpha = 8 span more than float32 has squares for.
    sizes = norms_of(rows)
    steps = steps_of(rows, weights / np.max(np.float64(weights) * sizes, axis=1, keepdims=True))
    along = np.einsum("mkn,mn->mk", rows, steps) / sizes / norms_of(steps)[:, None]
    assert np.min(along) >= -5e-6


@rules(UPGrad, DualProj, MGDA)
@pytest.mark.parametrize("k, n", [(4, 4), (8, 8), (8, 5), (4, 1)])
def test_up_to_as_many_components_as_entries_none_is_made_worse(cls, k, n):
    """Of more, what is against a component is rounding of what was added up."""
    assert "k <= n" in cls.__doc__
    rows = samples("plain", k, 20, n=n)
    parts = mapped(cls(), rows)[..., None] * rows
    gains = np.einsum("mkn,mn->mk", rows, parts.sum(axis=1)) / norms_of(rows)
    step, largest = norms_of(parts.sum(axis=1)), norms_of(parts).max(axis=1)
    allowed = 1e-3 * step if k <= n else 1e-3 * largest
    assert np.all(gains >= -allowed[:, None])


@rules(UPGrad, DualProj, MGDA, NashMTL, FairGrad)
@pytest.mark.parametrize("kind", KINDS)
def test_no_component_is_made_worse_by_gradients_of_any_kind(cls, kind):
    for rows in samples(kind, 4, 3):
        step = steps_of(rows, weights_of(cls(), rows))
        assert np.all(rows @ step >= -1e-3 * norms_of(rows) * norms_of(step))


@rules(PCGrad, InverseGradientNorm, CAGrad)
def test_of_two_neither_is_made_worse(cls):
    """By CAGrad with c = 1, for any number."""
    rule = {CAGrad: lambda: CAGrad(c=1.0)}.get(cls, cls)
    for rows in samples("conflicting", 2, 5):
        step = steps_of(rows, weights_of(rule(), rows))
        assert np.all(rows @ step >= -1e-3 * norms_of(rows) * norms_of(step))


STATELESS = [cls for cls in PLAIN if cls not in (GradNorm, GradientNormBalance)]


@rules_but(PCGrad)
@pytest.mark.parametrize("k", [2, 5])
def test_a_permutation_of_the_components_permutes_the_weights(cls, k):
    for rows in samples("conflicting", k, 2):
        order = np.random.default_rng(1).permutation(k)
        values = np.linspace(0.5, 2.0, k)
        expected = weights_of(PLAIN[cls](), rows, values)[order]
        found = weights_of(PLAIN[cls](), rows[order], values[order])
        assert_same_step(rows[order], found, expected, rtol=1e-4)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


def test_a_permutation_of_surgery_permutes_the_orders():
    rows, order = samples("conflicting", 4)[0], np.array([2, 0, 3, 1])
    orders = np.argsort(np.random.default_rng(2).uniform(size=(4, 4)), axis=1)
    where = np.argsort(order)
    found = in_orders(rows[order], where[orders[order]])
    np.testing.assert_allclose(found, in_orders(rows, orders)[order], rtol=1e-4)


POWERS = {NashMTL: -1.0, FairGrad: -1.0}  # of the weights; d = J' w has one more


@rules(*STATELESS)
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e4, 1e12])
def test_a_common_factor_of_the_losses_is_one_of_the_step_or_none(cls, factor):
    rows = samples("conflicting", 4)[0]
    expected = weights_of(PLAIN[cls](), rows) * factor ** POWERS.get(cls, 0.0)
    np.testing.assert_allclose(weights_of(PLAIN[cls](), rows * factor), expected, rtol=5e-3)


def test_a_common_factor_moves_a_fair_share_by_its_power():
    rows, alpha = samples("plain", 3)[0], 2.0
    one, other = (steps_of(t * rows, weights_of(FairGrad(alpha), t * rows)) for t in (1.0, 100.0))
    np.testing.assert_allclose(other, one * 100.0 ** ((1 - alpha) / (1 + alpha)), rtol=1e-3)


UNITS = np.array([1e3, 1.0, 1e-2, 20.0])


@rules(IMTLG, ConFIG, InverseGradientNorm, NashMTL, FairGrad)
def test_units_of_the_components_do_not_change_the_direction(cls):
    rows = samples("plain", 4)[0]
    one, other = (steps_of(J, weights_of(cls(), J)) for J in (rows, UNITS[:, None] * rows))
    if cls in (NashMTL, FairGrad):  # nor the length
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(other / norms_of(other), one / norms_of(one), rtol=1e-3, atol=1e-4)


def test_without_rescaling_lengths_do_not_depend_on_the_units():
    rows, rule = samples("plain", 4)[0], lambda: InverseGradientNorm(rescale=False)
    one, other = (steps_of(J, weights_of(rule(), J)) for J in (rows, UNITS[:, None] * rows))
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@rules(UPGrad, ConFIG, InverseGradientNorm)
def test_it_is_linear_in_the_units(cls):
    rows, other = samples("conflicting", 4)[0], UNITS[[2, 3, 1, 0]]

    def step(units):
        return steps_of(units[:, None] * rows, weights_of(cls(), units[:, None] * rows))

    expected = step(UNITS) + step(other)
    np.testing.assert_allclose(
        step(UNITS + other), expected, rtol=1e-3, atol=1e-3 * norms_of(expected)
    )


def test_surgery_is_linear_in_the_units():
    rows, orders = samples("conflicting", 3)[0], np.array([[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    parts = np.array([[1.0, 5.0, 0.1], [2.0, 0.3, 1.0]])[..., None]
    each = [steps_of(part * rows, in_orders(part * rows, orders)) for part in parts]
    whole = parts.sum(axis=0) * rows
    np.testing.assert_allclose(steps_of(whole, in_orders(whole, orders)), sum(each), rtol=1e-3)


@every_rule
def test_one_component_alone_is_left_as_it_is(cls):
    rows = np.array([[3.0, 0.0, -4.0]])
    alone = {CAGrad: 1.5, NashMTL: 1 / 5, FairGrad: 1 / 5}
    assert weights_of(PLAIN[cls](), rows) == pytest.approx(alone.get(cls, 1.0), rel=1e-4)


@rules(PCGrad, UPGrad, DualProj)
def test_without_conflict_it_is_the_sum_or_the_mean(cls):
    for rows in samples("agreeing", 4, 3):
        expected = 1.0 if cls is PCGrad else 0.25
        np.testing.assert_allclose(weights_of(PLAIN[cls](), rows), np.full(4, expected), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_step_is_stationary(kind):
    """`g_i . d >= |d|^2`, and equal where `w_i > 0`: the conditions of Karush, Kuhn and Tucker."""
    for rows in samples(kind, 5, 3):
        weights = np.float64(weights_of(MGDA(), rows))
        assert weights.sum() == pytest.approx(1, rel=1e-5) and weights.min() >= 0
        step = steps_of(rows, weights)
        rest = (rows @ step - step @ step) / norms_of(rows) / norms_of(step)
        assert rest.min() >= -1e-3
        assert np.all(np.abs(rest[weights * norms_of(rows) > 1e-3 * norms_of(step)]) <= 1e-3)


@pytest.mark.parametrize("c", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["plain", "conflicting", "collinear", "scaled"])
def test_conflict_averse_steps_are_the_best_at_their_distance(kind, c):
    """`y >= 0` on the components of least gain alone: the conditions of its maximum."""
    for rows in samples(kind, 4, 2):
        weights = np.float64(weights_of(CAGrad(c=c), rows))
        mean, step, y = rows.mean(axis=0), steps_of(rows, weights), weights - 0.25
        assert norms_of(step - mean) == pytest.approx(c * norms_of(mean), rel=2e-3)
        moved = y * norms_of(rows)
        assert moved.min() >= -1e-3 * np.abs(moved).max()
        gains = rows @ step
        excess = (gains - gains.min()) / norms_of(rows) / norms_of(step)
        assert np.all(excess[moved > 1e-2 * moved.max()] <= 2e-3)


def test_conflict_averse_with_nothing_is_the_mean_and_may_be_rescaled():
    rows = samples("conflicting", 4)[0]
    np.testing.assert_array_equal(weights_of(CAGrad(c=0), rows), np.full(4, 0.25, "float32"))
    weights = weights_of(CAGrad(c=0.5), rows)
    for rescale, divisor in (("squared", 1.25), ("linear", 1.5)):
        found = weights_of(CAGrad(c=0.5, rescale=rescale), rows)
        np.testing.assert_allclose(found * divisor, weights, rtol=1e-5)


@pytest.mark.parametrize("max_norm", [0.25, 1.0, 1e3])
def test_a_bargain_is_as_long_as_said(max_norm):
    for k in (2, 5):
        for rows in samples("scaled", k, 2):
            step = steps_of(rows, weights_of(NashMTL(max_norm), rows))
            assert norms_of(step) == pytest.approx(min(max_norm, np.sqrt(k)), rel=1e-3)


@rules(IMTLG, ConFIG)
def test_it_has_the_same_angle_to_all(cls):
    for rows in samples("plain", 5, 3):
        step = steps_of(rows, weights_of(cls(), rows))
        cosines = rows @ step / norms_of(rows) / norms_of(step)
        np.testing.assert_allclose(cosines, cosines[0], rtol=1e-3)
        if cls is ConFIG:
            projections = cosines * norms_of(rows)
            assert norms_of(step) == pytest.approx(projections.sum(), rel=1e-3)


def test_angles_follow_the_preference():
    rows, preference = samples("plain", 3)[0], [1.0, 2.0, 4.0]
    step = steps_of(rows, weights_of(ConFIG(preference=preference), rows))
    cosines = rows @ step / norms_of(rows) / norms_of(step)
    np.testing.assert_allclose(cosines / cosines[0], preference, rtol=1e-3)


@rules(UPGrad, DualProj, ConFIG, AlignedMTL)
def test_only_the_ratios_of_a_preference_matter(cls):
    rows = samples("conflicting", 3)[0]
    expected = weights_of(cls(preference=[1.0, 2.0, 5.0]), rows)
    for factor in (0.125, 1e30):
        found = weights_of(cls(preference=[factor, 2 * factor, 5 * factor]), rows)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    equal = weights_of(cls(preference=(2, 2, 2)), rows)
    np.testing.assert_allclose(equal, weights_of(cls(), rows), rtol=1e-5)


def test_of_two_the_rules_meet():
    rows = samples("conflicting", 2)[0]
    steps = {name: steps_of(rows, weights_of(make(), rows)) for name, make in METHODS.items()}
    np.testing.assert_allclose(steps["UPGrad"], steps["PCGrad"] / 2, rtol=1e-4)
    np.testing.assert_allclose(steps["ConFIG"], steps["InverseGradientNorm"], rtol=1e-3)
    steps["MGDA"] = steps_of(rows, weights_of(MGDA(normalize=True), rows))
    units = [steps[name] / norms_of(steps[name]) for name in ("NashMTL", "IMTLG", "ConFIG", "MGDA")]
    for unit in units[1:]:
        np.testing.assert_allclose(unit, units[0], rtol=1e-3, atol=1e-4)
    cosine = rows[0] @ rows[1] / np.prod(norms_of(rows))
    expected = 1 / norms_of(rows) / np.sqrt(1 + cosine)
    np.testing.assert_allclose(weights_of(FairGrad(), rows), expected, rtol=1e-3)


def test_orthogonal_gradients_of_one_length_are_aligned_already():
    rows = 3 * np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0].T
    for scale in ("min", "median", "mean"):
        found = weights_of(AlignedMTL(scale=scale, preference=[1.0, 1.0, 2.0]), rows)
        np.testing.assert_allclose(found, [0.25, 0.25, 0.5], rtol=1e-4)


def test_lengths_are_made_equal():
    rows = samples("scaled", 5)[0]
    lengths = weights_of(InverseGradientNorm(), rows) * norms_of(rows)
    np.testing.assert_allclose(lengths, np.full(5, norms_of(rows).mean()), rtol=1e-4)


def test_learned_weights_make_lengths_equal_where_all_fall_alike():
    rows = np.array([[4.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    values = np.geomspace(1.0, 0.1, 80)[:, None] * np.array([1.0, 30.0, 5.0])
    weights = run(GradNorm(learning_rate=0.1), np.tile(rows, (80, 1, 1)), values)
    np.testing.assert_allclose(weights[0], np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), np.full(80, 3.0), rtol=1e-5)
    lengths = weights[-1] * norms_of(rows)
    np.testing.assert_allclose(lengths, lengths.mean() * np.ones(3), rtol=0.15)


def test_learned_weights_prefer_what_is_slow():
    rows = np.tile(np.eye(2), (30, 1, 1))
    values = np.stack([0.9 ** np.arange(30), np.ones(30)], axis=1)
    weights = run(GradNorm(), rows, values)
    assert np.all(np.diff(weights[2:, 1]) > 0)


# Components without a gradient.

DEAD = {
    "zero": lambda rows: 0 * rows,
    "nan": lambda rows: np.nan * rows,
    "one_nan": lambda rows: np.where(np.arange(rows.size) == 1, np.nan, rows),
    "inf": lambda rows: np.inf * rows,
}


def without(cls, others=None):
    """The rule of four components, or of some of them alone."""
    others = [0, 1, 2, 3] if others is None else others
    if cls in (UPGrad, DualProj, ConFIG, AlignedMTL):
        return cls(preference=[[1.0, 2.0, 3.0, 4.0][i] for i in others])
    return PLAIN[cls]()


@rules_but(PCGrad)
@pytest.mark.parametrize("way", DEAD)
def test_without_its_gradient_a_component_counts_as_absent(cls, way):
    rows, active = samples("conflicting", 4, seed=3)[0], [0, 2, 3]
    expected = weights_of(without(cls, active), rows[active])
    rows[1] = DEAD[way](rows[1])
    weights = weights_of(without(cls), rows)
    # What is not finite spoils the step, and keeps its last weight.
    assert (weights[1] == 0) == np.isfinite(rows[1]).all()
    np.testing.assert_allclose(weights[active], expected, rtol=1e-3, atol=1e-5)


@rules_but(PCGrad)
@pytest.mark.parametrize("case", ["value", "weight"])
def test_without_a_value_or_a_weight_a_component_counts_as_absent(cls, case):
    rows, active = samples("conflicting", 4, seed=4)[0], [0, 2, 3]
    expected = weights_of(without(cls, active), rows[active])
    values, c = np.ones(4), np.ones(4, "float32")
    if case == "value":
        values[1] = np.nan
    else:
        c[1] = 0.0
    weights = weights_of(without(cls), rows, values, c=c)
    assert weights[1] == 0
    np.testing.assert_allclose(weights[active], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scale", ["min", "median", "mean"])
def test_an_absent_component_is_no_eigenvalue(scale):
    rows = samples("scaled", 3, n=6)[0]
    rows = 1e-2 * rows / norms_of(rows)[:, None] * np.array([[1.0], [5.0], [20.0]])
    expected = weights_of(AlignedMTL(scale=scale), rows)
    more = np.concatenate([rows[:1], 0 * rows[:1], rows[1:]])
    found = weights_of(AlignedMTL(scale=scale), more)
    np.testing.assert_allclose(np.delete(found, 1), expected, rtol=1e-3)


def test_surgery_leaves_absent_components_out():
    rows = samples("conflicting", 2, n=5)[0]
    for hole, index in itertools.product((0.0, np.nan), range(3)):
        more = np.insert(rows, index, hole, axis=0)
        found = weights_of(PCGrad(seed=1), more)
        assert (found[index] == 0) == (hole == 0)  # what is not finite keeps its last weight
        np.testing.assert_allclose(np.delete(found, index), weights_of(PCGrad(), rows), rtol=1e-4)


@every_rule
def test_without_any_gradient_the_weights_are_equal(cls):
    found = weights_of(PLAIN[cls](), np.zeros((3, 4)))
    np.testing.assert_allclose(found, np.full(3, 1 / 3), rtol=1e-6)


@every_rule
def test_without_any_finite_gradient_the_weights_are_the_last_ones(cls):
    rule = PLAIN[cls]()
    for hole in (np.nan, np.inf):
        found = weights_of(rule, np.full((3, 4), hole))
        equal = 1 / 3 if rule.sums_to_one else 1.0
        np.testing.assert_allclose(found, np.full(3, equal), rtol=1e-6)


@pytest.mark.parametrize("hole", [np.nan, np.inf, 0.0])
@rules(GradNorm, GradientNormBalance)
def test_a_hole_does_not_reach_the_state(cls, hole):
    """Of the component that has it; a weight that is learned waits."""
    rows, values = samples("plain", 3, 8), np.geomspace(2.0, 1.0, 24).reshape(8, 3)
    rule = PLAIN[cls]()
    run(rule, rows[:4], values[:4])
    names = ("logits", "m", "v", "first") if cls is GradNorm else ("balance",)

    def state():
        return [ops.convert_to_numpy(rule._state[name].value)[1] for name in names]

    before = state()
    holed = rows[4:6].copy()
    holed[:, 1] = hole
    weights = run(rule, holed, values[4:6])[:, 1]
    assert np.all((weights == 0) == (hole == 0))  # what is not finite keeps its last weight
    assert state() == before
    weights = run(rule, rows[6:], values[6:])
    assert np.all(np.isfinite(weights)) and np.all(weights > 0)
    assert state() != before


def test_values_that_are_missing_do_not_reach_learned_weights():
    rows, values = samples("plain", 3, 10), np.ones((10, 3))
    values[3:6, 0] = np.nan
    weights = run(GradNorm(), rows, values)
    assert np.all(weights[3:6, 0] == 0) and np.all(np.isfinite(weights))
    np.testing.assert_allclose(weights[3:6].sum(axis=1), np.full(3, 2.0), rtol=1e-5)
    np.testing.assert_allclose(weights[6:].sum(axis=1), np.full(4, 3.0), rtol=1e-5)


@pytest.mark.parametrize("mode", ["norm_ref", "mean_ref", "max_mean"])
def test_without_the_reference_the_others_wait(mode):
    rows = samples("plain", 3, 4)
    rule = GradientNormBalance(mode=mode, reference=2)
    before = run(rule, rows[:3])[-1]
    rows[3, 2] = 0.0
    found = run(rule, rows[3:])[0]
    np.testing.assert_allclose(found[:2], before[:2], rtol=1e-6)
    assert found[2] == 0


# Extremes.


@every_rule
@pytest.mark.parametrize("size", [1e-15, 1e-9, 1e9, 1e15])
def test_gradients_as_short_or_long_as_float32_has_them(cls, size):
    weights = weights_of(PLAIN[cls](), size * samples("conflicting", 3)[0])
    assert np.all(np.isfinite(weights)) and np.any(weights != 0)


@every_rule
@pytest.mark.parametrize("k", [2, 5])
def test_gradients_that_are_the_same(cls, k):
    rows = np.tile(samples("plain", 1, n=7)[0], (k, 1))
    weights = weights_of(PLAIN[cls](), rows)
    assert np.all(np.isfinite(weights))
    step, unit = steps_of(rows, weights), rows[0] / norms_of(rows[0])
    if cls is not AlignedMTL:
        assert step @ unit == pytest.approx(norms_of(step), rel=1e-4) and norms_of(step) > 0


@every_rule
def test_opposed_gradients(cls):
    """Of one length, and of two."""
    row = samples("plain", 1, n=7)[0]
    for size in (1.0, 3.0):
        weights = weights_of(PLAIN[cls](), np.concatenate([row, -size * row]))
        assert np.all(np.isfinite(weights)) and np.max(np.abs(weights)) < 1e5
    if cls is CAGrad:
        np.testing.assert_array_equal(weights_of(CAGrad(), np.concatenate([row, -row])), [0.5, 0.5])


@every_rule
def test_many_components_of_half_the_rank(cls):
    k = 16
    rows = samples("plain", k, n=k // 2)[0]
    weights = weights_of(PLAIN[cls](), rows)
    assert np.all(np.isfinite(weights)) and np.any(weights != 0)


@rules(UPGrad, NashMTL, CAGrad, AlignedMTL, PCGrad)
def test_sixty_four_components(cls):
    rows = samples("plain", 64, n=200)[0]
    function, _ = compiled_weights(PLAIN[cls](), 64)
    weights = ops.convert_to_numpy(
        function(ops.ones((64,)), ops.convert_to_tensor(gramian_of(rows)))
    )
    assert np.all(np.isfinite(weights))
    if cls in (UPGrad, NashMTL):
        step = steps_of(rows, weights)
        assert np.all(rows @ step >= -1e-3 * norms_of(rows) * norms_of(step))


def test_gramians_that_no_rows_have():
    """An indefinite one, as products of few digits make it: nothing is raised, all is finite."""
    gramian = np.array([[1.0, 0.999, -0.999], [0.999, 1.0, 0.999], [-0.999, 0.999, 1.0]], "float32")
    for cls in PLAIN:
        rule = PLAIN[cls]()
        rule.build(3)
        found = rule.weigh(values=ops.ones((3,)), gramian=ops.convert_to_tensor(gramian))
        assert np.all(np.isfinite(ops.convert_to_numpy(found))), cls.__name__


# Compiled.


@rules_but(PCGrad)
@pytest.mark.parametrize("xla", [True, False] if BACKEND == "tensorflow" else [True])
def test_a_graph_gives_what_the_eager_rule_gives_and_is_made_once(cls, xla):
    function, traces = compiled_weights(PLAIN[cls](), 3, xla)
    eager = PLAIN[cls]()
    eager.build(3)
    for rows in (*samples("conflicting", 3, 2), 1e3 * samples("plain", 3)[0], np.zeros((3, 4))):
        expected = weights_of(eager, rows)
        eager.reset()
        gramian = ops.convert_to_tensor(gramian_of(rows))
        found = ops.convert_to_numpy(function(ops.ones((3,)), gramian))
        if np.any(rows):
            assert_same_step(rows, found, expected, rtol=2e-3)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert BACKEND == "torch" or len(traces) == 1
