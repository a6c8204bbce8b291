"""The sdist holds every file of the repository, so that the tests pass from it.

`.ci/run` builds it, and runs tests from it in the section of the lowest versions. Here its list of
files is read from MANIFEST.in, as setuptools does, without building.
"""

import subprocess
from pathlib import Path

from setuptools._distutils.filelist import FileList

ROOT = Path(__file__).parents[1]
# What setuptools adds by itself.
BUILT_IN = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"}
BUILT_IN |= {"pyproject.toml", "setup.cfg", "setup.py"}
MADE = {".git", ".venv", "__pycache__", "build", "dist", "runs"}
MADE_PAGES = ("docs/api/", "docs/gallery/")


def files_of_repository() -> set[str]:
    """The tracked files; in a copy without git all but what tools have made."""
    if (ROOT / ".git").exists():
        tracked = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        return set(tracked.stdout.splitlines())
    files = {path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()}
    kept = {path.as_posix() for path in files if not any(map(is_made, path.parts))}
    return {path for path in kept if not path.startswith(MADE_PAGES)}


def is_made(part: str) -> bool:
    """Whether a part of a path is of what tools make."""
    return part in MADE or part.endswith((".egg-info", "_cache"))


def files_of_sdist(root: Path, files: set[str]) -> set[str]:
    """What MANIFEST.in takes of `files`, beside the package."""
    found = FileList()
    found.set_allfiles(sorted(files))
    for line in (root / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            found.process_template_line(line)
    package = {file for file in files if file.startswith("combined_losses/")}
    return {*found.files, *package, *BUILT_IN}


def test_sdist_has_every_file():
    files = files_of_repository()
    assert {"tests/conftest.py", "tests/test_sdist.py", "docs/which_loss.md"} <= files
    assert sorted(files - files_of_sdist(ROOT, files)) == []
