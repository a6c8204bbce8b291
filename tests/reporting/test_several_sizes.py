"""`cl.diagnose` of models whose inputs, outputs and terms have numbers of rows of their own."""

import re

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.diagnosis.batches import batches as cut
from combined_losses.diagnosis.terminal import text
from combined_losses.wrappers import OnInputs, OnOutput
from tests.batches import Batches
from tests.messages import raises
from tests.training.test_several_sizes import (
    W,
    batches,
    compiled,
    composite,
    means,
    network,
    residual,
    terms,
)

NAMES = ("pde", "ic", "bc", "size")
FACTORS = {"pde": 0.5, "ic": 1.0, "bc": 2.0, "size": 1.0}
ROWS = {"pde": "pde", "ic": "ic", "bc": "bc", "size": "pde"}  # whose rows each term has


def check(found, data):
    """Each value is the mean over all rows of its term, and `rows` is their number."""
    assert found.names == NAMES
    for name, expected in means(data).items():
        assert found[name].value == pytest.approx(expected, rel=1e-5), name
        assert found[name].rows == sum(len(x[ROWS[name]]) for x, *_ in data), name


def tf_dataset(data):
    tf = pytest.importorskip("tensorflow")
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), data[0]
    )
    return tf.data.Dataset.from_generator(lambda: iter(data), output_signature=signature)


def data_loader(data):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(data, batch_size=None)


DATA_SETS = {
    "generator": iter,
    "PyDataset": Batches,
    "tf.data": tf_dataset,
    "DataLoader": data_loader,
}


@pytest.mark.parametrize(
    ("kind", "place"), [*((kind, "output") for kind in DATA_SETS), ("generator", "parameters")]
)
def test_each_value_is_a_mean_over_its_own_rows(kind, place):
    data = batches()
    found = cl.diagnose(compiled(), DATA_SETS[kind](data), at=place)
    check(found, data)
    assert found.batches == 3
    logs = compiled().evaluate(Batches(data), verbose=0, return_dict=True)
    assert found.loss == pytest.approx(logs["loss"], rel=1e-5)


def test_sample_weights_of_each_output():
    data = batches(weighted=True)
    found = cl.diagnose(compiled(), Batches(data))
    check(found, data)
    assert not found.flags


def whole(sizes):
    """One batch of arrays of these lengths."""
    return batches(sizes=[sizes])[0]


@pytest.mark.parametrize(
    ("sizes", "batch_size", "count"),
    [
        ({"pde": 64, "ic": 8, "bc": 32}, 16, 4),
        ({"pde": 64, "ic": 8, "bc": 32}, 1, 8),  # as many as the shortest has rows
        ({"pde": 50, "ic": 7, "bc": 23}, 10, 5),
        ({"pde": 50, "ic": 1, "bc": 23}, 10, 1),
    ],
)
def test_arrays_of_several_lengths(sizes, batch_size, count):
    data = whole(sizes)
    found = cl.diagnose(compiled(), *data, batch_size=batch_size)
    check(found, [data])
    assert found.batches == count


def test_lengths_in_a_ratio_keep_the_loss_a_weighted_sum():
    data = whole({"pde": 60, "ic": 12, "bc": 24})
    found = cl.diagnose(compiled(), *data, batch_size=25)
    assert found.batches == 3
    assert found.loss == pytest.approx(
        sum(FACTORS[name] * found[name].value for name in NAMES), rel=1e-5
    )


@pytest.mark.backend_free
@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
@pytest.mark.parametrize("lengths", [(9,), (64, 16, 32), (50, 7, 23), (33, 330), (5, 1), (4, 0, 6)])
def test_cutting_takes_each_row_once_and_in_order(lengths, batch_size):
    x = {str(index): np.arange(n) for index, n in enumerate(lengths)}
    parts = list(cut(x, None, None, batch_size))
    for name, array in x.items():
        pieces = [part.x[name] for part in parts]
        np.testing.assert_array_equal(np.concatenate(pieces), array)
        assert all(len(piece) for piece in pieces) or not len(array)
        assert max(map(len, pieces)) <= batch_size or len(parts) == min(filter(None, lengths))
    assert all(part.y is None for part in parts)


