"""The pages show what `benchmarks/results/*.json` hold, and the scripts write the same form."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
OF_A_TABLE = {"title", "label", "columns", "rows", "machine", "conditions", "date", "versions"}
SOURCES = [
    (path.stem, name)
    for path in RESULTS
    for name in json.loads(path.read_text(encoding="utf-8"))["tables"]
]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load("tables")


@pytest.mark.backend_free
@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_the_page_agrees_with_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert text == tables.rewritten(text), "run: python benchmarks/tables.py"


@pytest.mark.backend_free
@pytest.mark.parametrize(("benchmark", "name"), SOURCES)
def test_every_table_is_whole_and_shown(benchmark, name):
    content = tables.read(benchmark)
    assert (ROOT / content["script"]).is_file()
    assert content["tables"][name].keys() >= OF_A_TABLE
    labels = [row[0] for row in content["tables"][name]["rows"]]
    assert len(set(labels)) == len(labels)
    whole = rf"<!-- table: (\S+ \+ )*{benchmark}/{name}( \+ \S+)* -->"
    assert any(re.search(whole, page.read_text(encoding="utf-8")) for page in tables.pages())


@pytest.mark.backend_free
def test_a_row_that_nobody_measured_is_an_error():
    page = "<!-- table: weightings/jax, rows: Wurst -->\n<!-- end of table -->"
    with pytest.raises(ValueError, match="No table has a row 'Wurst'"):
        tables.rewritten(page)


def test_what_a_script_writes_has_the_form_of_the_results(tmp_path, monkeypatch):
    recording, path = load("recording"), tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/overhead.py"])
    columns = {"step, ms": "{:.2f}", "ratio": "{:.1f} ({:.1f})"}
    for name, step in (("torch", 1.0), ("jax", 2.0), ("torch", 3.0)):
        rows = [["plain", step, [1.0, 0.1]], ["ours", None, [1.5, 0.2]]]
        recording.keep(path, name, title=name, label="way", columns=columns, rows=rows)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["script"] == "benchmarks/overhead.py"
    assert list(content["tables"]) == ["torch", "jax"]
    for table in content["tables"].values():
        assert table.keys() == OF_A_TABLE
        assert {"python", "keras", "numpy"} <= table["versions"].keys()
    assert tables.by_label(content["tables"]["torch"]) == {
        "plain": ["3.00", "1.0 (0.1)"],
        "ours": ["–", "1.5 (0.2)"],
    }


@pytest.mark.backend_free
def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load("recording").keep(None, "torch", title="", label="", columns={}, rows=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_free
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_file_has_one_row_in_a_line(path):
    text = path.read_text(encoding="utf-8")
    written = load("recording").written(json.loads(text))
    assert json.loads(written) == json.loads(text)
    assert written == text
