"""`PerChannel` and `PerElement`: one component for each, in one pass."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import ClassWeighted, Masked, OnSlice, PerChannel, PerElement, Scaled
from tests.composite.children import WEIGHTS, BatchScalar, value
from tests.masks import masked
from tests.messages import raises
from tests.oracles.boundaries import boundary_disagreement
from tests.training.twin import reduce
from tests.wrappers.numpy_twins import (
    SEEN,
    STEP_WEIGHTS,
    check,
    close,
    cosine_similarity,
    mae,
    mse,
    normal,
    uniform,
)

NAMES = ["u", "v", "w"]
EVERY_SEEN = {**SEEN, "mask of samples": (STEP_WEIGHTS, WEIGHTS > 0)}
every_batch = pytest.mark.parametrize("weight, mask", EVERY_SEEN.values(), ids=EVERY_SEEN)
Y_TRUE, Y_PRED = normal(4, 5, 3, seed=1), normal(4, 5, 3, seed=2)


def dice(y_true, y_pred):
    """One value for each sample: axis=(1, ...) of Keras's Dice."""
    axes = tuple(range(1, y_pred.ndim))
    both = np.sum(y_true * y_pred, axis=axes)
    return 1 - 2 * both / (np.sum(y_true, axis=axes) + np.sum(y_pred, axis=axes))


def parts_of(values, y_true, y_pred, weight=None, mask=None, reduction="sum_over_batch_size"):
    """Channel by channel, each as an array with one channel."""
    split = [np.split(np.asarray(a, "float64"), y_pred.shape[-1], -1) for a in (y_true, y_pred)]
    return [reduce(values(t, p), weight, mask, reduction) for t, p in zip(*split, strict=True)]


def components(loss, *data):
    return {name: float(v) for name, v in cl.CompositeLoss({"a": loss}).components(*data).items()}


def expect(parts, names=NAMES, total=None):
    named = {f"a/{name}": part for name, part in zip(names, parts, strict=True)}
    return pytest.approx({"a": sum(parts) if total is None else total, **named}, rel=2e-5, abs=1e-6)


# Values and gradients.


@every_batch
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize(
    "kind, values", [("mean_squared_error", mse), ("mean_absolute_error", mae)]
)
def test_a_channel_is_the_child_on_that_channel(kind, values, reduction, weight, mask):
    child = keras.losses.get({"class_name": kind.title().replace("_", ""), "config": {}})
    child.reduction = reduction
    loss = PerChannel(child, names=NAMES)

    def expected(t, p):
        return sum(parts_of(values, t, p, weight, mask, reduction))

    check(loss, expected, Y_TRUE, Y_PRED, weight, mask)


@every_batch
def test_every_channel_has_its_name(weight, mask):
    put = Y_PRED if mask is None else masked(Y_PRED, mask)
    data = () if weight is None else (weight,)
    parts = parts_of(mse, Y_TRUE, Y_PRED, weight, mask)
    assert components(PerChannel("mse", names=NAMES), Y_TRUE, put, *data) == expect(parts)


@every_batch
def test_a_loss_of_rows_sees_each_channel_as_rows_of_one(weight, mask):
    """Cosine similarity of rows of one is the product of signs."""
    loss = PerChannel(keras.losses.CosineSimilarity(), names=NAMES)
    check(
        loss,
        lambda t, p: sum(parts_of(cosine_similarity, t, p, weight, mask)),
        Y_TRUE,
        Y_PRED,
        weight,
        mask,
    )


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
def test_dice_of_each_sample_and_channel(weight):
    y_true, y_pred = uniform(4, 5, 3, seed=1), uniform(4, 5, 3, seed=2)
    loss = PerChannel(keras.losses.Dice(axis=(1, 2)), names=NAMES)
    check(loss, lambda t, p: sum(parts_of(dice, t, p, weight)), y_true, y_pred, weight)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
def test_a_field_of_each_channel(weight):
    y_true, y_pred = normal(4, 3, 4, 2, seed=1), normal(4, 3, 4, 2, seed=2)
    loss = PerChannel(cl.losses.BoundaryDisagreement(), names=["u", "v"])

    def field(t, p):
        return boundary_disagreement(t, p)[0]

    parts = parts_of(field, y_true, y_pred, weight)
    data = (y_true, y_pred) if weight is None else (y_true, y_pred, weight)
    assert components(loss, *data) == expect(parts, ["u", "v"])
    check(loss, lambda t, p: sum(parts_of(field, t, p, weight)), *data, slopes=False)


