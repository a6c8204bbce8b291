"""`combined-losses diagnose`: a table, a page, and errors of one line."""

import io
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.__main__ import main
from tests.training.tiny import arrays, line, two_heads


@keras.saving.register_keras_serializable("tests")
def upwards(y_true, y_pred):
    return -ops.mean(y_pred, axis=-1)


@keras.saving.register_keras_serializable("tests")
def downwards(y_true, y_pred):
    return ops.mean(y_pred, axis=-1)


@pytest.fixture
def folder(tmp_path):
    """A folder with models and arrays, as a user may have them."""
    x, y = arrays(20)
    model = line()
    model.save(tmp_path / "bare.keras")
    model.compile("sgd", loss=cl.CompositeLoss({"up": upwards, "down": downwards}))
    model.save(tmp_path / "model.keras")
    plain = line(keras.Sequential)
    plain.compile("sgd", loss="mse")
    plain.save(tmp_path / "plain.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y, sample_weight=np.ones(20))
    np.savez(tmp_path / "other.npz", images=x)
    np.savez(tmp_path / "more.npz", x=x, y=y, z=y)
    np.savez(tmp_path / "narrow.npz", x=x[:, :2], y=y)
    np.savez(tmp_path / "wide.npz", x=x, y=np.ones((20, 3)))
    np.savez(tmp_path / "short.npz", x=x, y=y[:5])
    np.savez(tmp_path / "alone.npz", x=x)
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None]), y=y)
    np.savez(tmp_path / "both.npz", **{"x": x, "x/a": x, "y": y})
    np.savez(tmp_path / "inside.npz", **{"x/a": x, "x/a/b": x, "y": y})
    np.savez(tmp_path / "words.npz", x=x, y=np.full(20, "yes"))
    np.savez(tmp_path / "complex.npz", x=x + 1j, y=y)
    np.save(tmp_path / "array.npy", x)
    (tmp_path / "broken.npz").write_bytes(b"no zip file")
    (tmp_path / "broken.keras").write_bytes(b"no zip file")
    return tmp_path


def run(folder, capsys, *arguments):
    """The exit code, what was printed and what was said on stderr."""
    given = [str(folder / a) if a.endswith((".keras", ".npz", ".npy")) else a for a in arguments]
    try:
        code = main(["diagnose", *given])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_prints_the_table(folder, capsys):
    code, out, err = run(folder, capsys, "model.keras", "data.npz")
    assert (code, err) == (0, "")
    data = np.load(folder / "data.npz")
    model = keras.models.load_model(folder / "model.keras")
    expected = cl.diagnose(model, data["x"], data["y"], data["sample_weight"])
    assert out == f"{expected}\n"
    assert "conflicts" in out


