"""`Normalized` against NumPy: one number for all that is judged."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import (
    ClassWeighted,
    Masked,
    MultiScale,
    Normalized,
    OneHot,
    OnOutput,
    OnSlice,
    PerChannel,
)
from tests.gradients import gradient
from tests.masks import masked as with_mask
from tests.messages import raises
from tests.processes import run_python

ANCHORS = {"p3": 12, "p4": 6, "p5": 3}


def levels(seed=0, batch=4):
    """Targets of 0 and 1, rare ones, and probabilities, `(batch, anchors, 1)` for each level."""
    rng = np.random.default_rng(seed)
    y = {n: (rng.random((batch, k, 1)) < 0.2).astype("float32") for n, k in ANCHORS.items()}
    p = {n: rng.uniform(0.05, 0.95, (batch, k, 1)).astype("float32") for n, k in ANCHORS.items()}
    return y, p


def binary_entropy(y, p):
    y, p = np.float64(y), np.float64(p)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=-1)


def as_float(tensor):
    return float(ops.convert_to_numpy(tensor))


# Several levels.


def test_positives_of_all_levels():
    y, p = levels()
    loss = Normalized("binary_crossentropy", over=["p3", "p4", "p5"])
    values = sum(binary_entropy(y[n], p[n]).sum() for n in ANCHORS)
    positives = sum(y[n].sum() for n in ANCHORS)
    assert as_float(loss(y, p)) == pytest.approx(values / positives, rel=1e-5)
    means = [binary_entropy(y[n], p[n]).sum() / max(1, y[n].sum()) for n in ANCHORS]
    assert as_float(loss(y, p)) != pytest.approx(np.mean(means), rel=0.01)


def test_weights_of_all_levels():
    y, p = levels()
    weight = {n: np.random.default_rng(3).uniform(0, 2, y[n].shape[:2]) for n in y}
    weight["p4"][:] = 0
    loss = Normalized("binary_crossentropy", "weights", over=["p3", "p4", "p5"])
    values = sum((weight[n] * binary_entropy(y[n], p[n])).sum() for n in ANCHORS)
    expected = values / sum(weight[n].sum() for n in ANCHORS)
    assert as_float(loss(y, p, weight)) == pytest.approx(expected, rel=1e-5)


def test_a_number_and_functions():
    y, p = levels()
    values = sum(binary_entropy(y[n], p[n]).sum() for n in ANCHORS)
    over = list(ANCHORS)

    def twice(y_true):
        return 2.0 * y_true

    def one(y_true):
        return 5.0

    def of_weights(y_true, sample_weight):
        return 7.0 if sample_weight is None else ops.sum(sample_weight)

    positives = sum(y[n].sum() for n in ANCHORS)
    pairs = [(128, 128), (twice, 2 * positives), (one, 15.0), (of_weights, 21.0)]
    for by, count in pairs:
        found = as_float(Normalized("binary_crossentropy", by, over=over)(y, p))
        assert found == pytest.approx(values / count, rel=1e-5)


def test_parts_add_up_to_the_total():
    y, p = levels()
    loss = cl.CompositeLoss({"cls": Normalized("binary_crossentropy", over=list(ANCHORS))})
    found = {name: as_float(value) for name, value in loss.components(y, p).items()}
    assert list(found) == ["cls", "cls/p3", "cls/p4", "cls/p5"]
    assert found["cls"] == pytest.approx(sum(found[f"cls/{n}"] for n in ANCHORS), rel=1e-6)
    positives = sum(y[n].sum() for n in ANCHORS)
    assert found["cls/p4"] == pytest.approx(
        binary_entropy(y["p4"], p["p4"]).sum() / positives, rel=1e-5
    )


def test_composites_inside_report_their_parts():
    y, p = levels()
    inner = cl.CompositeLoss({"ce": "binary_crossentropy", "mse": "mse"}, weights={"mse": 3.0})
    loss = Normalized(inner, over=["p3", "p5"])
    assert loss.component_names == ("p3", "p3_ce", "p3_mse", "p5", "p5_ce", "p5_mse")
    found = dict(zip(loss.component_names, map(as_float, parts(loss, y, p)), strict=True))
    positives = y["p3"].sum() + y["p5"].sum()
    squares = np.square(np.float64(y["p5"]) - p["p5"]).sum()
    assert found["p5_mse"] == pytest.approx(squares / positives, rel=1e-5)
    assert found["p5"] == pytest.approx(found["p5_ce"] + 3 * found["p5_mse"], rel=1e-5)
    assert loss.part_weights["p5_mse"] == 3.0 and loss.part_parents["p5_mse"] == "p5"
    assert as_float(loss(y, p)) == pytest.approx(found["p3"] + found["p5"], rel=1e-6)


def parts(loss, y, p):
    values = cl.CompositeLoss({"all": loss}).components(y, p)
    return list(values.values())[1:]


def test_the_slope_is_that_of_the_quotient():
    y, p = levels()
    loss = Normalized("binary_crossentropy", over=list(ANCHORS))
    slope = gradient(lambda q: loss(y, {**p, "p4": q}), p["p4"])
    positives = sum(y[n].sum() for n in ANCHORS)
    expected = (p["p4"] - y["p4"]) / (p["p4"] * (1 - p["p4"])) / positives
    np.testing.assert_allclose(slope, expected, rtol=2e-4)


# What counts.


def quotient(loss, y, p, weight=None):
    return as_float(loss(y, p, weight))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 5), (6, 5, 3), (6, 4, 4, 2)])
def test_rows_with_an_object(shape):
    rng = np.random.default_rng(1)
    y = (rng.random(shape) < 0.3).astype("float32")
    p = rng.uniform(0.1, 0.9, shape).astype("float32")
    rows = y.max(axis=-1) if len(shape) > 1 else y
    values = binary_entropy(y, p) if len(shape) > 1 else binary_entropy(y[:, None], p[:, None])
    expected = values.sum() / max(1, (rows > 0).sum())
    loss = Normalized("binary_crossentropy")
    assert quotient(loss, y, p) == pytest.approx(expected, rel=1e-5)
    for weight in (np.ones(6), np.ones(shape)[..., :1], np.ones(shape[:-1] or shape)):
        assert quotient(loss, y, p, weight) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "bool"])
def test_class_0_of_ids_is_the_background(dtype):
    rng = np.random.default_rng(2)
    top = 2 if dtype == "bool" else 4
    y, p = rng.integers(0, top, (3, 7)).astype(dtype), rng.dirichlet(np.ones(4), (3, 7))
    ids = y.astype(int)
    values = -np.log(np.take_along_axis(p, ids[..., None], -1))
    expected = values.sum() / (ids > 0).sum()
    for target in (y, y[..., None]):
        loss = Normalized("sparse_categorical_crossentropy")
        assert quotient(loss, target, p) == pytest.approx(expected, rel=1e-4)
    one_hot = np.eye(4, dtype="float32")[ids]
    for loss in ("categorical_crossentropy", cl.losses.CategoricalFocal(0.0)):
        assert quotient(Normalized(loss), one_hot, p) == pytest.approx(expected, rel=1e-4)
    loss = Normalized(OneHot("categorical_crossentropy", 4))
    if dtype != "bool":
        assert quotient(loss, ids, p) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["masked", "one_hot", "ignore_class", "weight", "propagated"])
@pytest.mark.parametrize("by", ["positives", "weights"])
def test_void_rows_are_dropped(kind, by):
    rng = np.random.default_rng(4)
    ids, p = rng.integers(0, 3, (4, 6)), rng.dirichlet(np.ones(3), (4, 6)).astype("float32")
    void = rng.random((4, 6)) < 0.4
    values = -np.log(np.take_along_axis(np.float64(p), ids[..., None], -1))[..., 0]
    counted = ~void if by == "weights" else ~void & (ids > 0)
    expected = values[~void].sum() / counted.sum()
    marked = np.where(void, 9, ids)
    if kind == "masked":
        loss = Normalized(Masked("sparse_categorical_crossentropy", mask_value=9), by)
        found = quotient(loss, marked, p)
    elif kind == "one_hot":
        loss = Normalized(OneHot("categorical_crossentropy", 3, ignore_value=9), by)
        found = quotient(loss, marked, p)
    elif kind == "ignore_class":
        child = keras.losses.SparseCategoricalCrossentropy(ignore_class=9)
        found = quotient(Normalized(child, by), marked, p)
    elif kind == "weight":
        loss = Normalized("sparse_categorical_crossentropy", by)
        found = quotient(loss, ids, p, (~void).astype("float32"))
    else:
        loss = Normalized("sparse_categorical_crossentropy", by)
        found = as_float(loss(ids, with_mask(p, ~void)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_void_rows_of_composites_are_dropped():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, (4, 6, 1)).astype("float32")
    p = rng.uniform(0.1, 0.9, y.shape).astype("float32")
    void = rng.random(y.shape) < 0.4
    inner = cl.CompositeLoss([Masked("mse", mask_value=7), Masked("mae", mask_value=7)])
    error = (y - p)[~void]
    expected = (np.square(error).sum() + np.abs(error).sum()) / y[~void].sum()
    assert quotient(Normalized(inner), np.where(void, 7, y), p) == pytest.approx(expected, rel=1e-5)


def test_missing_labels_of_single_elements():
    rng = np.random.default_rng(5)
    y, p = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    y[rng.random(y.shape) < 0.4] = np.nan
    there = ~np.isnan(y)
    squares = np.where(there, np.square(np.nan_to_num(y) - p), 0)
    found = quotient(Normalized(Masked("mse"), "weights"), y, p)
    assert found == pytest.approx(squares.sum() / there.sum(), rel=1e-5)
    rows = (np.nan_to_num(y) > 0).any(axis=1).sum()
    found = quotient(Normalized(Masked("mse")), y, p)
    assert found == pytest.approx(squares.sum() / 3 / rows, rel=1e-5)


def test_element_weights():
    rng = np.random.default_rng(6)
    y, p, w = rng.random((5, 4)), rng.random((5, 4)), rng.integers(0, 3, (5, 4)).astype("float32")
    masked = Masked("mse")
    expected = (w * np.square(y - p)).sum() / w.sum()
    assert quotient(Normalized(masked, "weights"), y, p, w) == pytest.approx(expected, rel=1e-5)
    ones = np.ones_like(w)
    for by in ("weights", "positives", 3.0):
        loss = Normalized(masked, by)
        assert quotient(loss, y, p, ones) == pytest.approx(quotient(loss, y, p), rel=1e-5)


def test_likelihoods_count_targets():
    rng = np.random.default_rng(7)
    y, p = rng.normal(size=(8, 3)), rng.normal(size=(8, 6))
    mean, log_variance = p[:, :3], p[:, 3:]
    nll = 0.5 * (log_variance + np.square(y - mean) * np.exp(-log_variance))
    loss = Normalized(cl.losses.GaussianNLL(), "weights")
    plain = as_float(cl.losses.GaussianNLL()(y, p))
    assert quotient(loss, y, p) == pytest.approx(plain, rel=1e-5)
    assert quotient(loss, y, p, np.ones((8, 3))) == pytest.approx(plain, rel=1e-5)
    positives = (y > 0).any(axis=1).sum()
    factor = as_float(cl.losses.GaussianNLL()(y, p)) * 8 / positives
    assert quotient(Normalized(cl.losses.GaussianNLL()), y, p) == pytest.approx(factor, rel=1e-5)
    assert nll.shape == y.shape


def test_class_weights_are_part_of_the_weights():
    rng = np.random.default_rng(8)
    ids, p = rng.integers(0, 3, (5, 6)), rng.dirichlet(np.ones(3), (5, 6))
    own = np.array([0.5, 1.0, 4.0])
    values = -np.log(np.take_along_axis(p, ids[..., None], -1))[..., 0]
    child = ClassWeighted("sparse_categorical_crossentropy", own)
    expected = (own[ids] * values).sum() / own[ids].sum()
    assert quotient(Normalized(child, "weights"), ids, p) == pytest.approx(expected, rel=1e-4)
    expected = (own[ids] * values).sum() / (ids > 0).sum()
    assert quotient(Normalized(child), ids, p) == pytest.approx(expected, rel=1e-4)


def test_boxes():
    rng = np.random.default_rng(9)
    corner = rng.uniform(0, 0.5, (3, 5, 2))
    y = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, corner.shape)], -1)
    p = y + 0.02
    y[rng.random((3, 5)) < 0.5] = 0  # padding
    there = (y > 0).any(-1)
    values = as_values(cl.losses.GIoU(reduction="none"), y, p)
    loss = Normalized(Masked(cl.losses.GIoU(), mask_value=0), "weights")
    valid = values[there].sum() / there.sum()
    assert quotient(loss, y, p) == pytest.approx(valid, rel=1e-4)
    assert quotient(Normalized(Masked(cl.losses.GIoU(), mask_value=0)), y, p) == pytest.approx(
        valid, rel=1e-4
    )


def as_values(loss, y, p):
    return ops.convert_to_numpy(loss(y.astype("float32"), p.astype("float32")))


def test_slices_and_scales_see_their_own():
    rng = np.random.default_rng(10)
    y = (rng.random((3, 8, 2)) < 0.4).astype("float32")
    p = rng.random((3, 8, 2)).astype("float32")
    loss = Normalized(OnSlice("mse", np.s_[..., :1]))
    expected = np.square(y - p)[..., 0].sum() / y[..., 0].sum()
    assert quotient(loss, y, p) == pytest.approx(expected, rel=1e-5)
    assert quotient(Normalized(MultiScale("mse", scales=(1,))), y, p) == pytest.approx(
        np.square(y - p).mean(-1).sum() / y.max(-1).sum(), rel=1e-5
    )


def test_sums_over_classes():
    """As RetinaNet has it: over anchors and classes, per anchor with an object."""
    rng = np.random.default_rng(11)
    y = np.eye(4, dtype="float32")[rng.integers(0, 4, (2, 9))][..., 1:]
    p = rng.uniform(0.1, 0.9, y.shape).astype("float32")
    inside = Normalized(PerChannel("binary_crossentropy"))
    expected = 3 * binary_entropy(y, p).sum() / y.sum()
    assert quotient(inside, y, p) == pytest.approx(expected, rel=1e-5)
    outside = PerChannel(Normalized("binary_crossentropy"), names=["a", "b", "c"])
    each = [
        binary_entropy(y[..., c : c + 1], p[..., c : c + 1]).sum() / y[..., c].sum()
        for c in range(3)
    ]
    assert quotient(outside, y, p) == pytest.approx(sum(each), rel=1e-5)


def test_one_output_of_several():
    y, p = levels()
    expected = binary_entropy(y["p4"], p["p4"]).sum() / y["p4"].sum()
    for loss in (
        OnOutput(Normalized("binary_crossentropy"), "p4"),
        Normalized(OnOutput("binary_crossentropy", "p4")),
        Normalized("binary_crossentropy", over=("p4",)),
    ):
        assert quotient(loss, y, p) == pytest.approx(expected, rel=1e-5)


# Edges.


@pytest.mark.parametrize("by", ["positives", "weights", 4.0])
def test_nothing_to_count(by):
    y, p = np.zeros((3, 4, 1)), np.full((3, 4, 1), 0.25)
    loss = Normalized(Masked("mse", mask_value=-1), by)
    if by == "positives":  # as for 1, which detectors take
        assert quotient(loss, y, p) == pytest.approx(np.square(p).sum())
    missing = np.full_like(y, -1)
    assert quotient(loss, missing, p) == 0
    assert np.all(gradient(lambda q: loss(missing, q), p.astype("float32")) == 0)
    assert quotient(loss, np.zeros((0, 4, 1)), np.zeros((0, 4, 1))) == 0


def test_a_row_of_weight_0_does_no_harm():
    y, p = levels()
    weight = np.array([1.0, 0.0, 1.0, 2.0])
    bad = {n: a.copy() for n, a in y.items()}
    for array in bad.values():
        array[1] = np.nan
    loss = Normalized("binary_crossentropy", over=list(ANCHORS))
    assert quotient(loss, bad, p, weight) == pytest.approx(quotient(loss, y, p, weight), rel=1e-6)
    slope = gradient(lambda q: loss(bad, {**p, "p3": q}, weight), p["p3"])
    assert np.all(np.isfinite(slope)) and np.all(slope[1] == 0)


@pytest.mark.parametrize("by", ["positives", "weights"])
def test_float16_counts_exactly(by):
    y = np.ones((1, 70000, 1), "float16")
    p = np.zeros((1, 70000, 1), "float16")
    assert quotient(Normalized("mse", by), y, p) == pytest.approx(1.0, rel=1e-3)
    loss = Normalized(cl.losses.BinaryFocal(0.0), by)
    assert quotient(loss, y, p + np.float16(0.5)) == pytest.approx(math.log(2), rel=1e-3)


# Errors.


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Normalized("mse", "objects"), "'positives', 'weights'"),
        (lambda: Normalized("mse", 0), "above 0"),
        (lambda: Normalized("mse", True), "above 0"),
        (lambda: Normalized("mse", math.nan), "above 0"),
        (lambda: Normalized("mse", 1e-60), "above 0"),
        (lambda: Normalized("mse", lambda: 1), "f(y_true)"),
        (lambda: Normalized("mse", over=[]), "`over`"),
        (lambda: Normalized("mse", over="p3"), "`over`"),
        (lambda: Normalized("mse", over=["a", "a"]), "different"),
        (lambda: Normalized(OnOutput("mse", "a"), over=["a"]), "choose in one place"),
        (lambda: Normalized(cl.CompositeLoss(["mse", "mae"]), "weights"), "around each"),
    ],
)
def test_errors(make, said):
    with raises(ValueError, said):
        make()


def test_errors_of_calls():
    y, p = np.ones((3, 2)), np.zeros((3, 2))

    def scalar(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred))

    with raises(ValueError, "one number for the whole batch"):
        Normalized(scalar)(y, p)
    with raises(ValueError, "per_component"):
        cl.CompositeLoss([Normalized("mse")], reduction="sum")(y, p)
    with raises(ValueError, "p6"):
        Normalized("mse", over=["p6"])(*levels())


# In training.


@keras.saving.register_keras_serializable("tests.normalized")
def half(y_true):
    return 0.5 * y_true


def detector():
    inputs = keras.Input((5,))
    heads = {
        n: keras.layers.Reshape((k, 1))(keras.layers.Dense(k, "sigmoid")(inputs))
        for n, k in ANCHORS.items()
    }
    return cl.Model(inputs, heads)


@pytest.mark.parametrize("by", ["positives", "weights", 100, half])
def test_fit_save_and_load(by, tmp_path):
    keras.utils.set_random_seed(0)
    y, _ = levels(batch=8)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    model = detector()
    normal = Normalized(cl.losses.BinaryFocal(), by, over=["p3", "p4", "p5"])
    model.compile("sgd", loss=cl.CompositeLoss({"cls": normal}))
    logs = model.fit(x, y, epochs=1, batch_size=8, verbose=0).history
    levels_found = [logs[f"cls/{n}_loss"][0] for n in ANCHORS]
    assert logs["loss"][0] == pytest.approx(logs["cls_loss"][0]) == pytest.approx(sum(levels_found))
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before)
    config = json.loads(json.dumps(normal.get_config()))
    again = Normalized.from_config(config)
    assert again.by == by and list(again.over) == ["p3", "p4", "p5"]
    found = cl.diagnose(model, x, y)
    assert [found[f"cls/{n}"].weight for n in ANCHORS] == [1.0, 1.0, 1.0]
    assert found.loss == pytest.approx(before["loss"], rel=1e-5)


SCRIPT = """
from tests.two_replicas import alone_and_together, strategy

strategy()  # first: it sets the devices
import tensorflow as tf

import json
import numpy as np
import combined_losses as cl
from tests.wrappers.test_normalized import ANCHORS, levels

y, p = levels()
weight = np.array([1.0, 2.0, 0.0, 3.0], "float32")
found = {}
for by in ("positives", "weights", 7.0):
    loss = cl.wrappers.Normalized("binary_crossentropy", by, over=list(ANCHORS))

    def value_and_slope(y, p, w):
        with tf.GradientTape() as tape:
            tape.watch(p["p4"])
            value = loss(y, p, w)
        return value, tape.gradient(value, p["p4"])

    found[str(by)] = alone_and_together(value_and_slope, 3, y, p, weight)
print(json.dumps(found))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.depends_on_version
def test_two_replicas_do_as_one_device(tmp_path):
    root = Path(__file__).parents[2]  # of these tests, which an installed package does not have
    printed = run_python(f"import sys; sys.path.append({str(root)!r})\n{SCRIPT}", tmp_path)
    found = json.loads(printed.splitlines()[-1])
    for alone, together in found.values():
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)