def test_a_field_that_cannot_honour_weights_of_steps_says_so_in_channels_too():
    """One value for each sample and channel cannot be weighed step by step."""
    y_true, y_pred = normal(4, 5, 4, 2, seed=1), normal(4, 5, 4, 2, seed=2)
    loss = cl.CompositeLoss({"edges": PerChannel(cl.losses.BoundaryDisagreement())})
    with pytest.raises(ValueError, match="'edges' cannot honour the sample_weight"):
        value(loss, y_true, y_pred, STEP_WEIGHTS)


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
@pytest.mark.parametrize("child", ["mse", keras.losses.CosineSimilarity()], ids=["mse", "cosine"])
def test_any_axis_but_the_batch(axis, child):
    y_true, y_pred = normal(4, 2, 5, 3, seed=1), normal(4, 2, 5, 3, seed=2)
    size = y_pred.shape[axis]
    values = mse if child == "mse" else cosine_similarity
    last = [np.moveaxis(a, axis, -1) for a in (y_true, y_pred)]
    parts = parts_of(values, *last)
    names = [f"channel_{i}" for i in range(size)]
    assert components(PerChannel(child, axis=axis, size=size), y_true, y_pred) == expect(
        parts, names
    )

    def expected(t, p):
        return sum(parts_of(values, np.moveaxis(t, axis, -1), np.moveaxis(p, axis, -1)))

    check(PerChannel(child, axis=axis), expected, y_true, y_pred)


def test_two_axes_are_enough():
    y_true, y_pred = normal(4, 3, seed=1), normal(4, 3, seed=2)
    parts = [np.mean(WEIGHTS * (y_true - y_pred)[:, c] ** 2) for c in range(3)]
    assert components(PerChannel("mse", names=NAMES), y_true, y_pred, WEIGHTS) == expect(parts)
    of_rows = PerChannel(keras.losses.CosineSimilarity(), names=NAMES)
    parts = [-np.mean(WEIGHTS * np.sign(y_true * y_pred)[:, c]) for c in range(3)]
    assert components(of_rows, y_true, y_pred, WEIGHTS) == expect(parts)


# Several losses.


def several():
    return [keras.losses.MeanSquaredError(), "mae", keras.losses.MeanSquaredError()]


def several_parts(t, p, *rest):
    squared, absolute = parts_of(mse, t, p, *rest), parts_of(mae, t, p, *rest)
    return [squared[0], absolute[1], squared[2]]


@every_batch
@pytest.mark.parametrize("kind", [list, dict, tuple])
def test_every_channel_may_have_a_loss_of_its_own(kind, weight, mask):
    losses = dict(zip(NAMES, several(), strict=True)) if kind is dict else kind(several())
    loss = PerChannel(losses, names=None if kind is dict else NAMES)
    assert loss.component_names == tuple(NAMES)
    check(loss, lambda t, p: sum(several_parts(t, p, weight, mask)), Y_TRUE, Y_PRED, weight, mask)
    data = () if weight is None else (weight,)
    if mask is None:
        parts = several_parts(Y_TRUE, Y_PRED, weight)
        assert components(loss, Y_TRUE, Y_PRED, *data) == expect(parts)


def test_a_list_without_names_counts_its_channels():
    loss = PerChannel(several())
    assert loss.component_names == ("channel_0", "channel_1", "channel_2")
    parts = several_parts(Y_TRUE, Y_PRED)
    assert components(loss, Y_TRUE, Y_PRED) == expect(parts, loss.component_names)


def test_losses_of_elements_and_of_rows_side_by_side():
    loss = PerChannel({"u": keras.losses.CosineSimilarity(), "v": "mse", "w": "mae"})
    parts = [
        parts_of(f, Y_TRUE, Y_PRED, STEP_WEIGHTS)[c]
        for c, f in enumerate([cosine_similarity, mse, mae])
    ]
    assert components(loss, Y_TRUE, Y_PRED, STEP_WEIGHTS) == expect(parts)


class Counting(cl.losses.Loss):
    """Counts its calls; `kind` makes two of them differ."""

    elementwise = True
    calls = 0

    def __init__(self, kind=0, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, y_true, y_pred):
        Counting.calls += 1
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "losses, passes",
    [
        (lambda: Counting(), 1),
        (lambda: [Counting() for _ in range(3)], 1),
        (lambda: [Counting(), Counting(1), Counting()], 2),
        (lambda: [Counting(i) for i in range(3)], 3),
    ],
    ids=["one", "equal ones", "two of three equal", "all different"],
)
def test_equal_losses_share_one_pass(losses, passes):
    loss = PerChannel(losses(), names=NAMES)
    Counting.calls = 0
    parts = parts_of(mse, Y_TRUE, Y_PRED, WEIGHTS)
    assert components(loss, Y_TRUE, Y_PRED, WEIGHTS) == expect(parts)
    assert Counting.calls == passes


