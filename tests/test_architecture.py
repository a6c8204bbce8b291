"""What docs/architecture.md and its picture say is true of the package."""

import ast
import re
from xml.etree import ElementTree

import pytest

from tests.draw_architecture import NOT_DRAWN, PICTURE, drawn, folders_in, shortened
from tests.test_house import FLOORS, PACKAGE

pytestmark = pytest.mark.backend_free
ROOT = PICTURE.parents[1]
PAGE = PICTURE.with_suffix(".md").read_text(encoding="utf-8")
ROWS = [re.findall(r"[^|]+", line) for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [[cell.strip(" `") for cell in row] for row in ROWS]


def test_picture_is_drawn_from_the_imports():
    now = drawn(FLOORS, folders_in(PACKAGE))
    assert PICTURE.read_text(encoding="utf-8") == now, "run `python -m tests.draw_architecture`"
    ElementTree.fromstring(now)


def test_picture_changes_with_an_import_and_with_a_floor():
    arrows = folders_in(PACKAGE)
    now = drawn(FLOORS, arrows)
    assert drawn(FLOORS, {**arrows, "plots": {"_numerics"}}) != now
    assert drawn({**FLOORS, "plots": 3}, arrows) != now
    with pytest.raises(AssertionError, match="give attic a place"):
        drawn({**FLOORS, "attic": 11}, {**arrows, "attic": set()})


def test_shortened_leaves_out_what_a_longer_way_says():
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert shortened(arrows) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


def test_page_has_every_floor():
    stated = {row[1].strip("/"): int(row[0]) for row in ROWS if row[0].isdigit() and len(row) == 3}
    files = {"__init__.py": "", "__main__.py": "__main__"}
    stated = {files.get(folder, folder): floor for folder, floor in stated.items()}
    assert stated == {f: floor for f, floor in FLOORS.items() if f not in NOT_DRAWN}


def test_page_names_files_that_are_there():
    named = set(re.findall(r"[\w/]+(?:\.py|/)(?=`)", PAGE))
    missing = [name for name in named if not any((at / name).exists() for at in (PACKAGE, ROOT))]
    assert len(named) > 20 and missing == []


@pytest.mark.parametrize(
    "row", [r for r in ROWS if len(r) == 4 and r[0].isdigit()], ids=lambda row: row[0]
)
def test_way_of_the_data_names_functions_that_are_there(row):
    tree = ast.parse((PACKAGE / row[1]).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert row[2] in functions
