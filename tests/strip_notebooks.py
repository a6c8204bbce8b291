"""Removes from notebooks what comes from running them: `python -m tests.strip_notebooks FILE ...`.

What a notebook shows, CI shows by running it. A hook of `.pre-commit-config.yaml` calls this.
"""

import json
import sys
from pathlib import Path


def stripped(notebook):
    """A notebook without outputs, counts of executions and what an editor stores about itself."""
    kept = ("kernelspec", "language_info")
    metadata = {key: value for key, value in notebook["metadata"].items() if key in kept}
    return {**notebook, "metadata": metadata, "cells": [*map(_stripped_cell, notebook["cells"])]}


def _stripped_cell(cell):
    if cell["cell_type"] != "code":
        return cell
    return {**cell, "outputs": [], "execution_count": None}


def strip_file(path):
    """Strips a notebook in place; returns whether there was anything to strip."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if stripped(notebook) == notebook:
        return False
    text = json.dumps(stripped(notebook), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return True


if __name__ == "__main__":
    changed = [path for path in map(Path, sys.argv[1:]) if strip_file(path)]
    for path in changed:
        print(f"stripped {path}")
    sys.exit(bool(changed))
