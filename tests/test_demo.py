"""`combined-losses demo`: every way to be refused, and one whole run."""

import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from combined_losses.__main__ import main

ROOT = Path(__file__).parents[1]
EPOCHS = 2
LINES = [f"{i % 7}.5,{i},{2 * i + i % 3}" for i in range(24)]
GOOD = "\n".join(["a,b,target", *LINES]) + "\n"


def refusal(capsys, *argv):
    """Runs the demo, which must refuse with exit code 2; returns its one line on stderr."""
    capsys.readouterr()
    try:
        code = main(["demo", *map(str, argv)])
    except SystemExit as stop:  # argparse's way
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.startswith("combined-losses demo: error: ")
    assert shown.err.count("\n") == 1 and shown.err.endswith("\n")
    return shown.err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory, so that a refused run that writes anything is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--epochs", "0"], ["--epochs", "whole number from 1 to 10000", "'0'"]),
        (["--epochs", "2.5"], ["whole number from 1 to 10000", "'2.5'"]),
        (["--seed", "-1"], ["--seed", "whole number from 0 to 1000000", "'-1'"]),
        (["--speed", "1"], ["--speed", "--help"]),
        (["--data", "x.csv"], ["--data x.csv needs", "add --target COLUMN"]),
        (["--target", "y"], ["--target y needs a file", "add --data FILE.csv"]),
        (["--data", "no.csv", "--target", "y"], ["no.csv does not exist", "CSV file"]),
        (["--data", ".", "--target", "y"], ["--data . is not a file", "CSV file"]),
    ],
)
def test_refuses_arguments(folder, capsys, argv, said):
    message = refusal(capsys, *argv)
    assert all(words in message for words in said), message
    assert list(folder.iterdir()) == []


def changed(line, text):
    """GOOD with another text in one line, counted from 1 as in an editor."""
    lines = GOOD.splitlines()
    lines[line - 1] = text
    return "\n".join(lines)


def write(folder, content, encoding="utf-8"):
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["is empty", "header line"]),
        ("\n\n  \n", ["is empty"]),
        ("a,b,target\n", ["0 rows", "at least 20"]),
        ("a,b,target\n1,2,3\n", ["1 rows", "at least 20"]),
        (changed(1, "a,b,c"), ["--target target is not a column", "a, b, c", "comma"]),
        (changed(1, "a,target,target"), ["target is the name of 2 columns", "rename"]),
        ("\n".join(LINES), ["--target target is not a column", "choose one of 1, 2, 3"]),
        ("target\n" + "1\n2\n" * 12, ["no column besides --target target", "semicolon"]),
        (changed(9, "1,2,3,4"), ["line 9", "4 cells", "has 3", "in quotes"]),
        (GOOD + '"open,1,2\n', ["quote that is not closed", "line 26"]),
        ("\n".join(GOOD.splitlines()[:20]), ["19 rows", "at least 20", "add rows"]),
        ("a,target\n" + "1,5\n2,5\n" * 12, ["the same in every row (5)", "varies"]),
        ("a,target\n" + "1,5\n2,5.0\n" * 12, ["no two different numbers", "varies"]),
        ("a,target\n" + "1,old\n2,new\n" * 12, ["does not hold numbers", "text, 2 values"]),
        ("a,target\n" + "1,2020-01-01\n2,2020-02-01\n" * 12, ["not hold numbers", "dates"]),
        ("a,target\n" + "1,\n2,NA\n" * 12, ["does not hold numbers", "no values"]),
        ("a,target\n" + "1,\n2,NA\n" * 12 + "1,5\n2,6\n", ["2 rows without missing values"]),
        ("a,target\n" + "5,1\n5,2\n" * 12, ["no input that can be used", "a (the same in"]),
        (b"PK\x03\x04 a spreadsheet", ["not a text file", "save the table as CSV"]),
        (b"a,b\n\0\0\n", ["not a text file"]),
        (b"\xff\xfea", ["not a text file"]),
    ],
)
def test_refuses_data(folder, tmp_path, capsys, content, said):
    message = refusal(capsys, "--data", write(tmp_path, content), "--target", "target")
    assert "data.csv" in message
    assert all(words in message for words in said), message
    assert list(folder.iterdir()) == []


