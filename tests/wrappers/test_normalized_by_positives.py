"""`NormalizedByPositives` against NumPy, and against `Normalized`."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.compound import as_node
from combined_losses.wrappers import Hardest, Masked, Normalized, NormalizedByPositives, OneHot
from tests.composite.children import value
from tests.gradients import compiled, gradient
from tests.messages import raises

RNG = np.random.default_rng(0)
Y = (RNG.random((4, 12, 1)) < 0.2).astype("float32")
Y[2] = 0
Y[0, 0] = 1
P = RNG.uniform(0.05, 0.95, (4, 12, 1)).astype("float32")
WEIGHT = RNG.integers(0, 3, (4, 12)).astype("float32")
FOCAL = cl.losses.BinaryFocal
VALUES = np.where(
    Y > 0.5, -((1 - np.float64(P)) ** 2) * np.log(P), -(np.float64(P) ** 2) * np.log1p(-P)
)[..., 0]


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def expected_of(values, positive, weight=None, over="batch"):
    weight = np.ones(values.shape) if weight is None else np.float64(weight)
    sums, number = (values * weight).sum(axis=1), (positive * weight).sum(axis=1)
    if over == "sample":
        return sums / np.maximum(number, 1)
    return len(values) * sums / max(number.sum(), 1)


both = pytest.mark.parametrize("over", ["batch", "sample"])


@both
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["no weights", "weights"])
def test_it_is_the_sum_over_the_positives(over, weight):
    loss = NormalizedByPositives(FOCAL(), over=over, reduction="none")
    data = () if weight is None else (weight,)
    expected = expected_of(VALUES, Y[..., 0], weight, over)
    close(value(loss, Y, P, *data), expected)
    close(value(compiled(lambda *d: loss(*d)), Y, P, *data), expected)
    mean = NormalizedByPositives(FOCAL(), over=over)
    close(value(mean, Y, P, *data), expected.mean())
    slope = gradient(lambda p: mean(Y, p, *data), P)
    step = np.zeros(P.shape, "float32")
    step[0, 0] = 1e-3
    change = value(mean, Y, P + step, *data) - value(mean, Y, P - step, *data)
    close(slope[0, 0, 0], change / 2e-3, rtol=1e-2, atol=1e-3)


@both
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["no weights", "weights"])
def test_values_in_float64(over, weight):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless its setting says otherwise")
    loss = NormalizedByPositives(FOCAL(dtype="float64"), over=over)
    data = [np.float64(a) for a in (Y, P, weight) if a is not None]
    close(value(loss, *data), expected_of(VALUES, Y[..., 0], weight, over).mean())


def test_the_mean_is_normalized():
    """Whose weights leave or keep a positive: they count 1 there, and their sum here."""
    there = np.minimum(WEIGHT, 1)
    for data in ((), (there,)):
        close(
            value(NormalizedByPositives(FOCAL()), Y, P, *data),
            value(Normalized(FOCAL()), Y, P, *data),
        )
        every = NormalizedByPositives(FOCAL(), reduction="sum")
        close(value(every, Y, P, *data), 4 * value(Normalized(FOCAL()), Y, P, *data))


@both
def test_without_positives_it_is_the_sum(over):
    none = np.zeros_like(Y)
    found = value(NormalizedByPositives(FOCAL(), over=over, reduction="none"), none, P)
    sums = np.sum(-(np.float64(P) ** 2) * np.log1p(-P), axis=(1, 2))
    close(found, sums if over == "sample" else 4 * sums)


@both
def test_of_several_tags_one_is_enough(over):
    tags = (RNG.random((4, 12, 3)) < 0.15).astype("float32")
    p = RNG.uniform(0.05, 0.95, tags.shape).astype("float32")
    of_row = value(cl.losses.CategoricalFocal(multilabel=True, reduction="none"), tags, p)
    found = NormalizedByPositives(
        cl.losses.CategoricalFocal(multilabel=True), over=over, reduction="none"
    )
    close(value(found, tags, p), expected_of(of_row, tags.max(axis=-1), None, over))


@both
def test_class_0_is_the_background(over):
    labels = RNG.integers(0, 3, (4, 12))
    p = RNG.dirichlet([1.0, 1.0, 1.0], (4, 12)).astype("float32")
    of_row = value(cl.losses.SparseCategoricalFocal(reduction="none"), labels, p)
    expected = expected_of(of_row, labels > 0, None, over)
    options = {"over": over, "reduction": "none"}
    for y in (labels, labels[..., None]):
        close(
            value(NormalizedByPositives(cl.losses.SparseCategoricalFocal(), **options), y, p),
            expected,
        )
    one_hot = np.eye(3, dtype="float32")[labels]
    close(
        value(NormalizedByPositives(cl.losses.CategoricalFocal(), **options), one_hot, p), expected
    )
    around = OneHot(cl.losses.CategoricalFocal(), 3)
    close(value(NormalizedByPositives(around, **options), labels, p), expected)


@both
def test_missing_rows_do_not_count(over):
    there = RNG.random((4, 12)) < 0.6
    missing = np.where(there[..., None], Y, -1).astype("float32")
    loss = NormalizedByPositives(Masked(FOCAL(), mask_value=-1), over=over, reduction="none")
    expected = expected_of(VALUES, Y[..., 0], there, over)
    close(value(loss, missing, P), expected)
    outer = Masked(NormalizedByPositives(FOCAL(), over=over, reduction="none"))
    close(value(outer, np.where(there[..., None], Y, np.nan).astype("float32"), P), expected)


def test_weight_0_everywhere_is_0_and_absent():
    nothing, loss = np.zeros((4, 12), "float32"), NormalizedByPositives(FOCAL())
    assert value(loss, Y, P, nothing) == 0
    assert np.all(gradient(lambda p: loss(Y, p, nothing), P) == 0)
    batch = Batch(Y, P, nothing).replaced(asks_presence=True)
    assert not bool(as_node("part", loss).evaluate(batch).present)


def test_in_a_composite_and_a_step():
    model = cl.Sequential([keras.Input((12, 1)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": NormalizedByPositives(FOCAL())}))
    logs = model.evaluate(P, Y, batch_size=3, verbose=0, return_dict=True)
    parts = [expected_of(VALUES[s], Y[s, :, 0]).mean() for s in (np.s_[:3], np.s_[3:])]
    close(logs["loss"], np.average(parts, weights=[3, 1]))
    imposed = cl.CompositeLoss([NormalizedByPositives(FOCAL())], reduction="none")
    close(value(imposed, Y, P), expected_of(VALUES, Y[..., 0]))


def test_what_it_refuses():
    with raises(ValueError, "`over` of NormalizedByPositives", "must be", "Received: 'all'"):
        NormalizedByPositives("mse", over="all")
    with raises(ValueError, "needs a single loss", "Received: "):
        NormalizedByPositives(cl.CompositeLoss(["mse", "mae"]))
    with raises(ValueError, "needs a single loss", "Received: "):
        NormalizedByPositives(Hardest("mse", count=1))