@pytest.mark.parametrize("make", [PerChannel, PerElement])
def test_one_pass_whatever_the_number_of_parts(make):
    Counting.calls = 0
    value(make(Counting()), normal(4, 50, seed=1), normal(4, 50, seed=2))
    assert Counting.calls == 1


@pytest.mark.parametrize("reductions", [("sum", "sum_over_batch_size"), ("sum", "sum")])
def test_the_reduction_of_each_loss_is_kept(reductions):
    """A loss of its own has a reduction of its own."""
    losses = [keras.losses.MeanSquaredError(reduction=r) for r in reductions]
    y_true, y_pred = Y_TRUE[..., :2], Y_PRED[..., :2]
    parts = [parts_of(mse, y_true, y_pred, None, None, r)[c] for c, r in enumerate(reductions)]
    assert components(PerChannel(losses), y_true, y_pred) == expect(
        parts, ["channel_0", "channel_1"]
    )


# Weights and aggregation.


def aggregated(parts, weights, aggregation):
    weights = np.ones(len(parts)) if weights is None else weights
    weighted = np.multiply(parts, weights)
    by = {"sum": 1, "mean": len(parts), "weighted_mean": np.sum(weights)}
    return weighted.sum() / by[aggregation]


every_aggregation = pytest.mark.parametrize("aggregation", ["sum", "mean", "weighted_mean"])
WEIGHTS_OF_CHANNELS = {
    "none": (None, None),
    "list": ([1.0, 0.5, 3.0], [1.0, 0.5, 3.0]),
    "array": (np.array([1.0, 0.0, 2.0]), [1.0, 0.0, 2.0]),
    "dict": ({"v": 0.5, "w": 3}, [1.0, 0.5, 3.0]),
}


@every_aggregation
@pytest.mark.parametrize("weights, numbers", WEIGHTS_OF_CHANNELS.values(), ids=WEIGHTS_OF_CHANNELS)
@pytest.mark.parametrize("make", [PerChannel, PerElement])
def test_channels_have_weights(make, weights, numbers, aggregation):
    y_true, y_pred = Y_TRUE[:, 0], Y_PRED[:, 0]
    loss = make("mse", names=NAMES, weights=weights, aggregation=aggregation)

    def expected(t, p):
        return aggregated(parts_of(mse, t, p, WEIGHTS), numbers, aggregation)

    check(loss, expected, y_true, y_pred, WEIGHTS)
    parts = parts_of(mse, y_true, y_pred, WEIGHTS)
    total = aggregated(parts, numbers, aggregation)
    # The parts are reported unweighted.
    assert components(loss, y_true, y_pred, WEIGHTS) == expect(parts, total=total)


IMPORTANCE = uniform(5, 3, seed=9, high=3.0)


@every_aggregation
@every_batch
def test_an_importance_map_weighs_every_element(aggregation, weight, mask):
    def expected(t, p):
        parts = [
            reduce(IMPORTANCE[:, c] * (t - p)[..., c] ** 2, weight, mask, "sum_over_batch_size")
            for c in range(3)
        ]
        if aggregation == "sum":
            return sum(parts)
        return sum(parts) / 3 / (IMPORTANCE.mean() if aggregation == "weighted_mean" else 1)

    loss = PerChannel("mse", weights=IMPORTANCE, aggregation=aggregation)
    check(loss, expected, Y_TRUE, Y_PRED, weight, mask)


@pytest.mark.parametrize("axis", [1, 2, -2])
def test_an_importance_map_has_the_shape_of_a_sample_whatever_the_axis(axis):
    loss = PerChannel("mse", axis=axis, weights=IMPORTANCE)
    expected = np.sum(IMPORTANCE * np.mean((Y_TRUE - Y_PRED) ** 2, axis=0))
    count = 15 / Y_PRED.shape[axis]
    close(value(loss, Y_TRUE, Y_PRED), expected / count)


def test_an_importance_map_beside_losses_of_their_own():
    losses = ["mse", "mae", keras.losses.MeanSquaredError()]
    error = np.stack([(Y_TRUE - Y_PRED)[..., c] for c in range(3)])
    values = [error[0] ** 2, np.abs(error[1]), error[2] ** 2]
    parts = [np.mean(IMPORTANCE[:, c] * v) for c, v in enumerate(values)]
    loss = PerChannel(losses, weights=IMPORTANCE)
    assert components(loss, Y_TRUE, Y_PRED) == expect(parts, loss.component_names)