@pytest.mark.backend_free
def test_dropping_rows_that_leaves_too_few_says_what_keeps_them(folder, tmp_path, capsys):
    lines = [f"{i},,{i}\n,{i},{i}" for i in range(12)]
    path = write(tmp_path, "\n".join(["a,b,target", *lines]))
    message = refusal(capsys, "--data", path, "--target", "target", "--missing", "drop")
    assert "0 rows" in message and "--missing mean keeps rows" in message


@pytest.mark.backend_free
def test_refuses_an_out_that_is_no_folder_of_its_own(folder, capsys):
    (folder / "file").write_text("mine")
    (folder / "mine").mkdir()
    (folder / "mine" / "history.csv").write_text("mine")
    before = sorted(folder.rglob("*"))
    assert "--out file is a file" in refusal(capsys, "--out", "file")
    assert "lies below" in refusal(capsys, "--out", "file/demo/1")
    assert "--out mine holds other files" in refusal(capsys, "--out", "mine")
    assert sorted(folder.rglob("*")) == before
    assert (folder / "mine" / "history.csv").read_text() == "mine"


@pytest.mark.backend_free
def test_names_the_extra_that_is_missing(folder, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find_spec(name)
    )
    message = refusal(capsys)
    assert "scikit-learn" in message
    assert 'pip install "combined_losses[demo]"' in message
    assert list(folder.iterdir()) == []


