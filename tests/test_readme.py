"""Every Python block of the Markdown pages runs as a script, in an empty directory.

A block after the comment `<!-- continues -->` runs in one script with the block before it. A block
after `<!-- before -->` shows the code of another library, or the wrong way: it is only parsed. The
scripts run in the process of the tests, because starting TensorFlow takes longer than a script. The
first script of the README also runs in a process of its own.
"""

import ast
import contextlib
import re
import runpy
import textwrap
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest

import combined_losses  # noqa: F401 - registers its classes before `unchanged_keras` looks
from tests.processes import run_python

ROOT = Path(__file__).parents[1]
MADE = ROOT / "docs" / "gallery"  # by docs/_ext/gallery.py, of programs that it runs
WRITTEN = [page for page in sorted((ROOT / "docs").rglob("*.md")) if MADE not in page.parents]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *WRITTEN]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
CONTINUES = "<!-- continues -->"
BEFORE = "<!-- before -->"
BLOCK = re.compile(
    r"^[ ]*(?P<fence>`{3,}|~{3,})(?P<language>[^\s`]*)[^\n`]*\n(?P<code>.*?)^[ ]*(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^[ ]*(```|~~~)", re.MULTILINE)
# Anything else, no language or `py` included, might be Python that nobody runs.
LANGUAGES = {"python", "bash", "text", "console"}


@dataclass(frozen=True)
class Block:
    line: int  # of its first line of code, counted from 1
    language: str
    code: str
    continues: bool
    before: bool


def read_blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text, in order."""
    assert not FENCE.search(BLOCK.sub("", text)), "a block is opened and never closed"
    return [
        Block(
            line=text.count("\n", 0, found.start("code")) + 1,
            language=found["language"],
            code=textwrap.dedent(found["code"]),
            continues=text[: found.start()].rstrip().endswith(CONTINUES),
            before=text[: found.start()].rstrip().endswith(BEFORE),
        )
        for found in BLOCK.finditer(text)
    ]


def to_scripts(blocks: list[Block]) -> list[str]:
    """One script for each chain of Python blocks; its line numbers are those of the page."""
    scripts: list[str] = []
    for block in blocks:
        if block.language != "python":
            marked = block.continues or block.before
            assert not marked, f"line {block.line}: {CONTINUES} and {BEFORE} are for Python blocks"
            continue
        if block.before:
            continue
        if not block.continues:
            scripts.append("")
        assert scripts, f"line {block.line}: there is no Python block to continue"
        scripts[-1] += "\n" * (block.line - 1 - scripts[-1].count("\n")) + block.code
    return scripts


BLOCKS = {name: read_blocks(text) for name, text in TEXTS.items()}
SCRIPTS = {name: to_scripts(blocks) for name, blocks in BLOCKS.items()}
# A number, not a line: the id of a test stays when text is added before it.
EVERY_SCRIPT = [
    pytest.param(script, id=f"{name}, script {number}")
    for name, scripts in SCRIPTS.items()
    for number, script in enumerate(scripts, start=1)
]


@contextlib.contextmanager
def unchanged_keras():
    """Gives Keras back as it was, and fails where the block has changed a setting."""
    before, registered = keras.config.dtype_policy(), dict(keras.saving.get_custom_objects())
    floatx = keras.config.floatx()
    try:
        yield
    finally:
        after = keras.config.dtype_policy(), keras.config.floatx()
        keras.config.set_dtype_policy(before)
        keras.config.set_floatx(floatx)
        keras.saving.get_custom_objects().clear()
        keras.saving.get_custom_objects().update(registered)
        keras.utils.clear_session()
    assert after == (before, floatx), "a script that changes Keras needs its own process"


@pytest.mark.depends_on_version
@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_block_runs(script, tmp_path, monkeypatch):
    """Each script has its own directory, and leaves Keras as it was for the next one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    with unchanged_keras():
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.depends_on_version
def test_first_block_of_the_readme_runs_alone(tmp_path):
    """In a process of its own, where nothing was imported before."""
    run_python(SCRIPTS["README.md"][0], cwd=tmp_path)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", TEXTS)
def test_no_block_is_left_out(name):
    blocks = BLOCKS[name]
    assert {block.language for block in blocks} <= LANGUAGES
    python = [block for block in blocks if block.language == "python"]
    assert len(SCRIPTS[name]) == sum(not (b.continues or b.before) for b in python)
    comments = BLOCK.sub("", TEXTS[name]).replace(f"`{CONTINUES}`", "").replace(f"`{BEFORE}`", "")
    assert comments.count(CONTINUES) == sum(block.continues for block in blocks)
    assert comments.count(BEFORE) == sum(block.before for block in blocks)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", TEXTS)
def test_what_is_not_run_is_python(name):
    for block in BLOCKS[name]:
        if block.before:
            ast.parse(block.code, filename=f"{name}, line {block.line}")


@pytest.mark.backend_free
def test_the_readme_is_run():
    assert SCRIPTS["README.md"]


SAMPLE = f"""# Title
```python
a = 1
```
{CONTINUES}

```python
b = a
```
~~~text
```python
~~~
  ```python
  if a:
      c = 2
  ```
"""


@pytest.mark.backend_free
def test_lines_are_kept_and_chains_are_joined():
    scripts = to_scripts(read_blocks(SAMPLE))
    assert scripts == ["\n\na = 1\n\n\n\n\nb = a\n", "\n" * 13 + "if a:\n    c = 2\n"]


@pytest.mark.backend_free
def test_a_block_of_before_is_not_run():
    (block,) = read_blocks(f"{BEFORE}\n```python\nimport nothing\n```\n")
    assert block.before and to_scripts([block]) == []


@pytest.mark.backend_free
def test_an_open_block_is_an_error():
    with pytest.raises(AssertionError, match="never closed"):
        read_blocks(SAMPLE + "```python\n")