@every_aggregation
@every_batch
@pytest.mark.parametrize("weights", [None, IMPORTANCE], ids=["plain", "map"])
def test_an_element_is_the_child_on_that_element(aggregation, weight, mask, weights):
    def expected(t, p):
        parts = parts_of_elements(t, p, weight, mask)
        return aggregated(parts, None if weights is None else weights.ravel(), aggregation)

    loss = PerElement("mse", weights=weights, aggregation=aggregation)
    check(loss, expected, Y_TRUE, Y_PRED, weight, mask)


def parts_of_elements(t, p, weight=None, mask=None):
    def of(array, index):
        return array if array is None or array.ndim == 1 else array[:, index]

    return [
        reduce((t - p)[:, i, c] ** 2, of(weight, i), of(mask, i), "sum_over_batch_size")
        for i in range(5)
        for c in range(3)
    ]


def test_elements_are_named_by_their_place():
    loss = PerElement("mse", size=(5, 3))
    names = [f"element_{i}_{c}" for i in range(5) for c in range(3)]
    assert loss.component_names == tuple(names)
    parts = parts_of_elements(Y_TRUE, Y_PRED, STEP_WEIGHTS)
    assert components(loss, Y_TRUE, Y_PRED, STEP_WEIGHTS) == expect(parts, names)
    by_number = PerElement("mse", size=15)
    names = [f"element_{i}" for i in range(15)]
    assert components(by_number, Y_TRUE, Y_PRED, STEP_WEIGHTS) == expect(parts, names)


def test_elements_without_names_are_not_reported():
    for make in (PerElement, PerChannel):
        assert make("mse").component_names == ()
        assert list(components(make("mse"), Y_TRUE, Y_PRED)) == ["a"]


def test_a_vector_is_one_element_of_each_sample():
    y_true, y_pred = normal(4, seed=1), normal(4, seed=2)
    close(value(PerElement("mse"), y_true, y_pred[:, None]), np.mean((y_true - y_pred) ** 2))


def test_elements_of_other_losses_of_elements():
    y_true, y_pred = uniform(4, 3, seed=1), uniform(4, 3, seed=2)
    entropy = -y_true * np.log(y_pred) - (1 - y_true) * np.log(1 - y_pred)
    loss = PerElement("binary_crossentropy", names=NAMES)
    assert components(loss, y_true, y_pred) == expect(entropy.mean(axis=0))
    under = PerElement(cl.losses.UnderestimationPenalty(3.0), names=NAMES)
    parts = 3 * np.maximum(y_true - y_pred, 0).mean(axis=0)
    assert components(under, y_true, y_pred) == expect(parts)


# Reductions.


@pytest.mark.parametrize("make", [PerChannel, PerElement])
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "mean"])
def test_a_reduction_is_imposed_on_every_part(make, reduction):
    y_true, y_pred = Y_TRUE[:, 0], Y_PRED[:, 0]
    parts = parts_of(mse, y_true, y_pred, WEIGHTS, None, reduction)
    for loss in (
        cl.CompositeLoss({"a": make("mse", names=NAMES)}, reduction=reduction),
        cl.CompositeLoss({"a": make("mse", names=NAMES, reduction=reduction)}),
    ):
        found = {n: float(v) for n, v in loss.components(y_true, y_pred, WEIGHTS).items()}
        assert found == expect(parts)


@pytest.mark.parametrize("make", [PerChannel, PerElement])
@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_without_a_reduction_every_part_has_a_value_for_each_sample(make, kind):
    if kind == "cosine" and make is PerElement:
        pytest.skip("no loss of elements")
    child = "mse" if kind == "mse" else keras.losses.CosineSimilarity()
    values = mse if kind == "mse" else cosine_similarity
    y_true, y_pred = (Y_TRUE, Y_PRED) if make is PerChannel else (Y_TRUE[:, 0], Y_PRED[:, 0])
    loss = cl.CompositeLoss({"a": make(child, names=NAMES, weights=[1, 2, 0])}, reduction="none")
    found = loss.components(y_true, y_pred, WEIGHTS)
    total = 0
    for c, name in enumerate(NAMES):
        each = values(y_true[..., c : c + 1], y_pred[..., c : c + 1])
        each = WEIGHTS * (each.mean(axis=1) if each.ndim == 2 else each)
        close(found[f"a/{name}"], each)
        total = total + [1, 2, 0][c] * each
    close(found["a"], total)
    close(value(loss, y_true, y_pred, WEIGHTS), total)


# Wrappers inside.


def holes(y):
    return np.where(np.random.default_rng(5).random(y.shape) < 0.4, np.nan, y).astype("float32")


