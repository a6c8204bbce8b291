"""Every loss has a card on `docs/which_loss.md`, with a picture that the loss draws."""

import inspect
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import combined_losses as cl
from tests.draw_losses import FOLDER, NAMES, drawn

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "which_loss.md").read_text(encoding="utf-8")
CARDS = [
    (re.findall(r"combined_losses\.losses\.(\w+)`", title), picture, text)
    for title, picture, text in re.findall(
        r"^:::\{grid-item-card\} (.+)\n:img-bottom: (.+)\n:img-alt: .+\n((?:.+\n)+?):::$",
        PAGE,
        re.MULTILINE,
    )
]
"""The losses of each card, its picture and its text."""


@pytest.mark.backend_free
def test_every_loss_has_one_card():
    assert len(CARDS) == PAGE.count("{grid-item-card}")
    on_cards = [name for names, _, _ in CARDS for name in names]
    assert sorted(on_cards) == sorted(set(cl.losses.__all__) - {"Loss"})


@pytest.mark.backend_free
def test_every_card_has_its_picture():
    pictures = [picture for _, picture, _ in CARDS]
    assert pictures == [f"images/losses/{names[0]}.svg" for names, _, _ in CARDS]
    files = sorted(FOLDER.iterdir())
    assert sorted(pictures) == sorted(path.relative_to(DOCS).as_posix() for path in files)
    assert sorted(NAMES) == [path.stem for path in sorted(files, key=lambda path: path.stem)]
    assert sum(path.stat().st_size for path in files) < 1_500_000


def plain(text: str) -> str:
    """The words of a text, without marks."""
    return " ".join(re.sub(r"[`*]", "", text).lower().split())


@pytest.mark.backend_free
@pytest.mark.parametrize("names, _, text", CARDS, ids=[card[0][0] for card in CARDS])
def test_claims_of_a_card_are_those_of_the_docstring(names, _, text):
    """A card has what one fears, `**bold**`, and what the docstring says, `*emphasised*`."""
    docstrings = [plain(inspect.getdoc(getattr(cl.losses, name))) for name in names]
    claims = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)
    assert text.startswith("**") and claims
    missing = [c for c in claims if not any(plain(c) in doc for doc in docstrings)]
    assert missing == []


def curves_of(svg: str) -> list[np.ndarray]:
    """The points of the curves of a picture, in its units."""
    groups = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    paths = [group[0].get("d") for group in groups if group.get("id", "").startswith("curve")]
    return [np.array(re.findall(r"-?[\d.]+", path), float) for path in paths]


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"signed_distance"}))
def test_picture_shows_what_the_loss_gives(name):
    committed = curves_of((FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
    now = curves_of(drawn(name))
    assert len(committed) == len(now) > 0
    for old, new in zip(committed, now, strict=True):
        np.testing.assert_allclose(old, new, atol=0.5, err_msg="run python -m tests.draw_losses")