# Gradients.


def rows_by_hand(x, y):
    """The gradient of each term by the one kernel, for one batch, as rows."""
    p = {name: points.astype("float64") @ W for name, points in x.items()}
    by_output = {
        "pde": 2 * (p["pde"] - 1),
        "ic": 2 * (p["ic"] - y["u_ic"]),
        "bc": np.sign(p["bc"] - y["u_bc"]),
        "size": 2 * p["pde"],
    }
    return np.stack([(x[ROWS[n]].T @ by_output[n])[:, 0] / len(by_output[n]) for n in NAMES])


def test_gradients_at_the_parameters():
    """The length is the root of a mean square over all rows; cosines follow from such products."""
    data = batches()
    found = cl.diagnose(compiled(), Batches(data), at="parameters")
    counts = np.array([[len(x[ROWS[name]]) for name in NAMES] for x, _ in data], "float64")
    gramian = np.zeros((4, 4))
    for count, batch in zip(counts, data, strict=True):
        rows = np.sqrt(count)[:, None] * rows_by_hand(*batch)
        gramian += rows @ rows.T
    gramian /= np.sqrt(np.outer(counts.sum(axis=0), counts.sum(axis=0)))
    lengths = np.sqrt(gramian.diagonal())
    np.testing.assert_allclose([part.gradient_norm for part in found], lengths, rtol=1e-5)
    np.testing.assert_allclose(found.cosines, gramian / np.outer(lengths, lengths), rtol=1e-4)
    assert found.invisible == []


def test_what_is_seen_at_the_parameters_only_is_said():
    model = network()

    def kernel(y_true, y_pred):
        return ops.sum(ops.square(model.layers[-1].kernel)) + 0 * y_pred[:, 0]

    parts = {
        "pde": OnInputs(residual),
        "kernel": OnOutput(kernel, "u_ic"),
        "ic": OnOutput("mse", "u_ic"),
        "bc": OnOutput("mse", "u_bc"),
    }
    model.compile("sgd", loss=cl.CompositeLoss(parts))
    data = Batches(batches())
    found = cl.diagnose(model, data)
    assert found.invisible == ["pde", "kernel", "ic", "bc"]
    assert np.isnan([found[name].gradient_norm for name in ("pde", "kernel")]).all()
    for page in (str(found), text(found, plain=True), found._repr_html_()):
        said = " ".join(re.sub("<[^>]*>", "", page).split()).replace("&quot;", '"')
        assert 'annot be seen at the output; look again with at="parameters"' in said
        assert "pde, kernel: their gradients are seen at the parameters only" in said
        # A mean over fewer rows has a longer gradient by each of them: nothing is proposed.
        assert "compared: these are gradients of means over 7 and 10 rows." in said
        assert "weights=" not in said
    exact = cl.diagnose(model, data, at="parameters")
    assert exact.invisible == []
    assert all(part.gradient_norm > 0 for part in exact)
    assert "weights=" in str(exact)


def test_proposed_weights_say_whose_gradients_they_do_not_know():
    model = network()
    parts = {
        "pde": OnInputs(residual),
        "mse": OnOutput("mse", "u_ic"),
        "mae": OnOutput("mae", "u_ic"),
    }
    model.compile("sgd", loss=cl.CompositeLoss(parts, {"pde": 0.5}))
    found = cl.diagnose(model, Batches(batches()))
    assert found.proposed_weights["pde"] == 0.5
    assert "(except those of pde, not seen here): weights={'pde': 0.5" in str(found)
    assert "(except those of pde, not seen here)" in found.to_html()


# What is wrong.


def nothing(y_true, y_pred):
    return 0.0 * ops.mean(y_pred, axis=-1)


def detached(y_true, y_pred):
    return ops.mean(ops.square(y_true - ops.stop_gradient(y_pred)), axis=-1)


def of_targets(y_true, y_pred):
    return 1.0 + ops.mean(ops.square(y_true), axis=-1)