def test_options(folder, capsys):
    page = folder / "page.html"
    code, out, _ = run(
        *(folder, capsys, "model.keras", "data.npz", "--html", str(page)),
        *("--at", "parameters", "--batch-size", "7", "--import", "tests.messages"),
    )
    assert code == 0
    assert "20 samples in 3 batches, gradients at the parameters" in out
    assert out.endswith(f"Written: {page}\n")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_several_outputs_by_name(folder, capsys):
    model = two_heads(structure=dict)
    model.compile("sgd", loss={"a": cl.CompositeLoss(["mse", "mae"]), "b": "mse"})
    model.save(folder / "heads.keras")
    x, y = arrays(20)
    weights = np.ones(20)
    np.savez(
        folder / "heads.npz", **{"x": x, "y/a": y, "y/b": 2 * y, "sample_weight/b": 2 * weights}
    )
    code, out, err = run(folder, capsys, "heads.keras", "heads.npz")
    assert (code, err) == (0, "")
    expected = cl.diagnose(model, x, {"a": y, "b": 2 * y}, {"a": None, "b": 2 * weights})
    assert out.splitlines()[1:] == str(expected).splitlines()[1:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bare.keras", "data.npz"], "needs a compiled model"),
        (["plain.keras", "data.npz"], "a CompositeLoss"),
        (["none.keras", "data.npz"], "is not a model saved"),
        (["data.npz", "data.npz"], "is not a model saved"),
        (["broken.keras", "data.npz"], "cannot be loaded"),
        (["model.keras", "none.npz"], "is not a file"),
        (["model.keras", "broken.npz"], "is not a file of arrays"),
        (["model.keras", "objects.npz"], "is not a file of arrays"),
        (["model.keras", "array.npy"], "is not a file of arrays"),
        (["model.keras", "other.npz"], "must hold the arrays x and y"),
        (["model.keras", "more.npz"], "received x, y, z"),
        (["model.keras", "both.npz"], "'x/a' is within another array"),
        (["model.keras", "inside.npz"], "'x/a/b' is within another array"),
        (["model.keras", "words.npz"], "y must hold real numbers, received <U3"),
        (["model.keras", "complex.npz"], "x must hold real numbers, received complex"),
        (["model.keras", "narrow.npz"], "expected axis -1 of input shape to have value 3"),
        (["model.keras", "short.npz"], "same number of samples"),
        (["model.keras", "alone.npz"], "`y` must hold the targets"),
        (["model.keras", "data.npz", "--html", "no/such/folder.html"], "a folder that exists"),
        (["model.keras", "data.npz", "--at", "layer"], "invalid choice: 'layer'"),
        (["model.keras", "data.npz", "--batch-size", "0"], "`batch_size` must be"),
        (["model.keras", "data.npz", "--batch-size", "many"], "invalid int value"),
        (["model.keras", "data.npz", "--import", "no_such_module"], "No module named"),
        (["model.keras", "data.npz", "--import", "tests.nothing"], "--import tests.nothing"),
        (["model.keras", "data.npz", "--html", "/proc/page.html"], "cannot be written"),
        (["model.keras", "data.npz", "--speed"], "unrecognized arguments"),
        (["model.keras"], "required: data.npz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(folder, capsys, arguments, said):
    before = sorted(folder.iterdir())
    code, out, err = run(folder, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("combined-losses diagnose: error: ")
    assert err.count("\n") == 1 and said in err
    assert sorted(folder.iterdir()) == before


def test_wrong_targets_are_said_by_the_component(folder, capsys):
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    model.save(folder / "mse.keras")
    code, _, err = run(folder, capsys, "mse.keras", "wide.npz")
    assert code == 2
    assert "Component 'mse' compares arrays of one shape" in err


def test_losses_of_ones_own_have_to_be_imported(folder, capsys, monkeypatch):
    registry = keras.saving.get_custom_objects()
    monkeypatch.delitem(registry, "tests>upwards")
    code, _, err = run(folder, capsys, "model.keras", "data.npz")
    assert code == 2 and err.count("\n") == 1
    assert "Could not locate function 'tests>upwards'" in err and "--import the module" in err
    assert "Full object config" not in err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_terminals_that_cannot_show_boxes(folder, capsys, monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(["diagnose", str(folder / "model.keras"), str(folder / "data.npz")]) == 0
    sys.stdout.flush()
    shown = written.getvalue().decode(encoding)
    assert "| up " in shown and "conflicts" in shown and "?" not in shown


def _broken_files(folder):
    """Files that begin as `numpy.savez` writes them, broken in every way that zip and zlib know."""
    whole = folder / "whole.npz"
    np.savez_compressed(whole, x=np.arange(1000.0), y=np.ones(1000))
    content = whole.read_bytes()
    half = len(content) // 2
    yield "truncated", content[:half]
    yield "empty", b""
    yield "other bytes inside", content[:120] + bytes(60) + content[180:]
    yield (
        "an encrypted entry",
        content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    )
    yield "an unknown compression", content.replace(b"\x08\x00", b"\x63\x00")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        spoilt = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            spoilt[place] = rng.integers(0, 256)
        yield f"random {seed}", bytes(spoilt)
    huge = io.BytesIO()
    with zipfile.ZipFile(huge, "w") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
        entry = io.BytesIO()
        np.lib.format.write_array_header_1_0(entry, header)
        file.writestr("x.npy", entry.getvalue())
    yield "a size that no memory has", huge.getvalue()


def test_every_broken_file_of_arrays_is_one_line(folder, capsys):
    for name, content in _broken_files(folder):
        (folder / "mutated.npz").write_bytes(content)
        code, out, err = run(folder, capsys, "model.keras", "mutated.npz")
        if code == 0 and name.startswith("random"):
            continue  # the bytes were padding
        assert (code, out) == (2, ""), name
        assert err.count("\n") == 1, (name, err)
        assert "Traceback" not in err, name
