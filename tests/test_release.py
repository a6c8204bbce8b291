"""What a release needs is right: versions, metadata, and archives that anyone can build again."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import combined_losses as cl

ROOT = Path(__file__).parents[1]
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def cited(key: str) -> str:
    """A value of the outermost level of CITATION.cff."""
    return re.search(rf"^{key}: (.+)$", CITATION, re.MULTILINE)[1].strip('"')


@pytest.mark.backend_free
def test_citation_is_of_this_version():
    assert cited("version") == cl.__version__
    assert cited("title") == SETUP["metadata"]["name"]
    assert cited("license") == SETUP["metadata"]["license_expression"]
    assert cited("abstract").rstrip(".") == SETUP["metadata"]["description"]
    keywords = re.findall(r"^  - ([^:\n]+)$", CITATION, re.MULTILINE)
    assert ", ".join(keywords) == SETUP["metadata"]["keywords"]


@pytest.mark.backend_free
def test_changelog_has_this_version_and_a_place_for_later_lines():
    sections = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    assert sections[0].startswith("[Unreleased]\n")
    assert re.match(rf"\[{re.escape(cl.__version__)}\]( - \d{{4}}-\d\d-\d\d)?\n", sections[1])
    assert all(section.count("\n") <= 60 for section in sections)


@pytest.mark.backend_free
def test_classifiers_name_the_lowest_python_that_is_admitted():
    names = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert f">={names[0]}" == SETUP["options"]["python_requires"]
    assert names == sorted(names, key=lambda name: int(name[2:]))


def sdist_of(folder: Path, mode: int) -> bytes:
    """The bytes of the sdist of a small copy, whose files have just been written with `mode`."""
    (folder / "combined_losses").mkdir(parents=True)
    sources = ["setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"]
    for source in sources:
        shutil.copyfile(ROOT / source, folder / source)
    version = Path(cl.__file__).with_name("_version.py")
    shutil.copyfile(version, folder / "combined_losses" / "_version.py")
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        path.chmod(mode)
        os.utime(path, (number * mode, number * mode))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "setup.py", "-q", "sdist"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (archive,) = (folder / "dist").iterdir()
    return archive.read_bytes()


def test_sdist_has_the_same_bytes_from_files_of_other_times_and_modes(tmp_path):
    pytest.importorskip("setuptools")
    archives = [sdist_of(tmp_path / str(mode), mode) for mode in (0o644, 0o600)]
    assert archives[0] == archives[1]
