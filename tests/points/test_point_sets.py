"""Batches of point sets: sizes, targets and weights, seeds and epochs, the state."""

import itertools

import numpy as np
import pytest

import combined_losses as cl
from tests.messages import raises

pytestmark = pytest.mark.backend_free
ROWS = np.arange(10.0)[:, None] * [1.0, 10.0]


def point_sets(seed=0, **arguments):
    """A box, a function and an array, with targets of each kind."""
    sets = {
        "pde": cl.Box([-1.0, 0.0], [1.0, 1.0], method="sobol"),
        "bc": lambda count, rng: np.c_[rng.choice([-1.0, 1.0], count), rng.random(count)],
        "data": ROWS,
    }
    targets = {
        "u_bc": ("bc", lambda x: x[:, :1] * x[:, 1:]),
        "u_data": ("data", ROWS[:, :1] + 0.5),
        "u_zero": ("bc", 0.0),
        "u_pde": None,
    }
    batch = {"pde": 8, "bc": 6, "data": 4}
    return cl.PointSets(sets, targets, **{"batch": batch, "seed": seed, **arguments})


def epoch_of(points):
    """All of an epoch: `{name: values}` of the inputs and of the targets."""
    parts = [{**x, **y} for x, y in (points[i] for i in range(len(points)))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def differ(first, second):
    return {name for name in first if not np.array_equal(first[name], second[name])}


def test_sizes_and_types_are_the_same_in_every_batch():
    points = point_sets()
    shapes = {"pde": (8, 2), "bc": (6, 2), "data": (4, 2)}
    targets = {"u_bc": (6, 1), "u_data": (4, 1), "u_zero": (6, 1)}
    for epoch in range(3):
        points.epoch = epoch
        batches = list(points)
        assert len(points) == len(batches) == 3  # 10 rows in batches of 4
        for x, y in batches:
            assert {name: array.shape for name, array in x.items()} == shapes
            assert {name: array.shape for name, array in y.items()} == targets
            assert {str(a.dtype) for a in (*x.values(), *y.values())} == {"float32"}


def test_targets_belong_to_their_points():
    for x, y in point_sets():
        np.testing.assert_array_equal(y["u_bc"], x["bc"][:, :1] * x["bc"][:, 1:])
        np.testing.assert_array_equal(y["u_data"], x["data"][:, :1] + 0.5)
        np.testing.assert_array_equal(y["u_zero"], np.zeros((6, 1)))


def test_rows_of_an_array_come_equally_often():
    """At the end of every epoch the counts differ by one at most; after 5 epochs by none."""
    points = point_sets()
    counts = np.zeros(10, int)
    for epoch in range(10):
        points.epoch = epoch
        rows = epoch_of(points)["data"][:, 0].astype(int)
        assert len(rows) == 12
        counts += np.bincount(rows, minlength=10)
        assert np.ptp(counts) <= 1
        if epoch == 4:
            assert (counts == 6).all()
    assert (counts == 12).all()


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
def test_a_batch_may_be_larger_than_the_array(size):
    points = cl.PointSets({"a": np.arange(float(size))}, batch=8, steps=3, seed=1)
    assert points[0][0]["a"].shape == (8,)
    counts = np.bincount(epoch_of_inputs(points)["a"].astype(int), minlength=size)
    assert counts.sum() == 24 and np.ptp(counts) <= 1


def epoch_of_inputs(points):
    parts = [points[i][0] for i in range(len(points))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_an_array_is_shuffled_anew():
    points = cl.PointSets({"a": np.arange(100.0)}, batch=100, seed=0)
    first = points[0][0]["a"]
    points.epoch = 1
    second = points[0][0]["a"]
    assert not np.array_equal(first, second) and not np.array_equal(first, np.sort(first))
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


def test_the_same_seed_gives_the_same_points_and_another_seed_others():
    assert_same(epoch_of(point_sets(seed=3)), epoch_of(point_sets(seed=3)))
    others = differ(epoch_of(point_sets(seed=3)), epoch_of(point_sets(seed=4)))
    assert others == {"pde", "bc", "data", "u_bc", "u_data"}
    assert differ(epoch_of(point_sets(seed=None)), epoch_of(point_sets(seed=None)))


def test_epochs_differ_and_come_again():
    points = point_sets()
    first = epoch_of(points)
    points.epoch = 1
    second = epoch_of(points)
    assert differ(first, second) == {"pde", "bc", "data", "u_bc", "u_data"}
    points.epoch = 0
    assert_same(epoch_of(points), first)


def test_the_points_of_a_set_do_not_depend_on_other_sets():
    box = cl.Box([0.0], [1.0])
    alone = cl.PointSets({"a": box}, batch=4, steps=2, seed=0)[1][0]["a"]
    both = cl.PointSets({"b": box, "a": box}, batch=4, steps=2, seed=0)[1][0]
    np.testing.assert_array_equal(both["a"], alone)
    assert not np.array_equal(both["b"], alone)


@pytest.mark.parametrize(
    ("every", "changes"), [(1, [1, 1, 1, 1]), (2, [0, 1, 0, 1]), (None, [0] * 4)]
)
def test_redraw_every_says_when_there_are_new_points(every, changes):
    points = point_sets(redraw_every=every)
    epochs = []
    for epoch in range(5):
        points.epoch = epoch
        epochs.append(epoch_of(points))
    pairs = itertools.pairwise(epochs)
    assert [bool(differ(*pair)) for pair in pairs] == list(map(bool, changes))


def test_steps_are_those_of_the_longest_array_or_stated():
    sets = {"a": np.zeros((10, 1)), "b": np.zeros((30, 1))}
    assert len(cl.PointSets(sets, batch={"a": 2, "b": 8})) == 5
    assert len(cl.PointSets(sets, batch=8)) == 4
    assert len(cl.PointSets(sets, batch=8, steps=2)) == 2


def test_targets_may_have_the_name_of_their_set():
    points = cl.PointSets({"a": ROWS}, {"a": lambda x: x.sum(axis=1)}, batch=5)
    x, y = points[1]
    np.testing.assert_array_equal(y["a"], x["a"].sum(axis=1))


def test_class_ids_stay_whole_numbers():
    points = cl.PointSets({"a": ROWS}, {"kind": ("a", np.arange(10))}, batch=5)
    assert points[0][1]["kind"].dtype.kind == "i"


def test_without_targets_a_batch_has_points_alone():
    (x,) = cl.PointSets({"a": ROWS}, batch=5)[0]
    assert x["a"].shape == (5, 2)


def test_weights_of_one_output_give_the_others_ones():
    weights = {"u_bc": lambda x: 2 * x[:, 1], "u_pde": ("pde", 3.0)}
    x, y, found = point_sets(sample_weight=weights)[0]
    np.testing.assert_array_equal(found["u_bc"], 2 * x["bc"][:, 1])
    np.testing.assert_array_equal(found["u_pde"], np.full(8, 3.0))
    np.testing.assert_array_equal(found["u_data"], np.ones(4))
    assert found.keys() == {*y, "u_pde"}


def test_weights_of_rows_belong_to_them():
    x, _, found = point_sets(sample_weight={"u_data": np.arange(10.0)})[2]
    np.testing.assert_array_equal(found["u_data"], x["data"][:, 0])


# The state.


def test_the_state_brings_the_points_back(tmp_path):
    points = point_sets(seed=None)
    points.epoch = 4
    points.adapt("pde", points.candidates("pde", 50), np.arange(50.0))
    np.savez(tmp_path / "state.npz", **points.get_state())
    expected = epoch_of(points)
    other = point_sets(seed=None)
    with np.load(tmp_path / "state.npz") as state:
        other.set_state(state)
    assert_same(epoch_of(other), expected)
    assert other.epoch == 4
    points.epoch = other.epoch = 5
    assert_same(epoch_of(other), epoch_of(points))


def test_a_state_of_other_sets_is_refused():
    points = point_sets()
    state = cl.PointSets({"a": cl.Box([0.0], [1.0])}, batch=4, steps=1)
    state.adapt("a", np.zeros((3, 1)), np.ones(3))
    for wrong in ({}, {"epoch": np.asarray(1)}, state.get_state()):
        with raises(ValueError, "get_state()", "'pde', 'bc' and 'data'", "Received: a state of"):
            points.set_state(wrong)


# Residual-based adaptive distribution.


def numpy_density(residuals, k, c):
    """Wu et al. 2023, equation (2), over the candidates."""
    size = np.sqrt(np.sum(residuals.reshape(len(residuals), -1).astype("float64") ** 2, axis=1))
    density = size**k / np.mean(size**k) + c
    return density / density.sum()


@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 3)])
@pytest.mark.parametrize(("k", "c"), [(1, 1), (2.0, 0.0), (0.5, 3), (0, 1)])
def test_the_density_is_that_of_the_paper(shape, k, c):
    points = point_sets()
    residuals = np.random.default_rng(0).normal(size=shape).astype("float32")
    candidates = points.candidates("pde", 200)
    points.adapt("pde", candidates, residuals, k, c)
    found = points.get_state()["pde/probability"]
    np.testing.assert_allclose(found, numpy_density(residuals, k, c), rtol=1e-12)
    np.testing.assert_array_equal(points.get_state()["pde/candidates"], candidates)


