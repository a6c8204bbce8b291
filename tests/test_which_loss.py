"""What the pages say is there: every loss on `which_loss.md`, each of Addons on its page."""

import re
from pathlib import Path

import keras
import pytest

import combined_losses as cl

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "which_loss.md").read_text(encoding="utf-8")
ADDONS = (DOCS / "moving" / "tensorflow_addons.md").read_text(encoding="utf-8")
FROM_ADDONS = [
    tuple(cell.strip() for cell in line.strip("|").split("|")[:2])
    for line in ADDONS.splitlines()
    if line.startswith("| `") and "(" in line
]


@pytest.mark.backend_free
def test_every_loss_is_on_the_page():
    missing = [name for name in cl.losses.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert set(missing) <= {"Loss"}


@pytest.mark.backend_free
def test_every_loss_of_addons_is_in_the_table():
    losses = {
        "ContrastiveLoss",
        "GIoULoss",
        "LiftedStructLoss",
        "NpairsLoss",
        "NpairsMultilabelLoss",
        "PinballLoss",
        "SigmoidFocalCrossEntropy",
        "SparsemaxLoss",
        "TripletHardLoss",
        "TripletSemiHardLoss",
        "WeightedKappaLoss",
    }
    assert losses == {name for old, _ in FROM_ADDONS for name in re.findall(r"`(\w+)\(", old)}


@pytest.mark.backend_free
@pytest.mark.parametrize("old, new", FROM_ADDONS)
def test_what_stands_for_a_loss_of_addons_is_a_loss(old, new):
    if new != "-":
        assert isinstance(eval(new.strip("`")), keras.losses.Loss)