def test_missing_labels_of_each_channel():
    """The mean of a channel is over its own labels that are there."""
    y_true = holes(Y_TRUE)
    there = ~np.isnan(y_true)
    error = (Y_TRUE - Y_PRED) ** 2
    parts = [error[..., c][there[..., c]].mean() for c in range(3)]
    loss = PerChannel(Masked("mse"), names=NAMES)
    assert components(loss, y_true, Y_PRED) == expect(parts)

    def expected(t, p):
        return sum(((t - p)[..., c] ** 2)[there[..., c]].mean() for c in range(3))

    check(loss, expected, y_true, Y_PRED)


def test_missing_labels_of_some_channels():
    y_true = holes(Y_TRUE)
    y_true[..., 0] = Y_TRUE[..., 0]
    loss = PerChannel({"u": "mse", "v": Masked("mse"), "w": Masked("mae")})
    error, there = Y_TRUE - Y_PRED, ~np.isnan(y_true)
    values = [error[..., 0] ** 2, error[..., 1] ** 2, np.abs(error[..., 2])]
    parts = [v[there[..., c]].mean() for c, v in enumerate(values)]
    assert components(loss, y_true, Y_PRED) == expect(parts)


def test_missing_labels_of_each_element():
    """`PerElement` of a masked loss, or a clear refusal."""
    y_true = holes(Y_TRUE[:, 0])
    there = ~np.isnan(y_true)
    error = np.where(there, (Y_TRUE[:, 0] - Y_PRED[:, 0]) ** 2, 0)
    parts = error.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    try:
        loss = PerElement(Masked("mse"), names=NAMES)
    except ValueError as error:
        assert "Masked" in str(error) and "single elements" in str(error)
    else:
        assert components(loss, y_true, Y_PRED[:, 0]) == expect(parts)


def test_class_weights_in_each_channel():
    """Binary targets of each channel weighted by their class."""
    y_true = (Y_TRUE > 0).astype("float32")
    loss = PerChannel(ClassWeighted("mse", [1.0, 3.0]), names=NAMES)
    parts = [
        np.mean(np.where(y_true[..., c] > 0, 3.0, 1.0) * (y_true - Y_PRED)[..., c] ** 2)
        for c in range(3)
    ]
    assert components(loss, y_true, Y_PRED) == expect(parts)


class Spread(cl.losses.Loss):
    """A loss whose samples see each other: the distance from the mean of the batch."""

    couples_batch = True

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.square(error - ops.mean(error, axis=0, keepdims=True)), axis=-1)


