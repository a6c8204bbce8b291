"""What the pages of `docs/moving` put beside the names of other libraries is here, and runs."""

import re
from pathlib import Path

import keras
import pytest

import combined_losses as cl

PAGES = sorted((Path(__file__).parents[1] / "docs" / "moving").glob("*.md"))
# What stands for a network of the user's, and a layer of it.
NETWORK = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Identity(name="block2_conv2")])


def read_rows(page):
    """The first two cells of each row of the tables that name a loss or rule of another library."""
    found, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif re.match(r"there\b", cells[0]) and len(cells) == 3:
            inside = True
        elif inside and not line.startswith("|---"):
            found.append((cells[0], cells[1]))
    return found


ROWS = {page.name: read_rows(page) for page in PAGES}
EVERY_ROW = [
    pytest.param(new, id=f"{name}: {old}") for name, rows in ROWS.items() for old, new in rows
]


@pytest.mark.backend_free
def test_the_libraries_have_their_tables():
    assert {name for name, rows in ROWS.items() if rows} == {
        "every_loss.md",
        "libmtl.md",
        "physicsnemo_deepxde.md",
        "torchjd.md",
    }


@pytest.mark.parametrize("new", EVERY_ROW)
def test_what_stands_for_a_name_is_a_loss_or_a_rule(new):
    if new != "-":
        made = eval(new.strip("`"), {"cl": cl, "keras": keras, "network": NETWORK})
        assert isinstance(made, (keras.losses.Loss, cl.weightings.Weighting))
