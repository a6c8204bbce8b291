"""`DeepSupervision`: one loss on outputs of several resolutions, against one target."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import ClassWeighted, DeepSupervision, Masked, OneHot, OnOutput
from tests.batches import Batches
from tests.composite.children import WEIGHTS, value
from tests.contracts.registry import CASES
from tests.messages import raises
from tests.training.twin import reduce
from tests.wrappers.numpy_twins import close, mse, normal, uniform


def picked(array, *sizes):
    """The entries at `floor(i * given / size)` along the axes after the first, one by one."""
    array = np.asarray(array)
    for axis, size in enumerate(sizes, start=1):
        places = [i * array.shape[axis] // size for i in range(size)]
        array = np.stack([np.take(array, i, axis) for i in places], axis)
    return array


def cell_means(array, *sizes):
    """The means over equal cells along the axes after the first, pixel by pixel."""
    array = np.asarray(array, "float64")
    for axis, size in enumerate(sizes, start=1):
        side = array.shape[axis] / size
        cells = []
        for i in range(size):
            ends = i * side, (i + 1) * side
            parts = [
                max(0.0, min(ends[1], k + 1) - max(ends[0], k)) * np.take(array, k, axis)
                for k in range(array.shape[axis])
            ]
            cells.append(sum(parts) / side)
        array = np.stack(cells, axis)
    return array


def pyramid():
    """Outputs of 8, 4 and 2 places, and targets of the finest."""
    heads = {f"out{n}": normal(4, n, 2, seed=n) for n in (8, 4, 2)}
    return normal(4, 8, 2, seed=1), heads


def of_levels(weights, y, heads, weight=None):
    parts = [
        reduce(
            mse(cell_means(y, p.shape[1]), p.astype("float64")), weight, None, "sum_over_batch_size"
        )
        for p in heads.values()
    ]
    return sum(w * part for w, part in zip(weights, parts, strict=True)), parts


EXP = [4 / 7, 2 / 7, 1 / 7]


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("weights, numbers", [("exp", EXP), ([1.0, 0.0, 2.0], [1.0, 0.0, 2.0])])
def test_each_output_sees_the_target_at_its_resolution(weights, numbers, weight):
    y, heads = pyramid()
    total, parts = of_levels(numbers, y, heads, weight)
    data = () if weight is None else (weight,)
    close(value(DeepSupervision("mse", weights), y, heads, *data), total)
    named = cl.CompositeLoss({"a": DeepSupervision("mse", weights, [*heads])})
    found = {n: float(v) for n, v in named.components(y, heads, *data).items()}
    expected = dict(zip([f"a/{name}" for name in heads], parts, strict=True))
    assert found == pytest.approx({"a": total, **expected}, rel=1e-5)


def test_the_finest_output_is_named_first_whatever_the_order_of_the_model():
    y, heads = pyramid()
    total, _ = of_levels(EXP, y, heads)
    backwards = dict(reversed(heads.items()))
    close(value(DeepSupervision("mse", outputs=[*heads]), y, backwards), total)


def test_a_target_for_each_output():
    _, heads = pyramid()
    targets = {name: head + 1 for name, head in heads.items()}
    for y in (targets, [*targets.values()]):
        close(value(DeepSupervision("mse", [1.0, 2.0, 3.0]), y, heads), 6.0)


def test_lists_are_in_the_order_of_the_outputs_of_the_model():
    _y, heads = pyramid()
    backwards = dict(reversed(heads.items()))  # the coarsest first
    loss = DeepSupervision("mse", [1.0, 2.0, 4.0], outputs=[*heads])
    targets = [head + n for n, head in enumerate(backwards.values())]
    weights = [np.full(4, w, "float32") for w in (1.0, 3.0, 5.0)]
    # Of out8, out4, out2: the squares of 2, 1, 0, with the sample weights 5, 3, 1.
    close(value(loss, targets, backwards), 1 * 4 + 2 * 1)
    close(value(loss, targets, backwards, weights), 1 * 4 * 5 + 2 * 1 * 3)


def test_images_and_weights_of_single_pixels():
    """Weights of the finest resolution are taken where the targets are."""
    heads = {"full": normal(4, 4, 6, 1, seed=1), "half": normal(4, 2, 3, 1, seed=2)}
    y, weight = normal(4, 4, 6, 1, seed=3), uniform(4, 4, 6, seed=4)
    full = np.mean(weight * mse(y, heads["full"]))
    half = np.mean(weight[:, ::2, ::2] * mse(cell_means(y, 2, 3), heads["half"]))
    close(value(DeepSupervision("mse", [1.0, 0.5]), y, heads, weight), full + 0.5 * half)


def model_of_levels(structure):
    inputs = keras.Input((8, 2))
    outputs = {}
    for n in (8, 4, 2):
        pooled = keras.layers.AveragePooling1D(8 // n)(inputs)
        outputs[f"out{n}"] = keras.layers.Dense(2, name=f"out{n}")(pooled)
    return cl.Model(inputs, outputs if structure is dict else [*outputs.values()])


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("targets", ["one", "each"])
def test_a_model_trains_on_all_levels(structure, targets):
    model = model_of_levels(structure)
    x, y = normal(5, 8, 2, seed=1), normal(5, 8, 2, seed=2)
    names = ["out8", "out4", "out2"]
    loss = cl.CompositeLoss({"deep": DeepSupervision("mse", outputs=names)})
    model.compile("sgd", loss=loss)
    target = y
    if targets == "each":
        each = [cell_means(y, n).astype("float32") for n in (8, 4, 2)]
        target = each if structure is list else dict(zip(names, each, strict=True))
    logs = model.evaluate(x, target, batch_size=2, verbose=0, return_dict=True)
    p = model.predict(x, verbose=0)
    p = p if structure is dict else dict(zip(names, p, strict=True))
    total, parts = of_levels(EXP, y, {name: p[name] for name in names})
    expected = {f"deep/{name}_loss": part for name, part in zip(names, parts, strict=True)}
    assert logs == pytest.approx({"loss": total, "deep_loss": total, **expected}, rel=1e-5)
    before = [w.copy() for w in model.get_weights()]
    model.fit(x, target, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_saved_model_keeps_its_levels(tmp_path):
    model = model_of_levels(dict)
    x, y = normal(5, 8, 2, seed=1), normal(5, 8, 2, seed=2)
    names = ("out8", "out4", "out2")
    loss = DeepSupervision(keras.losses.Huber(0.3), [1, 0.5, 0.25], names)
    model.compile("sgd", loss=cl.CompositeLoss({"deep": loss}))
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(logs, rel=1e-6)


def test_levels_that_do_not_fit_are_errors_that_name_the_component():
    y, heads = pyramid()

    def fails(loss, y, heads, *parts):
        with raises(ValueError, "'part'", *parts, "Received: "):
            cl.CompositeLoss({"part": loss})(y, heads)

    fails(DeepSupervision("mse"), normal(4, 7, 2, seed=1), heads, "at least as fine", "(4, 7, 2)")
    fails(DeepSupervision("mse", [1.0, 2.0]), y, heads, "2 weights for 3 outputs")
    fails(
        DeepSupervision("mse", outputs=["out8", "far"]),
        y,
        heads,
        "'out8', 'out4' and 'out2'",
        "'far'",
    )
    fails(DeepSupervision("mse"), [y, y], heads, "one target, or one for each output")
    fails(DeepSupervision("mse"), y, y, "cl.Model", "cl.track")


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["linear", [], 3, [1.0, np.nan], None], ids=repr)
def test_weights_are_exp_or_numbers(bad):
    with raises(ValueError, "`weights` of DeepSupervision ('mse')", "'exp'", f"Received: {bad!r}"):
        DeepSupervision("mse", bad)


# Sizes that do not divide.


def odd_heads(*tail):
    """Outputs of a network with strides of 2 and padding "same" on images of 15 x 13."""
    sizes = {"full": (15, 13), "half": (8, 7), "quarter": (4, 4)}
    return {name: uniform(3, *size, *tail, seed=i) for i, (name, size) in enumerate(sizes.items())}


def total_of(loss, heads, weights, targets, sample_weights=None):
    loss = cl.as_loss(loss) if isinstance(loss, str) else loss
    return sum(
        w * value(loss, targets[name], head, *([sample_weights[name]] if sample_weights else ()))
        for w, (name, head) in zip(weights, heads.items(), strict=True)
    )


def each(function, y, heads):
    """`function` of an array for every output, at its size."""
    return {name: function(y, *head.shape[1:3]) for name, head in heads.items()}


def in_graph(loss, y, heads, weight=None):
    """The value where TensorFlow does not know how large the images are."""
    import tensorflow as tf

    def unknown(array):
        array = np.asarray(array)
        # Channels, on the first or the last axis, are known.
        channels = [axis in (1, 3) and n <= 4 for axis, n in enumerate(array.shape)]
        sizes = [n if known else None for n, known in zip(array.shape, channels, strict=True)]
        return tf.TensorSpec(sizes, array.dtype)

    data = [y, heads] if weight is None else [y, heads, weight]
    signature = [keras.tree.map_structure(unknown, part) for part in data]
    function = tf.function(lambda *data: loss(*data), input_signature=signature)
    return np.asarray(function(*keras.tree.map_structure(tf.convert_to_tensor, data)))


KNOWN = ["known"] + ["unknown"] * (keras.backend.backend() == "tensorflow")
both_sizes = pytest.mark.parametrize("of", [value, in_graph][: len(KNOWN)], ids=KNOWN)
THREE = [1.0, 0.5, 0.25]


@both_sizes
def test_numbers_are_averaged_over_cells_that_are_cut_in_proportion(of):
    heads, y = odd_heads(2), normal(3, 15, 13, 2, seed=9)
    expected = total_of("mse", heads, THREE, each(cell_means, y, heads))
    close(of(DeepSupervision("mse", THREE), y, heads), expected)


def test_the_mean_of_the_cells_is_that_of_the_image():
    """Every pixel counts once, also one on the border of two cells."""
    y = normal(2, 15, 13, 1, seed=1)
    for size in ((8, 7), (4, 4), (1, 1), (14, 12)):
        heads = {"a": np.zeros((2, *size, 1), "float32")}

        class Mean(cl.losses.Loss):
            def call(self, y_true, y_pred):
                return keras.ops.mean(y_true + 0 * y_pred, axis=(1, 2, 3))

        close(value(DeepSupervision(Mean()), y, heads), y.mean())


@both_sizes
@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_whole_numbers_are_picked(of, dtype):
    heads = odd_heads(1)
    y = (normal(3, 15, 13, 1, seed=9) > 0).astype(dtype)
    expected = total_of("binary_crossentropy", heads, THREE, each(picked, y, heads))
    close(of(DeepSupervision("binary_crossentropy", THREE), y, heads), expected)


OF_IDS = {
    "Keras": lambda: "sparse_categorical_crossentropy",
    "focal": lambda: cl.losses.SparseCategoricalFocal(),
    "one-hot": lambda: OneHot(cl.losses.Dice(), 4),
    "wrapped": lambda: ClassWeighted("sparse_categorical_crossentropy", [1.0, 2.0, 3.0, 4.0]),
    "composite": lambda: cl.CompositeLoss(
        {"ce": "sparse_categorical_crossentropy", "dice": OneHot(cl.losses.Dice(), 4)}
    ),
}


@both_sizes
@pytest.mark.parametrize("make", OF_IDS.values(), ids=OF_IDS)
@pytest.mark.parametrize("tail", [(), (1,)], ids=["no axis", "an axis"])
def test_ids_of_floats_are_picked_where_the_loss_takes_ids(of, make, tail):
    heads = odd_heads(4)
    y = np.random.default_rng(0).integers(0, 4, (3, 15, 13, *tail)).astype("float32")
    expected = total_of(make(), heads, THREE, each(picked, y, heads))
    close(of(DeepSupervision(make(), THREE), y, heads), expected)


@both_sizes
@pytest.mark.parametrize("shape", [(3,), (3, 15), (3, 15, 13), (3, 15, 1), (3, 15, 13, 1)], ids=str)
def test_weights_are_picked(of, shape):
    heads = odd_heads(4)
    y = np.random.default_rng(0).integers(0, 4, (3, 15, 13))
    weight = uniform(*shape, seed=5)
    spread = np.broadcast_to(weight.reshape(*shape, *[1] * (4 - len(shape))), (3, 15, 13, 1))
    weights = each(picked, spread[..., 0], heads)
    loss = "sparse_categorical_crossentropy"
    expected = total_of(loss, heads, THREE, each(picked, y, heads), weights)
    close(of(DeepSupervision(loss, THREE), y, heads, weight), expected)


# Void entries.


def means_of_what_counts(y, counts, *sizes):
    sums, share = cell_means(np.where(counts, y, 0), *sizes), cell_means(counts, *sizes)
    return sums / np.where(share > 0, share, 1)


@both_sizes
@pytest.mark.parametrize("mark", [np.nan, -1.0, 255.0])
def test_void_entries_do_not_smear_into_means(of, mark):
    heads, y = odd_heads(2), uniform(3, 15, 13, 2, seed=9)
    void = uniform(3, 15, 13, 2, seed=8, low=0, high=1) < 0.4
    targets = {}
    for name, head in heads.items():
        size = head.shape[1:3]
        means = means_of_what_counts(y, ~void, *size)
        targets[name] = np.where(picked(void, *size), mark, means).astype("float32")
    expected = total_of(Masked("mse", mark), heads, THREE, targets)
    found = of(DeepSupervision(Masked("mse", mark), THREE), np.where(void, mark, y), heads)
    close(found, expected)
    inside = cl.CompositeLoss({"a": Masked("mse", mark), "b": Masked("mae", mark)})
    expected = total_of(inside, heads, THREE, targets)
    found = of(DeepSupervision(inside, THREE), np.where(void, mark, y), heads)
    close(found, expected)


@both_sizes
def test_void_pixels_of_a_region_loss(of):
    heads, y = odd_heads(2), (uniform(3, 15, 13, 2, seed=9) > 0.5).astype("float32")
    void = uniform(3, 15, 13, 1, seed=8, low=0, high=1) < 0.4
    y, void = np.where(void, 255.0, y).astype("float32"), np.broadcast_to(void, y.shape)
    loss = cl.losses.Dice(ignore_value=255)
    targets = {
        name: np.where(
            picked(void, *head.shape[1:3]), 255.0, means_of_what_counts(y, ~void, *head.shape[1:3])
        )
        for name, head in heads.items()
    }
    close(of(DeepSupervision(loss, THREE), y, heads), total_of(loss, heads, THREE, targets))


@both_sizes
@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_what_has_the_weight_0_does_not_smear_either(of, bad):
    heads, y = odd_heads(2), uniform(3, 15, 13, 2, seed=9)
    weight = uniform(3, 15, 13, seed=7) * (uniform(3, 15, 13, seed=8) > 0.4)
    counts = np.broadcast_to(weight[..., None] > 0, y.shape)
    targets = {n: means_of_what_counts(y, counts, *h.shape[1:3]) for n, h in heads.items()}
    expected = total_of("mse", heads, THREE, targets, each(picked, weight, heads))
    spoilt = np.where(counts, y, bad).astype("float32")
    close(of(DeepSupervision("mse", THREE), spoilt, heads, weight), expected)


# Every loss of images.


IMAGES = [case for case in CASES if case.y_pred.ndim == case.y_true.ndim == 4]


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.loss.__name__)
def test_every_loss_of_images(case):
    """It is the loss of each output and of the target at its size."""
    _, height, width, _ = case.y_pred.shape
    coarse = case.y_pred[:, : height - 1, : width - 1]
    heads = {"full": case.y_pred, "half": coarse}
    targets = {
        "full": case.y_true,
        "half": cell_means(case.y_true, height - 1, width - 1).astype("float32"),
    }
    try:
        expected = total_of(case.make(), heads, [1.0, 0.5], targets)
    except ValueError:  # no room for the window of a similarity
        pytest.skip("images of this size are too small")
    found = value(DeepSupervision(case.make(), [1.0, 0.5]), case.y_true, heads)
    close(found, expected)
    if keras.backend.backend() == "tensorflow":
        close(in_graph(DeepSupervision(case.make(), [1.0, 0.5]), case.y_true, heads), expected)


# Channels first.


@both_sizes
@pytest.mark.parametrize("weight", [None, (3,), (3, 15, 13), (3, 1, 15, 13)], ids=str)
@pytest.mark.parametrize("loss", ["mse", "sparse_categorical_crossentropy"])
def test_channels_first_is_channels_last_of_what_is_moved(of, loss, weight):
    of_ids = loss != "mse"
    if of_ids and weight == (3, 1, 15, 13):
        pytest.skip("its weights have no axis of channels")
    heads = odd_heads(2)
    first = {name: np.moveaxis(head, -1, 1) for name, head in heads.items()}
    y = uniform(3, 15, 13, 2, seed=9)
    y = (y[..., 0] > 0.5).astype("int32") if of_ids else y
    y_first = y if of_ids else np.moveaxis(y, -1, 1)
    weights, moved = (), ()
    if weight is not None:
        moved = (uniform(*weight, seed=5),)
        weights = (np.moveaxis(moved[0], 1, -1) if len(weight) == 4 else moved[0],)
    expected = value(DeepSupervision(loss, data_format="channels_last"), y, heads, *weights)
    close(of(DeepSupervision(loss, data_format="channels_first"), y_first, first, *moved), expected)


# Parts of a composite.


def dice_and_bce():
    return cl.CompositeLoss(
        {"dice": cl.losses.Dice(), "bce": "binary_crossentropy"}, weights={"bce": 0.5}
    )


def masks_and_heads():
    return (normal(3, 15, 13, 1, seed=9) > 0).astype("uint8"), odd_heads(1)


def test_the_parts_of_every_output_are_reported():
    y, heads = masks_and_heads()
    deep = DeepSupervision(dice_and_bce(), THREE, [*heads])
    parts = ("full", "full_dice", "full_bce", "half", "half_dice", "half_bce")
    assert deep.component_names[:6] == parts
    found = cl.CompositeLoss({"deep": deep}).components(y, heads)
    for name, head in heads.items():
        own = dice_and_bce().components(picked(y, *head.shape[1:3]), head)
        dice, bce = (float(own[part]) for part in ("dice", "bce"))
        close(float(found[f"deep/{name}_dice"]), dice)
        close(float(found[f"deep/{name}_bce"]), bce)
        close(float(found[f"deep/{name}"]), dice + 0.5 * bce)
    whole = sum(w * float(found[f"deep/{n}"]) for w, n in zip(THREE, heads, strict=True))
    close(float(found["deep"]), whole)


def test_what_each_part_is_a_part_of():
    deep = DeepSupervision(dice_and_bce(), THREE, ["full", "half", "quarter"])
    parents = {"full": None, "full_dice": "full", "full_bce": "full"}
    assert {name: deep.part_parents[name] for name in parents} == parents
    weights = {"full": 1.0, "half": 0.5, "half_dice": 1.0, "half_bce": 0.5, "quarter": 0.25}
    assert {name: deep.part_weights[name] for name in weights} == weights
    assert set(deep.part_parents) == set(deep.part_weights) == set(deep.component_names)


def test_parts_of_single_samples():
    y, heads = masks_and_heads()
    loss = cl.CompositeLoss(
        {"deep": DeepSupervision(dice_and_bce(), THREE, [*heads])}, reduction="none"
    )
    found = loss.components(y, heads)
    assert {tuple(part.shape) for part in found.values()} == {(3,)}


def test_names_that_would_collide():
    loss = cl.CompositeLoss({"dice": cl.losses.Dice()})
    with raises(ValueError, "log key 'full_dice_loss'", "Received: "):
        DeepSupervision(loss, outputs=["full", "full_dice"])


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["full", [], ["a", "a"], [1], 3], ids=repr)
def test_outputs_are_different_names(bad):
    with raises(ValueError, "`outputs` of DeepSupervision ('mse')", f"Received: {bad!r}"):
        DeepSupervision("mse", outputs=bad)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [3, ["a"], b"a"], ids=repr)
def test_the_target_is_a_key(bad):
    with raises(ValueError, "`target` of DeepSupervision ('mse')", f"Received: {bad!r}"):
        DeepSupervision("mse", target=bad)


# Beside other heads.


def model_of_heads(size=(15, 13)):
    """Masks at two resolutions and a label."""
    inputs = keras.Input((*size, 1))
    full = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="full")(inputs)
    down = keras.layers.Conv2D(2, 3, strides=2, padding="same", activation="relu")(inputs)
    half = keras.layers.Conv2D(1, 1, activation="sigmoid", name="half")(down)
    pooled = keras.layers.GlobalAveragePooling2D()(down)
    label = keras.layers.Dense(3, activation="softmax", name="label")(pooled)
    return cl.Model(inputs, {"full": full, "half": half, "label": label})


def beside(**arguments):
    deep = DeepSupervision(dice_and_bce(), [1.0, 0.5], ["full", "half"], **arguments)
    label = OnOutput("sparse_categorical_crossentropy", "label")
    return cl.CompositeLoss({"deep": deep, "label": label})


def data_of_heads():
    y = {
        "mask": (normal(6, 15, 13, 1, seed=2) > 0).astype("uint8"),
        "label": np.arange(6) % 3,
    }
    return normal(6, 15, 13, 1, seed=1), y


@pytest.mark.parametrize("weighted", [None, "one", "each"])
def test_beside_other_heads_the_target_is_named(weighted):
    keras.utils.set_random_seed(0)
    model, (x, y) = model_of_heads(), data_of_heads()
    weight = uniform(6, seed=4)
    given = {None: None, "one": weight, "each": {"mask": weight, "label": 2 * weight}}[weighted]
    model.compile("sgd", loss=beside(target="mask"))
    logs = model.evaluate(x, y, batch_size=4, sample_weight=given, verbose=0, return_dict=True)
    p = model.predict(x, verbose=0)
    weights = {} if weighted is None else {"full": weight, "half": weight}
    targets = each(picked, y["mask"], {name: p[name] for name in ("full", "half")})
    deep = total_of(
        dice_and_bce(), {n: p[n] for n in ("full", "half")}, [1.0, 0.5], targets, weights
    )
    entropy = -np.log(p["label"][np.arange(6), y["label"]])
    label = np.mean(entropy * {None: 1.0, "one": weight, "each": 2 * weight}[weighted])
    assert logs["deep_loss"] == pytest.approx(float(deep), rel=1e-4)
    assert logs["label_loss"] == pytest.approx(float(label), rel=1e-4)
    assert logs["loss"] == pytest.approx(float(deep + label), rel=1e-4)
    assert {"deep/full_loss", "deep/full_dice_loss", "deep/half_bce_loss"} <= set(logs)
    history = model.fit(x, y, sample_weight=given, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["deep/half_dice_loss"]))


def test_a_target_that_is_not_there_is_an_error_that_says_so():
    model, (x, y) = model_of_heads(), data_of_heads()
    model.compile("sgd", loss=beside())
    with raises(ValueError, "'deep'", "'full'", "target=key", "'mask'", "'label'"):
        model.evaluate(x, y, verbose=0)
    model.compile("sgd", loss=beside(target="masks"))
    with raises(ValueError, "'deep'", "'masks'", "'mask'", "'label'"):
        model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("nested", [True, False], ids=["dict", "array"])
def test_the_components_of_one_output(nested):
    """As evaluation by sliding windows has it: the finest output alone."""
    _, y = data_of_heads()
    full = uniform(6, 15, 13, 1, seed=3)
    loss = beside(target="mask")
    found = loss.components(y if nested else y["mask"], full)
    expected = dice_and_bce().components(y["mask"], full)
    assert list(found) == ["deep", "deep/full", "deep/full_dice", "deep/full_bce"]
    whole = float(expected["dice"]) + 0.5 * float(expected["bce"])
    numbers = [whole, whole, float(expected["dice"]), float(expected["bce"])]
    close([float(part) for part in found.values()], numbers)
    close(float(loss.component("deep/full_dice", y, full)), numbers[2])
    for other in ("label", "deep/half", "deep/half_dice"):
        with raises(ValueError, f"'{other}'", "dict of outputs", "Received: "):
            loss.component(other, y, full)


def test_one_output_is_no_model():
    """Keras would call the loss once for each output, and take each for the finest."""
    y, heads = masks_and_heads()
    for loss in (DeepSupervision("mse"), cl.CompositeLoss({"deep": DeepSupervision("mse")})):
        with raises(ValueError, "cl.Model", "Received: one output"):
            loss(y, heads["full"])


# Networks of images of any size.


def network_of_any_size():
    inputs = keras.Input((None, None, 1))
    fine = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    down = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(fine)
    outputs = {
        "full": keras.layers.Conv2D(1, 1, activation="sigmoid", name="full")(fine),
        "half": keras.layers.Conv2D(1, 1, activation="sigmoid", name="half")(down),
    }
    return cl.Model(inputs, outputs)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_network_of_images_of_any_size(kind):
    keras.utils.set_random_seed(0)
    model = network_of_any_size()
    deep = DeepSupervision(dice_and_bce(), outputs=["full", "half"])
    model.compile(keras.optimizers.Adam(0.01), loss=cl.CompositeLoss({"deep": deep}))
    sizes = [(15, 13), (9, 10), (15, 13), (7, 6)]
    data = [
        (normal(2, *size, 1, seed=i), (normal(2, *size, 1, seed=i + 9) > 0).astype(kind))
        for i, size in enumerate(sizes)
    ]
    expected = np.zeros(4)
    resize = picked if kind == "uint8" else cell_means
    for x, y in data:
        p = model(x)
        p = {name: keras.ops.convert_to_numpy(p[name]) for name in ("full", "half")}
        parts = [
            float(part)
            for n, head in p.items()
            for part in dice_and_bce().components(resize(y, *head.shape[1:3]), head).values()
        ]
        expected += np.array(parts) / len(data)
    batches = _batches(data)
    logs = model.evaluate(batches, verbose=0, return_dict=True)
    names = ["full_dice", "full_bce", "half_dice", "half_bce"]
    close([logs[f"deep/{name}_loss"] for name in names], expected)
    history = model.fit(batches, epochs=3, shuffle=False, verbose=0).history
    assert history["loss"][0] > history["loss"][-1]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know all sizes")
@pytest.mark.parametrize(
    "seen, target",
    [((None, None), (15, 13)), ((15, 13), (None, None)), ((None, 13), (15, None))],
    ids=["target", "image", "one of each"],
)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_sizes_of_which_some_are_known(seen, target, kind):
    import tensorflow as tf

    model = network_of_any_size()
    deep = DeepSupervision("binary_crossentropy", outputs=["full", "half"])
    model.compile("sgd", loss=cl.CompositeLoss({"deep": deep}))
    x = normal(4, 15, 13, 1, seed=1)
    y, weight = (x > 0).astype(kind), uniform(4, 15, 13, seed=2)
    specs = (
        tf.TensorSpec((None, *seen, 1), "float32"),
        tf.TensorSpec((None, *target, 1), kind),
        tf.TensorSpec((None, *target), "float32"),
    )
    batches = tf.data.Dataset.from_generator(
        lambda: iter([(x, y, weight)]), output_signature=specs
    ).apply(tf.data.experimental.assert_cardinality(1))
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert model.evaluate(batches, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)


def _batches(data):
    """A `tf.data.Dataset` of unknown sizes on TensorFlow, else batches one by one."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        specs = tuple(tf.TensorSpec((None, None, None, 1), part.dtype) for part in data[0])
        found = tf.data.Dataset.from_generator(lambda: iter(data), output_signature=specs)
        return found.apply(tf.data.experimental.assert_cardinality(len(data)))

    return Batches(data)


def test_a_loss_without_a_reduction_has_one_total_for_each_sample():
    y_true, y_pred = normal(4, 4, 2, seed=1), normal(4, 4, 2, seed=2)
    child = keras.losses.MeanSquaredError(reduction="none")
    heads = {"full": y_pred, "half": y_pred[:, ::2]}
    errors = [mse(y_true, y_pred), mse(cell_means(y_true, 2), y_pred[:, ::2])]
    expected = errors[0].mean(axis=1) + 0.5 * errors[1].mean(axis=1)
    close(value(DeepSupervision(child, [1.0, 0.5]), y_true, heads), expected)