class Whole(keras.losses.Loss):
    """A user's loss with a `__call__` of its own."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        values = ops.mean(ops.square(y_true - y_pred), axis=(1, 2))
        return ops.mean(values if sample_weight is None else values * sample_weight)


def spread(t, p):
    error = t - p
    return np.mean((error - error.mean(axis=0, keepdims=True)) ** 2, axis=-1)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize(
    "child, values",
    [
        (Spread, spread),
        (Whole, lambda t, p: mse(t, p).mean(axis=1)),
        (
            lambda: cl.CompositeLoss(["mse", "mae"], [1.0, 0.5]),
            lambda t, p: mse(t, p) + mae(t, p) / 2,
        ),
        (lambda: PerElement("mse", aggregation="mean"), mse),
    ],
    ids=["couples the batch", "a call of its own", "a composite", "elements"],
)
def test_a_loss_that_takes_the_batch_as_a_whole_sees_each_channel(child, values, weight):
    parts = parts_of(values, Y_TRUE, Y_PRED, weight)
    loss = PerChannel(child(), names=NAMES)
    data = () if weight is None else (weight,)
    assert components(loss, Y_TRUE, Y_PRED, *data) == expect(parts)


@pytest.mark.parametrize("child", [Spread, Whole, BatchScalar])
def test_it_sees_each_channel_inside_a_wrapper_too(child):
    wrapped = PerChannel(Scaled(child(), 1.0), names=NAMES)
    alone = components(PerChannel(child(), names=NAMES), Y_TRUE, Y_PRED)
    assert components(wrapped, Y_TRUE, Y_PRED) == alone


def test_a_loss_that_returns_one_number_for_the_batch_sees_each_channel():
    parts = [np.abs(Y_TRUE - Y_PRED)[..., c].mean() for c in range(3)]
    assert components(PerChannel(BatchScalar(), names=NAMES), Y_TRUE, Y_PRED) == expect(parts)


def test_missing_labels_count_in_a_composite_of_each_channel():
    y_true = holes(Y_TRUE)
    there, error = ~np.isnan(y_true), Y_TRUE - Y_PRED
    parts = [
        (error[..., c] ** 2)[there[..., c]].mean() + np.abs(error[..., c])[there[..., c]].mean()
        for c in range(3)
    ]
    inside = PerChannel(cl.CompositeLoss([Masked("mse"), Masked("mae")]), names=NAMES)
    around = Masked(PerChannel(cl.CompositeLoss(["mse", "mae"]), names=NAMES))
    for loss in (inside, around):
        assert components(loss, y_true, Y_PRED) == expect(parts)


def test_an_importance_map_of_elements_inside_a_wrapper():
    y_true = holes(Y_TRUE)
    there, error = ~np.isnan(y_true), (Y_TRUE - Y_PRED) ** 2
    parts = [(IMPORTANCE * error)[..., c][there[..., c]].mean() for c in range(3)]
    for loss in (
        PerChannel(Masked("mse"), names=NAMES, weights=IMPORTANCE),
        Masked(PerChannel("mse", names=NAMES, weights=IMPORTANCE)),
    ):
        assert components(loss, y_true, Y_PRED) == expect(parts)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_missing_labels_on_any_axis(axis):
    y_true = holes(Y_TRUE)
    there, error = ~np.isnan(y_true), (Y_TRUE - Y_PRED) ** 2
    each = zip(np.moveaxis(error, axis, 0), np.moveaxis(there, axis, 0), strict=True)
    expected = sum(e[t].mean() for e, t in each)
    close(value(PerChannel(Masked("mse"), axis=axis), y_true, Y_PRED), expected)
    close(value(Masked(PerChannel("mse", axis=axis)), y_true, Y_PRED), expected)


@pytest.mark.parametrize("kind", ["one", "several", "cosine", "composite", "elements"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 5, 1), (4, 1, 3)])
def test_weights_with_axes_of_length_1_hold_along_them(shape, kind):
    make = {
        "one": lambda: PerChannel("mse"),
        "several": lambda: PerChannel(["mse", "mae", "mse"]),
        "cosine": lambda: PerChannel(keras.losses.CosineSimilarity()),
        "composite": lambda: PerChannel(cl.CompositeLoss(["mse"])),
        "elements": lambda: PerElement("mse"),
    }[kind]
    weight = uniform(*shape, seed=8)
    whole = np.broadcast_to(weight, (4, 5, 3)).copy()
    close(value(make(), Y_TRUE, Y_PRED, weight), value(make(), Y_TRUE, Y_PRED, whole))
    if kind in ("one", "composite", "elements"):
        by = 15 if kind == "elements" else 3
        expected = by * np.mean(weight * (Y_TRUE - Y_PRED) ** 2)
        close(value(make(), Y_TRUE, Y_PRED, weight), expected)


def test_weights_of_a_last_axis_that_is_left_out():
    y_true, y_pred = Y_TRUE[..., 0], Y_PRED[..., :1]  # (N, T) and (N, T, 1)
    weight = uniform(4, 5, 1, seed=8)
    expected = 5 * np.mean(weight[..., 0] * (y_true - y_pred[..., 0]) ** 2)
    close(value(PerChannel("mse"), y_true, y_pred, weight), expected)


def test_the_weights_of_a_composite_inside_are_those_of_the_model():
    """`set_weight` on the inner composite reaches the compiled step."""
    inner = cl.CompositeLoss(["mse", "mae"])
    model = cl.Sequential([keras.Input((5, 3)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=PerChannel(inner))
    before = model.evaluate(Y_PRED, Y_TRUE, verbose=0)
    both = [3 * np.mean(np.abs(Y_TRUE - Y_PRED) ** n) for n in (2, 1)]
    assert before == pytest.approx([sum(both)], rel=1e-5)
    inner.set_weight("mae", 0.0)
    assert model.evaluate(Y_PRED, Y_TRUE, verbose=0) == pytest.approx([both[0]], rel=1e-5)


@every_batch
def test_units_and_slices_in_each_channel(weight, mask):
    loss = PerChannel(Scaled(OnSlice("mse", np.s_[:, 1:4]), 2.0), names=NAMES)

    def cut(array):
        return array if array is None or array.ndim == 1 else array[:, 1:4]

    def expected(t, p):
        t, p = t[:, 1:4] / 2, p[:, 1:4] / 2
        return sum(parts_of(mse, t, p, cut(weight), cut(mask)))

    check(loss, expected, Y_TRUE, Y_PRED, weight, mask)


# In a model, and saved.


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know every shape")
def test_an_axis_of_unknown_length_on_tensorflow():
    import tensorflow as tf

    losses = {
        "mse": PerChannel("mse"),
        "cosine": PerChannel(keras.losses.CosineSimilarity()),
        "missing": PerChannel(Masked("mse")),
        "sum": Masked(keras.losses.MeanSquaredError(reduction="sum")),
        "back": OnSlice("mse", np.s_[:, ::-1]),
    }

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3))] * 2)
    def traced(y_true, y_pred):
        return [loss(y_true, y_pred) for loss in losses.values()]

    close(traced(Y_TRUE, Y_PRED), [value(loss, Y_TRUE, Y_PRED) for loss in losses.values()])
    model = cl.Sequential([keras.Input((None, 3)), keras.layers.Dense(3)])
    model.compile("sgd", loss=cl.CompositeLoss({"part": PerElement("mse")}))
    unknown = tf.data.Dataset.from_generator(
        lambda: iter([(Y_TRUE, Y_PRED)]),
        output_signature=(tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None, 3))),
    )
    with raises(ValueError, "'part'", "static shape", "Received: "):
        model.evaluate(unknown, verbose=0)
    model.compile("sgd", loss=cl.CompositeLoss({"part": Masked("mse", mask=np.ones((5, 3)))}))
    with raises(ValueError, "'part'", "shape of one sample, (None, 3)", "mask of shape (5, 3)"):
        model.evaluate(unknown, verbose=0)


def test_every_channel_is_a_metric():
    model = cl.Sequential([keras.Input((5, 3)), keras.layers.Rescaling(1.0)])
    loss = {
        "a": PerChannel("mse", names=NAMES, weights=[1, 2, 3]),
        "b": PerElement("mae", size=(5, 3)),
    }
    model.compile("sgd", loss=cl.CompositeLoss(loss))
    logs = model.evaluate(Y_PRED, Y_TRUE, batch_size=3, verbose=0, return_dict=True)
    assert list(logs)[:6] == ["loss", "a_loss", "a/u_loss", "a/v_loss", "a/w_loss", "b_loss"]
    assert len(logs) == 6 + 15
    parts = parts_of(mse, Y_TRUE, Y_PRED)
    for name, part in zip(NAMES, parts, strict=True):
        assert logs[f"a/{name}_loss"] == pytest.approx(part, rel=1e-5)
    last = np.mean(np.abs(Y_TRUE - Y_PRED)[:, 4, 2])
    assert logs["b/element_4_2_loss"] == pytest.approx(last, rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["a_loss"] + logs["b_loss"], rel=1e-5)


def test_names_compiled_alone_are_metrics_too():
    model = cl.Sequential([keras.Input((5, 3)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=PerChannel("mse", names=NAMES))
    logs = model.evaluate(Y_PRED, Y_TRUE, verbose=0, return_dict=True)
    parts = parts_of(mse, Y_TRUE, Y_PRED)
    expected = dict(zip(["u_loss", "v_loss", "w_loss"], parts, strict=True))
    assert logs == pytest.approx({"loss": sum(parts), **expected}, rel=1e-5)


CONFIGS = {
    "list": lambda: PerChannel(["mse", keras.losses.Huber(0.3), "mse"], weights=[1, 2, 3]),
    "dict": lambda: PerChannel(
        {"w": "mse", "u": keras.losses.Huber(0.3), "v": "mse"}, weights={"u": 2.0}
    ),
    "names": lambda: PerChannel("mse", axis=-1, names=("w", "u", "v"), aggregation="mean"),
    "size": lambda: PerElement("mse", size=(5, 3), weights=np.arange(15.0).reshape(5, 3)),
    "map": lambda: PerChannel("mse", weights=IMPORTANCE, aggregation="weighted_mean"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_config_loses_nothing(kind):
    loss = CONFIGS[kind]()
    loaded = type(loss).from_config(json.loads(json.dumps(loss.get_config())))
    assert loaded.component_names == loss.component_names
    assert components(loaded, Y_TRUE, Y_PRED) == components(loss, Y_TRUE, Y_PRED)
    assert json.dumps(loaded.get_config()) == json.dumps(loss.get_config())


# Errors.


def fails(loss, *parts, y_true=Y_TRUE, y_pred=Y_PRED):
    with raises(ValueError, "'part'", *parts, "Received: "):
        cl.CompositeLoss({"part": loss})(y_true, y_pred)


def test_another_number_of_channels_than_names_is_an_error():
    fails(PerChannel("mse", names=["u", "v"]), "2 names for 3 channels", "shape (4, 5, 3)")
    fails(PerChannel(["mse", "mae"]), "2 names for 3 channels")
    fails(PerChannel("mse", size=4), "4 names for 3 channels")
    fails(PerElement("mse", names=NAMES), "3 names for 15 elements")
    fails(PerElement("mse", size=(3, 4)), "12 names for 15 elements")


def test_a_size_of_another_shape_than_a_sample_is_an_error():
    """`(3, 5)` names 15 elements too, each in the wrong place."""
    fails(PerElement("mse", size=(3, 5)), "(5, 3)")


def test_weights_of_another_shape_are_an_error():
    for weights in ([1.0, 2.0], np.ones(5), np.ones((4, 5, 3)), np.ones((3, 5)), np.ones((1, 3))):
        for make in (PerChannel, PerElement):
            fails(make("mse", weights=weights), "weights", "(5, 3)", f"{np.shape(weights)}")


def test_an_importance_map_needs_single_elements():
    fails(PerChannel(keras.losses.Dice(), weights=IMPORTANCE), "importance map")
    fails(PerChannel(BatchScalar(), weights=IMPORTANCE), "importance map")


@pytest.mark.parametrize("axis", [3, -3, -4])
def test_an_axis_that_is_not_there_is_an_error(axis):
    fails(PerChannel("mse", axis=axis), f"{axis}", "shape (4, 5, 3)")


@pytest.mark.backend_free
@pytest.mark.parametrize("axis", [0, 1.0, "last", True])
def test_the_axis_is_an_integer_other_than_the_batch(axis):
    with raises(ValueError, "`axis` of PerChannel", f"Received: {axis!r}"):
        PerChannel("mse", axis=axis)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "child",
    ["categorical_crossentropy", keras.losses.CosineSimilarity(), cl.losses.BoundaryDisagreement()],
)
def test_elements_need_a_loss_of_elements(child):
    with raises(ValueError, "PerElement", "single elements", "Received: "):
        PerElement(child)


@pytest.mark.backend_free
@pytest.mark.parametrize("make", [PerChannel, PerElement])
def test_arguments_that_are_not_allowed(make):
    for bad in ("median", None, 1):
        with raises(ValueError, "`aggregation`", "'weighted_mean'", f"Received: {bad!r}"):
            make("mse", names=NAMES, aggregation=bad)
    for bad in (["a/b", "c"], ["loss", "c"], ["", "c"], ["val_a", "b"], [1, 2]):
        with raises(ValueError, "name", "Received: "):
            make("mse", names=bad)
    with raises(ValueError, "log key", "Received: 'u' and 'u'"):
        make("mse", names=["u", "u"])
    with raises(ValueError, "`names` and `size`", "Received: 3 names and size=2"):
        make("mse", names=NAMES, size=2)
    with raises(ValueError, "`weights`", "'u', 'v', 'w'", "Received: 'x'"):
        make("mse", names=NAMES, weights={"x": 1.0})
    for bad in ([1.0, np.nan, 1.0], [np.inf, 1, 1]):
        with raises(ValueError, "`weights`", "finite", "Received: "):
            make("mse", names=NAMES, weights=bad)
    with raises(ValueError, "`weights`", "finite", "Received: "):
        make("mse", names=NAMES, weights={"u": np.nan})
    for bad in (3, "uvw", {"u": 1}):
        with raises(ValueError, "`names` of", "list of strings", f"Received: {bad!r}"):
            make("mse", names=bad)
    for bad in ("ab", ["a", "b", "c"], [None, 1, 2]):
        with raises(ValueError, "`weights`", "finite numbers", f"Received: {bad!r}"):
            make("mse", names=NAMES, weights=bad)
    with raises(ValueError, "give `names` too", "Received: {'u': 1.0}"):
        make("mse", weights={"u": 1.0})
    for bad in (0, -1, True, 1.5, "3"):
        with raises(ValueError, "`size`", f"Received: {bad!r}"):
            make("mse", size=bad)


def test_the_weight_of_a_part_is_that_of_the_constructor():
    loss = cl.CompositeLoss({"c": PerChannel("mse", names=["a", "b"]), "d": "mae"})
    with raises(ValueError, "that its wrapper was given", "'c' and 'd'", "Received: 'c/a'"):
        loss.set_weight("c/a", 2.0)
    with raises(ValueError, "no component of this name", "'c' and 'd'", "Received: 'c/x'"):
        loss.set_weight("c/x", 2.0)


@pytest.mark.backend_free
def test_weights_that_sum_to_0_have_no_mean():
    for make in (PerChannel, PerElement):
        with raises(ValueError, "weighted_mean", "Received: "):
            make("mse", names=NAMES, weights=[1.0, -1.0, 0.0], aggregation="weighted_mean")


@pytest.mark.backend_free
def test_a_list_of_another_length_than_the_names_is_an_error():
    with raises(ValueError, "2 names for 3 channels", "Received: "):
        PerChannel(several(), names=["u", "v"])
    for empty in ([], {}, ()):
        with raises(ValueError, "needs a loss", "Received: "):
            PerChannel(empty)
