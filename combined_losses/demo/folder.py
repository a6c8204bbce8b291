"""The folder of results: checked first, filled in another place, moved to its own at the end."""

import contextlib
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from combined_losses._core.shell import InputError

SUMMARY = "summary.json"
COMMAND = "combined-losses demo"
# All that a demo writes. A later demo may replace these in a folder whose summary is a demo's.
ENTRIES = (
    SUMMARY,
    "history.csv",
    "components.png",
    "overview.png",
    "model.keras",
    "tensorboard",
    "lines",
    "digits",  # of the demo of before
)


def check_out(out: Path) -> None:
    """Raises unless `out` is a folder that can be made, is empty or holds an earlier demo."""
    above = _existing(out)
    if not above.is_dir():
        what = "is a file" if above == out else f"lies below {above}, which is a file"
        raise InputError(f"--out {out} {what}: give a folder, new or empty")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"--out {out} cannot be written: no permission for {above}")
    if above == out and any(out.iterdir()) and not _is_earlier_demo(out):
        raise InputError(
            f"--out {out} holds other files: give a folder that is new, empty or of an earlier demo"
        )


def _existing(out: Path) -> Path:
    """`out` or the nearest folder (or file) above it that exists."""
    return next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))


def _is_earlier_demo(out: Path) -> bool:
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        return bool(summary["command"] == COMMAND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to write to, whose content moves to `out` unless an exception ends the block."""
    # In `out`, or in the nearest folder above it that exists: on the same disk, moving is renaming,
    # which happens whole or not at all.
    folder = Path(tempfile.mkdtemp(prefix=".combined-losses-demo-", dir=_existing(out)))
    try:
        yield folder
        _move(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in (out / name for name in ENTRIES):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    for path in folder.iterdir():
        os.replace(path, out / path.name)


def write_history(path: Path, history: dict[str, list[float]]) -> None:
    """One row per epoch, counted from 1; one column per entry of the logs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
            writer.writerow([epoch, *(f"{value:.9g}" for value in row)])


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """The numbers of the tables, for programs."""
    text = json.dumps({"command": COMMAND, **content}, indent=2)
    (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