def test_a_common_factor_of_the_residuals_does_not_count():
    points = point_sets()
    residuals = np.random.default_rng(0).normal(size=50)
    found = []
    for factor in (1.0, 1e200, 1e-200):
        points.adapt("pde", points.candidates("pde", 50), factor * residuals, k=2)
        found.append(points.get_state()["pde/probability"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-12)


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_residuals_of_zero_leave_the_points_even(c):
    points = point_sets()
    points.adapt("pde", points.candidates("pde", 40), np.zeros(40), c=c)
    np.testing.assert_array_equal(points.get_state()["pde/probability"], np.full(40, 1 / 40))


def test_points_are_drawn_by_that_density():
    """From 4 candidates with probabilities 0.1 to 0.4; of 20,000 points the share is +- 0.0035."""
    points = cl.PointSets({"a": cl.Box([0.0], [3.0])}, batch=10_000, steps=2, seed=0)
    points.adapt("a", np.arange(4.0)[:, None], np.array([1.0, 2.0, 3.0, 4.0]), c=0)
    for batch in range(2):  # each batch has its share
        shares = np.bincount(points[batch][0]["a"].astype(int)[:, 0]) / 10_000
        np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.025)


def test_among_enough_candidates_each_is_drawn_once():
    points = point_sets()
    points.adapt("pde", points.candidates("pde", 24), np.arange(1.0, 25.0))
    candidates = points.get_state()["pde/candidates"]
    drawn = epoch_of(points)["pde"]
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(candidates, axis=0))