def scalar(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


@pytest.mark.parametrize(
    ("fault", "flag"),
    [
        (nothing, "always zero"),
        (detached, "no gradient"),
        (of_targets, "constant"),
        (scalar, "ignores sample weights"),
        ("binary_crossentropy", "targets out of range"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("output", ["u_ic", "u_bc"])
def test_planted_faults_are_found_and_no_others(fault, flag, output):
    parts = {
        "ic": OnOutput("mse", "u_ic"),
        "bc": OnOutput("mse", "u_bc"),
        "fault": OnOutput(fault, output),
    }
    model = compiled(cl.CompositeLoss(parts))
    found = cl.diagnose(model, Batches(batches(weighted=True)))
    assert flag in found.flags["fault"] and list(found.flags) == ["fault"]


def test_single_rows_do_not_ignore_their_weights():
    """The weighted mean of one row is that row, whatever its weight."""
    mean = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    parts = {"ic": OnOutput(mean, "u_ic"), "bc": OnOutput(mean, "u_bc")}
    model = compiled(cl.CompositeLoss(parts))
    sizes = [{"pde": 4, "ic": 1, "bc": 5}, {"pde": 4, "ic": 1, "bc": 4}]
    assert not cl.diagnose(model, Batches(batches(True, sizes))).flags
    parts["bc"] = OnOutput(scalar, "u_bc")
    found = cl.diagnose(compiled(cl.CompositeLoss(parts)), Batches(batches(True, sizes)))
    assert found.flags == {"bc": ("ignores sample weights",)}


def bad_points(model, x, y, y_pred):
    """NaN at points left of -1, for each of the points of the equation."""
    return ops.sqrt(x["pde"][:, 0] + 1.0) + ops.square(y_pred["u_pde"][:, 0])


def bad_targets(y_true, y_pred):
    return ops.log(1.5 - y_true[:, 0]) + ops.square(y_pred[:, 0])


@pytest.mark.parametrize("place", ["output", "parameters"])
@pytest.mark.parametrize("nested", [False, True])
def test_rows_that_are_not_finite_are_those_of_their_term(nested, place):
    data = batches(sizes=[{"pde": 9, "ic": 4, "bc": 6}, {"pde": 7, "ic": 5, "bc": 3}])
    for _, y in data:
        y["u_bc"] = np.zeros_like(y["u_bc"])
    data[0][1]["u_bc"][2] = data[1][1]["u_bc"][0] = 2.0  # rows 2 and 6
    parts = {"ic": OnOutput("mse", "u_ic"), "bc": OnOutput(bad_targets, "u_bc")}
    if nested:
        parts = {"both": OnOutput(cl.CompositeLoss({"bc": bad_targets, "mae": "mae"}), "u_bc")}
    model = compiled(cl.CompositeLoss({"pde": OnInputs(bad_points), **parts}))
    found = cl.diagnose(model, Batches(data), at=place)
    messages = {fault.component: fault.message for fault in found.faults}
    left = np.flatnonzero(np.concatenate([x["pde"][:, 0] for x, _ in data]) < -1)
    assert 0 < len(left) < 5
    shown = ", ".join(map(str, left))
    assert messages["pde"] == f"its value is NaN or infinite in {len(left)} of 16 rows ({shown})."
    name = "both/bc" if nested else "bc"
    assert messages[name] == "its value is NaN or infinite in 2 of 9 rows (2, 6)."
    assert set(messages) == ({"pde", "both", "both/bc"} if nested else {"pde", "bc"})


def test_classes_of_the_only_targets():
    """Of rows that are not those of the first input."""
    data = [
        ({"pde": np.ones((n, 2)), "ic": np.ones((m, 2)), "bc": np.ones((3, 2))}, m)
        for n, m in ((8, 6), (5, 3))
    ]
    data = [(x, {"u_ic": (np.arange(m) % 3).reshape(m, 1).astype("float32")}) for x, m in data]
    parts = {"ic": OnOutput(bad_targets, "u_ic"), "pde": OnInputs(residual)}
    found = cl.diagnose(compiled(cl.CompositeLoss(parts)), Batches(data))
    assert found.faults[0].message == (
        "its value is NaN or infinite in 3 of 9 rows (2, 5, 8), all of class 2."
    )


def own_points(model, x, y, y_pred):
    """NaN at one of 7 points of its own."""
    points = ops.convert_to_tensor(np.arange(-1.0, 6.0, dtype="float32"))
    return ops.sqrt(points) + 0 * model(ops.ones((7, 3)))[:, 0]


def test_points_of_its_own_beside_samples():
    """One input, and a term over other rows than the samples."""
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "own": OnInputs(own_points)}))
    rng = np.random.default_rng(0)
    found = cl.diagnose(model, rng.normal(size=(10, 3)), rng.normal(size=(10, 1)))
    assert [part.rows for part in found] == [10, 7]
    assert found.faults[0].message == "its value is NaN or infinite in 1 of 7 rows (0)."
    assert np.isfinite(found["mse"].value) and "mse" not in found.flags


def test_a_part_without_rows_counts_not_at_all():
    sizes = [{"pde": 4, "ic": 2, "bc": 3}, {"pde": 4, "ic": 0, "bc": 3}]
    data = batches(weighted=True, sizes=sizes)
    for place in ("output", "parameters"):
        alone, found = (
            cl.diagnose(compiled(run_eagerly=True), Batches(each), at=place)
            for each in (data[:1], data)
        )
        check(found, data)
        assert not found.flags
        for what in ("value", "rows", "gradient_norm"):
            assert getattr(found["ic"], what) == pytest.approx(getattr(alone["ic"], what), rel=1e-6)


def test_a_part_without_any_rows_has_no_fault():
    data = batches(sizes=[{"pde": 4, "ic": 0, "bc": 3}])
    found = cl.diagnose(compiled(run_eagerly=True), Batches(data))
    assert (found["ic"].rows, found["ic"].value) == (0, 0.0)
    assert not found.flags


# What is compared must agree.


def test_errors_name_both_sizes():
    x, y = whole({"pde": 64, "ic": 16, "bc": 32})
    y["u_ic"] = y["u_ic"][:12]
    with raises(ValueError, "'ic'", "16 rows in x['ic']", "12 rows in y['u_ic']"):
        cl.diagnose(compiled(), x, y)
    with raises(ValueError, "'ic'", "(12, 1)", "(16, 1)"):
        cl.diagnose(compiled(), iter([(x, y)]))
    x, y = whole({"pde": 64, "ic": 16, "bc": 32})
    weights = {"u_ic": np.ones(16), "u_bc": np.ones(30)}
    with raises(ValueError, "'bc'", "32 rows in y['u_bc']", "30 rows in sample_weight['u_bc']"):
        cl.diagnose(compiled(), x, y, weights)


# What is shown.


def test_the_tables_show_the_rows_where_they_differ():
    data = batches()
    found = cl.diagnose(compiled(), Batches(data))
    lines = str(found).splitlines()
    assert "on 3 batches" in lines[0] and "samples" not in lines[0]
    cells = [cell.strip() for cell in lines[2].split("┃")]
    assert cells[1:4] == ["component", "rows", "value"]
    assert [line.split("│")[2].strip() for line in lines[4:8]] == ["16", "7", "10", "16"]
    assert all(len(line) <= 100 for line in lines)
    assert "<th>rows</th>" in found.to_html() and "<th>rows</th>" in found._repr_html_()
    assert list(found.to_frame()["rows"]) == [16, 7, 10, 16]
    found.plot()
    same = batches(sizes=[{"pde": 4, "ic": 4, "bc": 4}])
    found = cl.diagnose(compiled(), Batches(same))
    assert "on 4 samples in 1 batch" in str(found)
    assert "rows" not in str(found) and "<th>rows</th>" not in found.to_html()


def test_the_command_takes_arrays_of_several_lengths(tmp_path, capsys):
    from combined_losses.__main__ import main

    x, y = whole({"pde": 64, "ic": 16, "bc": 32})
    loss = cl.CompositeLoss({"ic": OnOutput("mse", "u_ic"), "bc": OnOutput("mae", "u_bc")})
    compiled(loss).save(tmp_path / "model.keras")
    named = {**{f"x/{n}": a for n, a in x.items()}, **{f"y/{n}": a for n, a in y.items()}}
    np.savez(tmp_path / "data.npz", **named)
    main(["diagnose", str(tmp_path / "model.keras"), str(tmp_path / "data.npz")])
    printed = capsys.readouterr().out
    expected = terms(x, y)
    for name in ("ic", "bc"):
        assert f"{expected[name].mean():.4g}" in printed


# Elsewhere.


def test_point_sets():
    points = cl.PointSets(
        {name: cl.Box([-1, 0], [1, 1]) for name in ("pde", "ic", "bc")},
        targets={"u_ic": ("ic", lambda x: x[:, :1]), "u_bc": ("bc", 0.5)},
        batch={"pde": 16, "ic": 2, "bc": 4},
        steps=3,
        seed=0,
        redraw_every=None,
    )
    model = compiled()
    found = cl.diagnose(model, points, at="parameters")
    check(found, [points[index] for index in range(3)])
    assert points.epoch == 0
    logs = model.evaluate(points, verbose=0, return_dict=True)
    assert found.loss == pytest.approx(logs["loss"], rel=1e-5)
    for name in NAMES:
        assert found[name].value == pytest.approx(logs[f"{name}_loss"], rel=1e-5)


@pytest.mark.parametrize("place", ["output", "parameters"])
def test_a_rule_and_the_conflicts_of_a_training(place):
    loss = composite(weighting=cl.weightings.MagnitudeBalance())
    model = compiled(loss)
    data = Batches(batches())
    conflict = cl.callbacks.GradientConflict(every=1, at=place)
    model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[conflict])
    assert conflict.names == NAMES and len(conflict.history) == 3
    logs = model.evaluate(data, verbose=0, return_dict=True)
    found = cl.diagnose(model, data, at=place)
    for name in NAMES:
        assert found[name].weight == pytest.approx(logs[f"{name}_weight"], rel=1e-5)
    kept = cl.callbacks.GradientConflict(every=1, at=place, data=batches()[0])
    model.fit(data, epochs=1, verbose=0, callbacks=[kept])
    assert len(kept.history) == 3


