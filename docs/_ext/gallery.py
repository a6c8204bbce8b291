"""Runs the notebooks and the examples, and makes a page of each with its pictures.

The pages are in docs/gallery/, which git ignores. A program runs again if it, or a file of the
package, has changed. `-D run_gallery=0` shows them as they are, without running any.
"""

import ast
import base64
import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import nbformat
from nbclient import NotebookClient
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"
SECONDS = 900  # that one program, or one cell of a notebook, may take
WORKERS = min(2, os.cpu_count() or 1)
LENGTH = 200  # of the text of a card, which ends with a sentence
INLINE = "module://matplotlib_inline.backend_inline"  # shows the figures of a notebook in it
CARDS = "<!-- the cards -->"


@dataclass(frozen=True)
class Program:
    """A notebook or an example, and what is made of it."""

    file: Path

    @property
    def key(self) -> str:
        """Changes with whatever may change what the program shows."""
        digest = hashlib.sha256(keras.backend.backend().encode())
        for file in [self.file, Path(__file__), *sorted((ROOT / "combined_losses").rglob("*.py"))]:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def made(self, ending: str) -> Path:
        return GALLERY / (self.file.stem.lstrip("0123456789_") + ending)

    @property
    def is_fresh(self) -> bool:
        key = self.made(".key")
        return key.is_file() and key.read_text() == self.key

    def run(self) -> None:
        GALLERY.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.show(Path(folder))
        self.made(".key").write_text(self.key)

    def show(self, folder: Path | None) -> None:
        """Writes the page, of what the program does in `folder`; None: of the program alone."""
        raise NotImplementedError

    @property
    def picture(self) -> str | None:
        """The picture for its card: one that it drew, or that of its long form in docs/images/."""
        found = [f"gallery/{self.made('.png').name}", f"images/{self.file.stem}.png"]
        return next((path for path in found if (GALLERY.parent / path).exists()), None)

    @property
    def text(self) -> tuple[str, str]:
        """The title and the question."""
        raise NotImplementedError


class Notebook(Program):
    def show(self, folder: Path | None) -> None:
        notebook = nbformat.read(self.file, as_version=4)
        if folder:
            place = {"metadata": {"path": str(folder)}}
            client = NotebookClient(notebook, timeout=SECONDS, resources=place)
            client.execute(env={**environment(), "MPLBACKEND": INLINE})
        for cell in notebook.cells:
            if "outputs" in cell:
                cell["outputs"] = [out for out in cell["outputs"] if out.get("name") != "stderr"]
        nbformat.write(notebook, self.made(".ipynb"))
        for picture in pictures(notebook):
            self.made(".png").write_bytes(picture)

    @property
    def text(self) -> tuple[str, str]:
        title, *rest = nbformat.read(self.file, as_version=4).cells[0].source.split("\n\n")
        return title.lstrip("# "), rest[0].removeprefix("**The question:** ")


class Example(Program):
    def show(self, folder: Path | None) -> None:
        title, question = self.text
        name = f"examples/{self.file.name}"
        code = self.file.read_text(encoding="utf-8")
        command = [sys.executable, str(self.file), *["--quick"] * ("--quick" in code)]
        parts = [f"# {title}", question]
        if folder:
            printed = run(command, folder)
            parts += [f"What `{' '.join(['python', name, *command[2:]])}` prints:"]
            parts += [f"```text\n{printed}```"]
        for number, picture in enumerate(sorted(folder.rglob("*.png")) if folder else []):
            file = self.made(f"{number or ''}.png")
            file.write_bytes(picture.read_bytes())
            parts += [f"![{picture.stem.replace('_', ' ')}]({file.name})"]
        if self.picture == f"images/{self.file.stem}.png":
            parts += [f"![What its long form draws](../{self.picture})"]
        parts += [f"## {name}", f"```python\n{code}```"]
        self.made(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")

    @property
    def text(self) -> tuple[str, str]:
        docstring = ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8"))) or ""
        title, *rest = docstring.split("\n\n")
        return title.replace("\n", " ").rstrip("."), rest[0]


def pictures(notebook: Any) -> Iterator[bytes]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield base64.b64decode(output["data"]["image/png"])


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"}


def run(command: list[str], folder: Path) -> str:
    """What a program prints; an error if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def programs() -> list[Program]:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    examples = sorted((ROOT / "examples").glob("[!_]*.py"))
    return [*map(Notebook, notebooks), *map(Example, examples)]


def make_pages(app: Sphinx) -> None:
    """Runs what has changed, two programs at a time, and removes what is made of none."""
    GALLERY.mkdir(exist_ok=True)
    names = {program.made("").name for program in programs()}
    for file in GALLERY.iterdir():
        if file.stem.rstrip("0123456789") not in names:
            file.unlink()
    if app.config.run_gallery:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(Program.run, [each for each in programs() if not each.is_fresh]))
    else:
        for program in programs():
            if not any(program.made(ending).exists() for ending in (".ipynb", ".md")):
                program.show(None)


def add_cards(app: Sphinx, page: str, text: list[str]) -> None:
    """A card for each program, with the first of its pictures."""
    if page == "gallery":
        app.env.note_dependency(GALLERY)
        text[0] = text[0].replace(CARDS, "\n".join([*cards(), *contents()]))


def cards() -> Iterator[str]:
    yield "::::{grid} 1 2 2 3\n:gutter: 3\n"
    for program in programs():
        title, question = program.text
        yield f":::{{grid-item-card}} {title}"
        yield f":link: gallery/{program.made('').name}\n:link-type: doc"
        if picture := program.picture:
            yield f":img-top: {picture}"
            if is_strip(GALLERY.parent / picture):
                yield ":class-img-top: strip"
        yield f"\n{short(question)}\n:::\n"
    yield "::::\n"


def is_strip(picture: Path) -> bool:
    """Whether a PNG is more than 2.5 times as wide as high, as its header says."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return bool(width > 2.5 * height)


def short(text: str) -> str:
    """The first sentences of a text, with a capital letter where it begins with a word."""
    first, *rest = re.split(r"(?<=[.?]) +", " ".join(text.split()))
    for sentence in rest:
        if len(first) + len(sentence) > LENGTH:
            break
        first = f"{first} {sentence}"
    return first[0].upper() + first[1:] if first.split()[0].isalpha() else first


def contents() -> Iterator[str]:
    yield ":::{toctree}\n:hidden:\n"
    yield from (f"gallery/{program.made('').name}" for program in programs())
    yield ":::"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("run_gallery", True, "env", bool)
    app.connect("builder-inited", make_pages)
    app.connect("source-read", add_cards)
    return {"parallel_read_safe": True}