def test_probable_points_are_spread_over_the_batches():
    points = cl.PointSets({"a": cl.Box([0.0], [1.0])}, batch=50, steps=10, seed=0)
    candidates = np.linspace(0, 1, 1000)[:, None]
    points.adapt("a", candidates, candidates**8, c=0.05)
    means = [points[i][0]["a"].mean() for i in range(10)]
    assert abs(np.mean(means[:5]) - np.mean(means[5:])) < 0.1


def test_adapting_changes_that_set_alone_and_new_epochs_still_differ():
    points = point_sets()
    before = epoch_of(points)
    points.adapt("pde", points.candidates("pde", 1000), np.ones(1000))
    after = epoch_of(points)
    assert differ(before, after) == {"pde"}
    points.epoch = 1
    assert "pde" in differ(after, epoch_of(points))


def test_candidates_are_points_of_the_box_and_new_in_each_epoch():
    points = point_sets()
    first = points.candidates("pde", 500)
    assert first.shape == (500, 2) and (np.abs(first) <= 1).all() and (first[:, 1] >= 0).all()
    np.testing.assert_array_equal(points.candidates("pde", 500), first)
    points.epoch = 1
    assert not np.array_equal(points.candidates("pde", 500), first)


# Wrong arguments.

BOX = cl.Box([0.0], [1.0])


