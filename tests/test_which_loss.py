"""What `docs/which_loss.md` says is there: every loss, and what stands for those of Addons."""

import re
from pathlib import Path

import keras
import pytest

import combined_losses as cl

PAGE = (Path(__file__).parents[1] / "docs" / "which_loss.md").read_text(encoding="utf-8")
FROM_ADDONS = [
    tuple(cell.strip() for cell in line.strip("|").split("|")[:2])
    for line in PAGE.partition("## From TensorFlow Addons")[2].splitlines()
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
