"""The toy problem of CAGrad and Nash-MTL: where do the rules go, in float32, in a compiled loop?

Two objectives of two numbers, five starts, Adam. The front is the line `x2 = -8.3552` between
`|x1| < 7.1`. Only what no rounding changes is asserted.
"""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings.products import Products

BACKEND = keras.backend.backend()
STARTS = [(-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)]
LOWER = 5e-6

compiled = pytest.mark.skipif(
    BACKEND == "torch",
    reason="35,000 steps without a compiler, of milliseconds each; the rules are the same code",
)


# The objectives, with their gradients by hand: every backend runs the same lines.


def logarithm(u, du):
    """`log max(|u|, LOWER) + 6`, and its gradient."""
    there = ops.cast(ops.abs(u) > LOWER, u.dtype)
    value = ops.log(ops.maximum(ops.abs(u), LOWER)) + 6.0
    return value, [there * d / ops.where(there > 0, u, 1.0) for d in du]


def objectives(x, scale):
    """The values `(2,)` and their gradients `(2, 2)` at x `(2,)`."""
    x = ops.convert_to_tensor(x)
    x1, x2 = x[0], x[1]
    t, half = ops.tanh(x2), ops.tanh(x2 / 2)
    a1, da1 = logarithm(0.5 * (-x1 - 7) + t, (-0.5, 1 - t**2))
    a2, da2 = logarithm(0.5 * (-x1 + 3) - t + 2, (-0.5, t**2 - 1))
    q1 = ((x1 - 7) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
    q2 = ((x1 + 7) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
    c1, c2 = ops.maximum(half, 0.0), ops.maximum(-half, 0.0)
    slope = (1 - half**2) / 2
    up = (ops.sign(x2) + 1) / 2  # 1/2 at a tie, as in every framework
    rows = [
        [
            a * c1 + q * c2,
            da[0] * c1 + (x1 + b) / 5 * c2,
            da[1] * c1 + a * slope * up + (x2 + 8) / 50 * c2 - q * slope * (1 - up),
        ]
        for a, da, q, b in ((a1, da1, q1, -7), (a2, da2, q2, 7))
    ]
    values = ops.stack([scale * rows[0][0], rows[1][0]])
    gradients = ops.stack([scale * ops.stack(rows[0][1:]), ops.stack(rows[1][1:])])
    return values, gradients


@pytest.mark.parametrize("x", [(-8.5, 7.5), (4.0, 3.0), (-7.5, -0.5), (9.0, -1.0), (2.0, -6.0)])
def test_the_gradients_are_those_of_the_values(x):
    def values(x):
        return ops.convert_to_numpy(objectives(np.array(x, "float32"), 0.1)[0])

    gradients = ops.convert_to_numpy(objectives(np.array(x, "float32"), 0.1)[1])
    steps = 0.01 * np.eye(2)
    slopes = np.stack([(values(x + step) - values(x - step)) / 0.02 for step in steps], 1)
    np.testing.assert_allclose(gradients, slopes, rtol=5e-3, atol=1e-3)


def test_a_tie_has_half_of_the_gradient_of_either_side():
    """At (0, 0) both objectives are 0; without it nothing would start there."""
    sides = [
        ops.convert_to_numpy(objectives(np.array((0.0, x2), "float32"), 0.1)[1])
        for x2 in (-1e-6, 0.0, 1e-6)
    ]
    np.testing.assert_allclose(sides[1], (sides[0] + sides[2]) / 2, rtol=1e-4, atol=1e-4)


# Descent: one step, the rule with its state inside, and a compiled loop of them.


def adam(x, m, v, gradient, number):
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    m_hat, v_hat = m / (1 - 0.9**number), v / (1 - 0.999**number)
    return x - 1e-3 * m_hat / (ops.sqrt(v_hat) + 1e-8), m, v


def rule_step(rule, state, values, rows):
    """The weights of one step and the new state, without a side effect."""
    before = list(zip(rule.variables, state, strict=True))
    with keras.StatelessScope(state_mapping=before) as scope:
        weights, _ = rule.step(values, True, Products(ops.matmul(rows, ops.transpose(rows))))
        after = [scope.get_current_value(variable) for variable in rule.variables]
    return weights, after


def one_step(rule, scale, number, x, m, v, *state):
    values, rows = objectives(x, scale)
    # Rules of values want positive ones: the distances from the two minima.
    weights, state = rule_step(rule, state, values + np.array([21 * scale, 21.0], "float32"), rows)
    return (*adam(x, m, v, ops.matmul(weights, rows), number), *state)


def in_one_graph(function):
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def ends(rule, steps, starts=STARTS, scale=0.1):
    """Where Adam is after so many steps from each of the starts, `(starts, 2)`."""
    rule.build(2)
    x = np.array(starts, "float32")
    state = [np.stack([ops.convert_to_numpy(v.value)] * len(x)) for v in rule.variables]
    step = functools.partial(one_step, rule, scale)

    def body(index, loop):
        number = ops.cast(index + 1, "float32")
        return ops.vectorized_map(lambda arrays: step(number, *arrays), tuple(loop))

    def descent(*loop):
        return ops.fori_loop(0, steps, body, loop)

    return ops.convert_to_numpy(in_one_graph(descent)(x, 0 * x, 0 * x, *state)[0])


def on_front(x):
    return (np.abs(x[:, 1] + 8.3552) < 0.1) & (np.abs(x[:, 0]) < 7.1)


RULES = {
    "NashMTL": cl.weightings.NashMTL,
    "IMTLG": cl.weightings.IMTLG,
    "MGDA": cl.weightings.MGDA,
    "GradNorm": cl.weightings.GradNorm,
    "FAMO": lambda: cl.weightings.FAMO(weight_decay=0.0),
}


@compiled
@pytest.mark.parametrize("name", RULES)
def test_rules_that_balance_reach_the_front_from_everywhere(name):
    x = ends(RULES[name](), 35_000)
    assert on_front(x).all(), x


@compiled
def test_the_sum_is_caught():
    """From (9, 9), between the two logarithms; and on the front it serves the larger scale."""
    x = ends(cl.weightings.GramianWeighting(lambda gramian: 0 * gramian[0] + 1.0), 35_000)
    assert not on_front(x)[2], x
    assert (x[on_front(x), 0] < -5).all(), x


@compiled
def test_cagrad_goes_to_the_minimum_of_the_mean(pytestconfig):
    """The equal scales of the paper; in the long form its three starts, one of them near."""
    starts, steps = [(-8.5, -5.0)], 20_000
    if pytestconfig.option.long:
        starts, steps = [(-8.5, 7.5), *starts, (9.0, 9.0)], 100_000
    x = ends(cl.weightings.CAGrad(c=0.5), steps, starts, 1.0)
    np.testing.assert_allclose(x[:, 0], 0.0, atol=0.05)


GRAMIAN_RULES = [
    name
    for name in cl.weightings.__all__
    if issubclass(getattr(cl.weightings, name), cl.weightings.GramianWeighting)
    and name != "GramianWeighting"
]


@pytest.mark.parametrize("name", GRAMIAN_RULES)
def test_one_converged_component_does_not_stop_the_others(name):
    """`f_i = x_i^2` from (0, -3), under SGD: the first has no gradient."""
    rule = getattr(cl.weightings, name)()
    rule.build(2)
    x = np.array([0.0, -3.0], "float32")
    for _ in range(3):
        rows = np.diag(2 * x)
        weights, _ = rule.step(x**2, True, Products(rows @ rows.T))
        weights = ops.convert_to_numpy(weights)
        assert weights[0] == 0 and weights[1] > 0
        x = x - 0.1 * weights @ rows
    assert x[0] == 0
    assert x[1] > -2.95