@pytest.mark.parametrize(
    ("sets", "targets", "arguments", "said"),
    [
        ({}, None, {"batch": 1}, ("at least one set", "Received: {}")),
        ([BOX], None, {"batch": 1}, ("a dict of at least one set", "Box")),
        ({"a": None}, None, {"batch": 1}, ("'a'", "cl.Box", "Received: None")),
        ({"a": "ab"}, None, {"batch": 1}, ("'a'", "cl.Box", "Received: 'ab'")),
        ({"a": np.zeros((0, 2))}, None, {"batch": 1}, ("at least one row", "(0, 2)")),
        ({"a": BOX}, None, {"batch": 4}, ("needs `steps`", "steps=None")),
        ({"a": ROWS}, None, {"batch": 0}, ("`batch`", "Received: 0")),
        ({"a": ROWS}, None, {"batch": {"b": 4}}, ("`batch`", "'a'", "Received: {'b': 4}")),
        ({"a": ROWS}, None, {"batch": {}}, ("`batch`", "Received: {}")),
        ({"a": ROWS}, None, {"batch": 4, "steps": 0}, ("`steps`", "at least 1")),
        ({"a": ROWS}, None, {"batch": 4, "seed": -1}, ("`seed`", "at least 0")),
        ({"a": ROWS}, None, {"batch": 4, "redraw_every": 0}, ("`redraw_every`",)),
        ({"a": ROWS}, [0.0], {"batch": 4}, ("`targets`", "dict", "[0.0]")),
        ({"a": ROWS}, {"u": 0.0}, {"batch": 4}, ("target of 'u'", "'a'", "no set")),
        ({"a": ROWS}, {"u": ("b", 0.0)}, {"batch": 4}, ("(set, values)", "the set 'b'")),
        ({"a": ROWS}, {"u": ("a", ROWS[1:])}, {"batch": 4}, ("array of 10 rows", "(9, 2)")),
        ({"a": ROWS}, {"u": ("a", "x")}, {"batch": 4}, ("target of 'u'", "Received: 'x'")),
        ({"a": ROWS}, {"u": ("a", np.nan)}, {"batch": 4}, ("finite", "nan")),
        (
            {"a": BOX},
            {"u": ("a", ROWS)},
            {"batch": 4, "steps": 1},
            ("function of the points", "points are drawn", "(10, 2)"),
        ),
    ],
)
def test_wrong_arguments_are_refused(sets, targets, arguments, said):
    with raises(ValueError, "Received", *said):
        cl.PointSets(sets, targets, **arguments)


def test_functions_that_return_other_numbers_of_rows_are_refused():
    points = cl.PointSets({"a": lambda count, rng: rng.random((3, 1))}, batch=4, steps=1)
    with raises(ValueError, "'a'", "(4, ...)", "Received: an array of shape (3, 1)"):
        points[0]
    points = cl.PointSets({"a": ROWS}, {"u": ("a", lambda x: x[:3])}, batch=4)
    with raises(ValueError, "target of 'u'", "4 points of 'a'", "shape (3, 2)"):
        points[0]


def test_a_batch_beyond_the_epoch_is_an_index_error():
    with raises(IndexError, "3 batches", "Received: index 3"):
        point_sets()[3]


@pytest.mark.parametrize("epoch", [-1, 1.5, None])
def test_an_epoch_is_a_number_from_0(epoch):
    with raises(ValueError, "`epoch`", f"Received: {epoch}"):
        point_sets().epoch = epoch


@pytest.mark.parametrize(
    ("residuals", "arguments", "said"),
    [
        (np.ones(4), {}, ("'pde'", "5 candidates", "(4,)")),
        (np.array([1.0, np.nan, 1, 1, 1]), {}, ("finite", "at 1 of 5")),
        (np.ones(5), {"k": -1.0}, ("`k`", "Received: -1.0")),
        (np.ones(5), {"c": np.nan}, ("`c`",)),
    ],
)
def test_wrong_residuals_are_refused(residuals, arguments, said):
    points = point_sets()
    with raises(ValueError, "Received", *said):
        points.adapt("pde", points.candidates("pde", 5), residuals, **arguments)


def test_rows_of_an_array_are_not_adapted():
    for name in ("data", "unknown"):
        with raises(ValueError, "'pde' and 'bc'", f"Received: {name!r}"):
            point_sets().candidates(name, 5)
