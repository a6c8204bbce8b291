"""What the losses of sets of samples claim: distances, gradients, weights, and who sees whom."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import Masked
from tests.composite.children import value
from tests.gradients import compiled, gradient
from tests.messages import raises
from tests.oracles.samples import transport

MMD, Sliced, Sinkhorn = cl.losses.MMD, cl.losses.SlicedWasserstein, cl.losses.Sinkhorn

RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 12, 3)).astype("float32")
LINES = RNG.normal(size=(7, 3)).tolist()
EVERY = {"mmd": MMD(), "sliced": Sliced(LINES), "sinkhorn": Sinkhorn(2.0)}
every = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def close(actual, expected, rtol=1e-5, atol=3e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


# Two sets alike, and apart.


@every
def test_the_same_set_in_another_order_is_0(loss):
    shuffled = RNG.permutation(Y_TRUE)
    close(value(loss, Y_TRUE, shuffled), 0)
    close(gradient(lambda p: loss(Y_TRUE, p), shuffled), 0, atol=1e-5)


@every
def test_members_that_are_equal_have_finite_slopes(loss):
    same = np.ones((4, 3), "float32")
    for y, p in ((same, same), (Y_TRUE[:4], same), (same, Y_TRUE[:4])):
        assert np.isfinite(value(loss, y, p))
        assert np.all(np.isfinite(gradient(lambda p, y=y: loss(y, p), p)))


@every
def test_one_member_each(loss):
    assert np.isfinite(value(loss, Y_TRUE[:1], Y_PRED[:1]))
    assert value(MMD(unbiased=True), Y_TRUE[:1], Y_PRED[:1]) <= 0  # only the cross term is left


def test_far_sets_have_no_pull_without_a_wide_kernel():
    """What moves the set as a whole; its members may still push each other."""
    far = Y_TRUE + 100

    def pull(loss):
        return gradient(lambda p: loss(Y_TRUE, p), far).sum(axis=0)

    close(pull(MMD()), 0, atol=1e-6)
    assert np.all(pull(MMD([1.0, 100.0])) > 1e-4)
    assert np.all(pull(Sliced(LINES)) > 1) and np.all(pull(Sinkhorn(100.0)) > 1)


@pytest.mark.parametrize("power", [1, 2])
def test_of_one_dimension_it_is_the_wasserstein_distance(power):
    from scipy import stats

    y, p = Y_TRUE[:, :1], Y_PRED[:, :1] * 3
    expected = np.mean(np.abs(np.sort(y[:, 0]) - np.sort(p[:, 0])) ** power)
    close(value(Sliced([[2.0]], power), y, p), expected)
    if power == 1:
        close(expected, stats.wasserstein_distance(y[:, 0], p[:, 0]))
    # The blurred one comes near it.
    sharp = Sinkhorn(0.01, 2000, power=power, debias=False)
    close(value(sharp, y, p), expected, rtol=0.02, atol=0.03)


def test_weights_are_those_of_scipy():
    from scipy import stats

    weight = RNG.uniform(0.2, 2, 12).astype("float32")
    y, p = Y_TRUE[:, :1], Y_PRED[:, :1]
    expected = stats.wasserstein_distance(y[:, 0], p[:, 0], weight, weight)
    close(value(Sliced([[1.0]], 1), y, p, weight), expected)


def test_the_kernel_is_that_of_scikit_learn():
    from sklearn.metrics.pairwise import rbf_kernel

    sets = ((Y_TRUE, Y_TRUE), (Y_PRED, Y_PRED), (Y_TRUE, Y_PRED))
    means = [
        np.mean([rbf_kernel(np.float64(x), np.float64(z), 1 / (2 * s * s)) for s in (0.5, 2.0)])
        for x, z in sets
    ]
    close(value(MMD([0.5, 2.0]), Y_TRUE, Y_PRED), means[0] + means[1] - 2 * means[2])


@pytest.mark.parametrize("step", [0.5, 3.0])
def test_a_moved_set_costs_the_square_of_the_way(step):
    close(value(Sinkhorn(5.0, 500), Y_TRUE, Y_TRUE + step), 3 * step**2, rtol=1e-4)


@pytest.mark.parametrize("power", [1, 2])
def test_the_slope_of_sinkhorn_is_that_of_its_settled_value(power):
    """By differences of the twin in float64: nothing of the iterations is missing."""
    alike = np.full(12, 1 / 12)
    found = gradient(lambda p: Sinkhorn(3.0, 300, power=power, debias=False)(Y_TRUE, p), Y_PRED)
    for index in ((0, 0), (5, 2), (11, 1)):
        ends = []
        for step in (1e-4, -1e-4):
            moved = np.float64(Y_PRED)
            moved[index] += step
            ends.append(transport(np.float64(Y_TRUE), moved, alike, alike, 3.0, 3000, power)[0])
        close(found[index], (ends[0] - ends[1]) / 2e-4, rtol=1e-3, atol=1e-5)


def test_iterations_are_a_loop_of_the_graph():
    """Ten times as many do not make it longer, and it is compiled once."""
    if keras.backend.backend() == "torch":
        pytest.skip("torch has no graph")

    def length(iterations):
        def step(p):
            return keras.ops.sum(Sinkhorn(1.0, iterations)(Y_TRUE, p))

        if keras.backend.backend() == "jax":
            import jax

            return len(str(jax.make_jaxpr(jax.grad(step))(Y_PRED)).splitlines())
        import tensorflow as tf

        graph = tf.function(step).get_concrete_function(tf.constant(Y_PRED)).graph
        return len(graph.as_graph_def().node)

    assert length(500) == length(50)


@pytest.mark.parametrize("epsilon", [1e-3, 1e3])
def test_sharp_and_blunt_plans_are_finite(epsilon):
    y, p = 10 * Y_TRUE, 10 * Y_PRED
    assert np.isfinite(value(Sinkhorn(epsilon), y, p))
    assert np.all(np.isfinite(gradient(lambda p: Sinkhorn(epsilon)(y, p), p)))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_large_numbers_are_transported_too(size, power):
    """Such as amounts of money, which nobody has standardised: the rounding of a sum is large."""
    loss, step = Sinkhorn(iterations=5, power=power), size * np.eye(3, dtype="float32")[:1]
    y = size * np.float32([[0, 0, 0], [9, 0, 0], [0, 9, 0]])
    close(value(loss, y, y + step) / size**power, 1, rtol=1e-4)
    slope = gradient(lambda p: loss(y, p), y + step)
    close(slope / size ** (power - 1), np.repeat([[power / 3, 0, 0]], 3, axis=0), atol=1e-3)


# Sets of a sample; other numbers of members.

SETS = RNG.normal(size=(3, 5, 2)).astype("float32")
OTHERS = RNG.normal(size=(3, 7, 2)).astype("float32")


@pytest.mark.parametrize("make", [MMD, lambda over: Sinkhorn(2.0, over=over)])
def test_each_sample_has_sets_of_its_own(make):
    values = value(make(over="sample"), SETS, OTHERS)
    each = [value(make(over="batch"), y, p) for y, p in zip(SETS, OTHERS[:, :5], strict=True)]
    alone = [value(make(over="sample"), SETS[i : i + 1], OTHERS[i : i + 1]) for i in range(3)]
    close(values, np.mean(alone))
    close(value(make(over="sample"), SETS, OTHERS[:, :5]), np.mean(each))


@pytest.mark.parametrize("make", [MMD, lambda over: Sinkhorn(2.0, over=over)])
@pytest.mark.parametrize("over", ["sample", "batch"])
def test_a_set_without_members_costs_nothing(make, over):
    for y, p in ((SETS[:, :0], OTHERS), (SETS, OTHERS[:, :0])):
        assert value(make(over=over), y, p) == 0
        assert np.all(gradient(lambda p, y=y: make(over=over)(y, p), p) == 0)


def test_the_directions_may_be_of_any_dtype():
    """100^2 + 100^2 is no number of one byte."""
    lines = np.array([[100, 100, 0], [0, 100, 100]])
    expected = value(Sliced(lines.tolist()), Y_TRUE, Y_PRED)
    for dtype in ("int8", "float16"):
        close(value(Sliced(lines.astype(dtype)), Y_TRUE, Y_PRED), expected)
    with raises(ValueError, "`projections` of SlicedWasserstein", "Received: "):
        Sliced(np.array([[np.inf, 1.0]], "float16"))


@every
def test_shapes_that_cannot_be(loss):
    owner, received = type(loss).__name__, "Received: y_true of shape "
    with raises(ValueError, owner, "two sets", received):
        loss(np.zeros(4), np.zeros(4))
    with raises(ValueError, owner, "members of one known size D", received):
        loss(np.zeros((4, 2)), np.zeros((4, 3)))
    with raises(ValueError, "as many members in both sets", received):
        Sliced([[1.0, 0.0]], over="sample")(SETS, OTHERS)


# Weights, and missing members.

WEIGHT = np.array([1, 0, 2, 0.5, 1, 1, 0, 3, 1, 1, 0, 1], "float32")


@every
def test_a_member_of_weight_0_leaves_both_sets(loss):
    kept = WEIGHT > 0
    expected = value(loss, Y_TRUE[kept], Y_PRED[kept], WEIGHT[kept])
    close(value(loss, Y_TRUE, Y_PRED, WEIGHT), expected)
    bad = np.where(kept[:, None], Y_TRUE, np.nan)
    close(value(loss, bad, Y_PRED, WEIGHT), expected)
    slope = gradient(lambda p: loss(bad, p, WEIGHT), Y_PRED)
    assert np.all(np.isfinite(slope)) and np.all(slope[~kept] == 0)


@every
def test_weights_of_single_numbers_are_an_error(loss):
    """A member has one weight."""
    for weight in (np.ones((12, 3)), np.ones((12, 2))):
        with raises(ValueError, "sample_weight", "without the last axis", f"{weight.shape}"):
            loss(Y_TRUE, Y_PRED, weight)
    sets = type(loss)(**{**loss.get_config(), "over": "sample"})
    with raises(ValueError, "sample_weight", "without the last axis", "(3, 5, 2)"):
        sets(SETS, SETS, np.ones((3, 5, 2)))


@every
def test_a_missing_label_takes_its_member(loss):
    kept = WEIGHT > 0
    holes = Y_TRUE.copy()
    holes[~kept, 1] = np.nan
    close(value(Masked(loss), holes, Y_PRED), value(loss, Y_TRUE[kept], Y_PRED[kept]))
    nothing = np.full_like(Y_TRUE, np.nan)
    assert value(Masked(loss), nothing, Y_PRED) == 0
    assert np.all(gradient(lambda p: Masked(loss)(nothing, p), Y_PRED) == 0)


@every
def test_nothing_counts_is_0(loss):
    for y, p, w in ((Y_TRUE, Y_PRED, 0 * WEIGHT), (Y_TRUE[:0], Y_PRED[:0], WEIGHT[:0])):
        assert value(loss, y, p, w) == 0
        assert np.all(gradient(lambda p, y=y, w=w: loss(y, p, w), p) == 0)
    assert value(loss, Y_TRUE[:0], Y_PRED[:0]) == 0


# Directions that are drawn.


def test_directions_are_drawn_afresh_and_begin_alike():
    first, second = (Sliced(4, seed=3) for _ in range(2))
    found = [[float(value(loss, Y_TRUE, Y_PRED)) for _ in range(3)] for loss in (first, second)]
    assert found[0] == found[1] and len(set(found[0])) == 3


def test_in_compiled_training_they_are_drawn_in_each_step():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(3, kernel_initializer="ones")])
    still = keras.optimizers.SGD(0.0)
    model.compile(still, loss=cl.CompositeLoss({"sliced": Sliced(3, seed=0)}))
    found = {model.train_on_batch(Y_PRED, Y_TRUE, return_dict=True)["loss"] for _ in range(4)}
    assert len(found) == 4


def test_many_directions_come_near_the_mean_over_all():
    """A set moved by t has |t|^2 / D."""
    close(value(Sliced(20000, seed=0), Y_TRUE, Y_TRUE + 2.0), 4.0, rtol=0.05)


def test_a_function_that_is_compiled_by_hand_is_right_too():
    loss = Sliced(20000, seed=0)
    close(value(compiled(lambda y, p: loss(y, p)), Y_TRUE, Y_TRUE + 2.0), 4.0, rtol=0.05)
    assert np.isfinite(value(loss, Y_TRUE, Y_PRED))  # nothing of the trace is left in it
