"""What type checkers make of a program of a user's, and of its mistakes.

In CI's section of the lowest versions they read the installed wheel. pyright is asked where it is
installed: it needs Node.js, so `.ci/run` leaves it out and `.ci/long` has it.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import PACKAGE
from tests.public import PACKAGES
from tests.typing import program

FOLDER = Path(__file__).parent
IS_INSTALLED = PACKAGE.parent == Path(sysconfig.get_path("purelib"))

pytestmark = pytest.mark.depends_on_version  # so that the installed wheel is read


def used_names(tree: ast.AST, of: str) -> set[str]:
    """The attributes of what is called `of`, such as `cl.losses`, that a program uses."""
    found = {n for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used = {node.attr for node in found if ast.unparse(node.value) == of}
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    full = of.replace("cl", "combined_losses", 1)
    return used | {a.name for n in imports if n.module == full for a in n.names}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_program_uses_every_public_name(package):
    tree = ast.parse((FOLDER / "program.py").read_text(encoding="utf-8"))
    of = package.__name__.replace("combined_losses", "cl", 1)
    assert used_names(tree, of) >= set(package.__all__)


def test_program_runs(tmp_path):
    program.main(tmp_path)


def run_checker(command: list[str], folder: Path) -> str:
    """What a type checker prints of copies of both programs, outside of the repository."""
    for name in ("program.py", "typos.py"):
        shutil.copy(FOLDER / name, folder)
    path = {} if IS_INSTALLED else {"MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", *command, "program.py", "typos.py"],
        cwd=folder,
        env={**os.environ, **path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # 0: no mistakes; 1: some; anything else: the checker itself has failed.
    assert done.returncode in (0, 1), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def mypy(folder: Path) -> str:
    """With a configuration of the user's own, which is empty."""
    (folder / "mypy.ini").write_text("[mypy]\n", encoding="utf-8")
    # Where the package is not installed, mypy would list its errors too.
    silent = [] if IS_INSTALLED else ["--follow-imports", "silent"]
    return run_checker(["mypy", "--strict", *silent], folder)


def pyright(folder: Path) -> str:
    paths = [] if IS_INSTALLED else [f'"extraPaths": ["{PACKAGE.parent}"], ']
    settings = f'{{{"".join(paths)}"typeCheckingMode": "basic"}}'
    (folder / "pyrightconfig.json").write_text(settings, encoding="utf-8")
    return run_checker(["pyright", "--pythonpath", sys.executable], folder)


CHECKERS = [
    pytest.param(mypy, id="mypy"),
    pytest.param(
        pyright,
        id="pyright",
        marks=pytest.mark.skipif(
            find_spec("pyright") is None, reason="pyright needs Node.js; .ci/long installs it"
        ),
    ),
]


@pytest.fixture(scope="module", params=CHECKERS)
def errors(request, tmp_path_factory):
    """`{(file, line): messages}` of both programs, by one checker."""
    printed = request.param(tmp_path_factory.mktemp("checked"))
    found: dict[tuple[str, int], list[str]] = {}
    for file, line, message in re.findall(r"(\w+\.py):(\d+):(?:\d+)?(?: -)? ?error: (.*)", printed):
        found.setdefault((file, int(line)), []).append(message)
    assert found or "typos.py" not in printed, printed
    return found


def test_program_has_no_error(errors):
    assert {place: text for place, text in errors.items() if place[0] == "program.py"} == {}


def test_every_typo_is_an_error(errors):
    lines = (FOLDER / "typos.py").read_text(encoding="utf-8").splitlines()
    typos = {number: line for number, line in enumerate(lines, 1) if line.endswith("# typo")}
    assert len(typos) >= 50
    found = {line for file, line in errors if file == "typos.py"}
    passed = {number: line.strip() for number, line in typos.items() if number not in found}
    assert not passed
    beside = {number: errors["typos.py", number] for number in found - typos.keys()}
    assert not beside
