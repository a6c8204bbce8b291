"""`docs/moving/every_loss.md` has every loss of the libraries, and what it says is here is here.

`tests/test_moving.py` makes each loss of its second columns.
"""

import json
import re

import keras
import pytest

import combined_losses as cl
from tests.losses_of_libraries import FILE, files_of_installed, losses_of
from tests.test_moving import PAGES

[PAGE] = [page.read_text(encoding="utf-8") for page in PAGES if page.stem == "every_loss"]
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:])
LISTS = json.loads(FILE.read_text(encoding="utf-8"))
NO_LOSSES = {"Loss", "deserialize", "get", "serialize"}


def plain(name):
    """Names of a class and of its function are one: `DiceLoss`, `dice_loss`."""
    return re.sub("_|loss", "", name.lower())


def named(library):
    """The names in the first cells of the rows of a library."""
    rows = re.findall(r"^\| (`.+?`) \| ", SECTIONS[library], re.MULTILINE)
    return {plain(name) for row in rows for name in re.findall(r"(?:^|, )`(\w+)", row)}


def test_every_loss_of_keras_has_a_row():
    losses = {name for name in dir(keras.losses) if callable(getattr(keras.losses, name))}
    assert named("Keras") == {plain(name) for name in losses - NO_LOSSES if name[0] != "_"}


@pytest.mark.backend_free
@pytest.mark.parametrize("library", LISTS)
def test_every_loss_of_a_library_has_a_row(library):
    assert named(library) == {plain(name) for name in LISTS[library]["names"]}
    assert f"{library} {LISTS[library]['version']}, `" in SECTIONS[library]


@pytest.mark.backend_free
@pytest.mark.parametrize("module, name", sorted(set(re.findall(r"\bcl\.(\w+)\.(\w+)", PAGE))))
def test_every_name_of_ours_is_here(module, name):
    """Also those of the notes."""
    assert name in getattr(cl, module).__all__


@pytest.mark.backend_free
def test_every_section_is_compared():
    assert set(SECTIONS) == {"Keras", *LISTS}


@pytest.mark.backend_free
@pytest.mark.parametrize("library", LISTS)
def test_the_list_is_that_of_the_library(library):
    files = files_of_installed(library)
    if files is None:
        pytest.skip("it is not installed, or another version of it")
    assert losses_of(library, files) == LISTS[library]["names"]