def squared_start(model, x, y, y_pred):
    return ops.square(y_pred["h"])[:, 0]


def test_rows_of_the_first_output_that_are_not_those_of_the_first_input():
    inputs = {name: keras.Input((1,), name=name) for name in ("pde", "start")}
    layer = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    model = cl.Model(inputs, {"h": layer(inputs["start"]), "u": layer(inputs["pde"])})
    parts = {"start": OnInputs(squared_start), "u": OnOutput("mse", "u")}
    model.compile("sgd", loss=cl.CompositeLoss(parts))
    rng = np.random.default_rng(0)
    x = [
        {"pde": rng.normal(size=(m, 1)), "start": rng.normal(size=(n, 1))}
        for m, n in ((8, 2), (2, 5))
    ]
    data = Batches([(each, {"h": each["start"], "u": 0 * each["pde"]}) for each in x])
    found = cl.diagnose(model, data)
    logs = model.evaluate(data, verbose=0, return_dict=True)
    for name, of in (("start", "start"), ("u", "pde")):
        expected = np.mean(np.concatenate([each[of] for each in x]) ** 2)
        assert found[name].value == pytest.approx(expected, rel=1e-5)
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)
    assert [part.rows for part in found] == [7, 10]


def test_outputs_with_losses_of_their_own():
    data = batches()
    model = network()
    model.compile("sgd", loss={"u_ic": cl.CompositeLoss(["mse"]), "u_bc": "mae"})
    found = cl.diagnose(model, Batches(data))
    expected = means(data)
    assert found["u_ic_mse"].value == pytest.approx(expected["ic"], rel=1e-5)
    assert found["u_bc"].value == pytest.approx(expected["bc"], rel=1e-5)
    assert [part.rows for part in found] == [7, 10]