def test_is_a_module_that_runs(tmp_path):
    command = [sys.executable, "-m", "combined_losses", "demo", "--epochs", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "must be a whole number from 1 to 10000, received 'none'" in done.stderr


CHECKS = """
import sys
sys.argv = ["combined-losses", *sys.argv[1:]]  # as the installed command is called
from combined_losses.__main__ import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print("exit", code, sorted({"keras", "tensorflow", "jax", "torch"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("argv", "code", "shown"),
    [
        ([], 0, "commands:"),
        (["demo", "--help"], 0, "--max-rows"),
        (["demo", "--data", "no.csv", "--target", "y"], 2, "does not exist"),
        (["demo", "--data", "data.csv", "--target", "y"], 2, "not a column"),
        (["demo", "--data", "data.csv", "--target", "a", "--missing", "x"], 2, "--missing"),
    ],
)
def test_checks_and_help_come_before_keras_is_imported(folder, argv, code, shown):
    (folder / "data.csv").write_text(GOOD)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHECKS, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=path)
    assert done.stdout.splitlines()[-1] == f"exit {code} []", done.stderr
    assert shown in done.stdout + done.stderr


@pytest.mark.backend_free
def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr()
    assert "commands:" in shown.out and "diagnose" in shown.out and shown.err == ""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole run on both experiments, over an earlier one: its folder."""
    out = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    out.mkdir(parents=True)
    (out / "summary.json").write_text('{"command": "combined-losses demo"}')
    (out / "notes.txt").write_text("mine")
    (out / "tensorboard").mkdir()
    (out / "tensorboard" / "old").write_text("of the earlier run")
    assert main(["demo", "--out", str(out), "--epochs", str(EPOCHS)]) == 0
    return out


def test_run_replaces_an_earlier_one_and_nothing_else(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("history.csv", "components.png", "overview.png", "model.keras", "summary.json"),
        *("tensorboard", "lines", "notes.txt"),
    }
    assert not (run / "tensorboard" / "old").exists()
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.parametrize(
    ("sub", "components"), [("", ["mse", "under"]), ("lines", ["bce", "dice"])]
)
def test_history_has_every_component(run, sub, components):
    with (run / sub / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = ["loss", *(f"{name}_loss" for name in components)]
    assert [row["epoch"] for row in rows] == [str(i + 1) for i in range(EPOCHS)]
    assert {*keys, *(f"val_{key}" for key in keys)} <= rows[0].keys()
    for row in rows:
        for prefix in ("", "val_"):
            total, *parts = [float(row[prefix + key]) for key in keys]
            assert total == pytest.approx(sum(parts), rel=1e-5)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_tensorboard_has_every_component(run, part):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = events.EventAccumulator(str(run / "tensorboard" / "MSE_and_penalty" / part))
    reader.Reload()
    tags = reader.Tags()["tensors"]
    assert {"epoch_loss", "epoch_mse_loss", "epoch_under_loss"} <= set(tags)
    assert len(reader.Tensors("epoch_mse_loss")) == EPOCHS


@pytest.mark.parametrize("sub", ["", "lines"])
def test_figures_are_pictures(run, sub):
    import matplotlib.image

    for name in ("components.png", "overview.png" if sub == "" else "examples.png"):
        picture = matplotlib.image.imread(run / sub / name)
        assert min(picture.shape[:2]) > 300 and picture.std() > 0.05


def test_saved_model_evaluates_as_the_summary_says(run):
    from combined_losses.demo import regression
    from combined_losses.demo.tables import load_diabetes

    summary = json.loads((run / "summary.json").read_text())["results"][0]
    fold = regression.make_folds(load_diabetes(), seed=0)[0]
    model = keras.models.load_model(run / "model.keras")
    logs = model.evaluate(*fold.split.held_out, batch_size=1024, verbose=0, return_dict=True)
    assert logs == pytest.approx(summary["model.keras evaluates to"], rel=1e-5)
    # The table's numbers are of these predictions, in the target's own unit.
    error = fold.to_unit(model.predict(fold.split.held_out[0], verbose=0))
    error -= load_diabetes().y[fold.held_out]
    scores = summary["scores"]["MSE + penalty"]
    assert scores["underestimated patients (%)"][0] == pytest.approx(100 * np.mean(error < 0))
    assert scores["mean error (points)"][0] == pytest.approx(np.mean(error), rel=1e-4)
    assert scores["MSE (points²)"][0] == pytest.approx(np.mean(error**2), rel=1e-4)


def test_own_data_gives_the_same_twice_and_only_a(folder, capsys):
    (folder / "data.csv").write_text(GOOD)
    argv = ["demo", "--data", "data.csv", "--target", "target", "--epochs", "1", "--seed", "3"]
    for out in ("one", "two"):
        assert main([*argv, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "underestimated rows (%)" in shown and "separator comma" in shown
    assert "loads only after `import combined_losses`" in shown
    assert not (folder / "one" / "lines").exists()
    one, two = [(folder / out / "summary.json").read_text() for out in ("one", "two")]
    assert one == two


def test_a_model_that_loads_differently_fails_loudly(folder, capsys, monkeypatch):
    (folder / "data.csv").write_text(GOOD)
    load_model = keras.models.load_model

    def load_other(path):
        model = load_model(path)
        model.set_weights([weights + 1 for weights in model.get_weights()])
        return model

    monkeypatch.setattr(keras.models, "load_model", load_other)
    argv = ["demo", "--data", "data.csv", "--target", "target", "--epochs", "1"]
    assert main(argv) == 1
    assert "does not evaluate to the same numbers" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("size", [1e-9, 1.0, 4e3, 1e12])
def test_table_fits_a_terminal_of_80_columns(size):
    from rich.console import Console

    from combined_losses.demo.comparison import Comparison, Outcome
    from combined_losses.demo.regression import experiment, make_folds
    from combined_losses.demo.screen import comparison_table
    from combined_losses.demo.tables import Table

    rng = np.random.default_rng(0)
    y = size * rng.normal(size=40)
    table = Table("data.csv", "rows", "price in [EUR/h]"[:16], rng.normal(size=(40, 2)), y)
    described = experiment(table, make_folds(table, seed=0), epochs=1)
    result = Comparison(described)
    for arm in described.arms:
        y_pred = rng.normal(size=(8, 1))
        scores = [described.measure(k, Outcome(y_pred, y_pred)) for k in range(5)]
        result.scores[arm] = {key: [score[key] for score in scores] for key in scores[0]}
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table(result))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text and "[EUR/h]" in text
