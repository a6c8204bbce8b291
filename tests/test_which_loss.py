"""What `docs/which_loss.md` says is there: every loss."""

import re
from pathlib import Path

import pytest

import combined_losses as cl

PAGE = (Path(__file__).parents[1] / "docs" / "which_loss.md").read_text(encoding="utf-8")


@pytest.mark.backend_free
def test_every_loss_is_on_the_page():
    missing = [name for name in cl.losses.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert set(missing) <= {"Loss"}
