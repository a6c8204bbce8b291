"""The numbers of experiment (a): the diabetes patients or a CSV file of the user's."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from combined_losses._core.shell import InputError

if TYPE_CHECKING:
    from combined_losses.demo.columns import Column
    from combined_losses.demo.csv_text import CsvText

MIN_ROWS = 20
MISSING_CHOICES = {
    "mean": "the mean of the column in the training rows is taken",
    "drop": "they are dropped",
}


@dataclass(frozen=True)
class Table:
    """Inputs `x` (rows, columns), the target `y` (rows,), and how to speak of them.

    `x` may hold nan: a missing value, which becomes the mean of the training rows.
    """

    name: str  # of the table
    rows: str  # what one calls the rows, in the plural
    unit: str  # of the target
    x: np.ndarray
    y: np.ndarray
    # What was found in a file and what was done with it: (what, choice).
    choices: tuple[tuple[str, str], ...] = ()


def load_diabetes() -> Table:
    """442 patients: ten measurements and the progression of the disease a year later."""
    from sklearn.datasets import load_diabetes as load

    x, y = load(return_X_y=True)
    return Table(name="Diabetes", rows="patients", unit="points", x=x, y=y)


def check_data(path: Path | None, target: str | None) -> None:
    """Raises unless both `--data` and `--target` are given, or neither."""
    if path is None and target is not None:
        raise InputError(
            f"--target {target} needs a file: add --data FILE.csv, or leave --target out to run "
            "on the diabetes data"
        )
    if path is not None and target is None:
        raise InputError(
            f"--data {path} needs the column to predict: add --target COLUMN, a name in the "
            "file's first line"
        )


def read_table(
    path: Path, target: str, *, missing: str = "mean", max_rows: int = 50_000, seed: int = 0
) -> Table:
    """Reads a CSV file of any dialect; what cannot be used is dropped, and `choices` says so.

    Args:
        path: the file.
        target: the name of the column to predict, which must hold numbers.
        missing: "mean" keeps missing inputs as nan; "drop" drops the rows that have one.
        max_rows: a file with more rows gives a random sample of this size.
        seed: of that sample.
    """
    from combined_losses.demo.columns import read_column
    from combined_losses.demo.csv_text import read_csv_text
    from combined_losses.demo.numbers import find_decimal

    found = read_csv_text(path, target, max_rows=max_rows, seed=seed)
    _check_rows(path, len(found.frame), "below its header line")
    texts = [found.frame[name] for name in found.frame]
    decimal = find_decimal(texts, found.separator)
    columns = [read_column(str(text.name), text, decimal) for text in texts]
    y = _target(path, target, next(column for column in columns if column.name == target))
    inputs = [column for column in columns if column.name != target]
    arrays = [array for column in inputs for array in column.arrays.values()]
    choices = [*_file_choices(found, decimal), *_column_choices(inputs)]
    if not arrays:
        raise InputError(f"{path} has no input that can be used: {_dropped(inputs)}")
    x = np.stack(arrays, axis=1)
    x, y = _without_missing(path, x, y, missing, target, choices)
    unit = target if len(target) <= 16 and target.isprintable() else "target"
    return Table(path.name, "rows", unit, x, y, tuple(choices))


def _check_rows(path: Path, rows: int, which: str) -> None:
    if rows < MIN_ROWS:
        raise InputError(
            f"--data {path} has {rows} rows {which}; at least {MIN_ROWS} are needed to train and "
            "to test: add rows"
        )


def _target(path: Path, target: str, column: "Column") -> np.ndarray:
    """The target's numbers; raises unless there are at least two different ones."""
    if column.is_number and target in column.arrays:
        return column.arrays[target]
    what = column.choice.removeprefix("dropped: ")
    what = what.replace("an id, different", "it holds whole numbers that are different")
    if "same in every row" in what or "no two different" in what:
        raise InputError(
            f"--target {target} is {what} of {path}, so there is nothing to learn: choose a column "
            "that varies"
        )
    raise InputError(
        f"--target {target} of {path} does not hold numbers ({what}): choose a column of numbers"
    )


def _file_choices(found: "CsvText", decimal: str) -> list[tuple[str, str]]:
    from combined_losses.demo.csv_text import SEPARATORS

    sign = "comma" if decimal == "," else "point"
    size = f"{found.rows:,} rows, {len(found.frame.columns)} columns"
    said = f"{size}; separator {SEPARATORS[found.separator]}, decimal {sign}"
    return [("the file", said), *(("the file", note) for note in found.notes)]


def _column_choices(inputs: "list[Column]") -> list[tuple[str, str]]:
    plain = [column.name for column in inputs if column.arrays and not column.choice]
    choices = [(column.name, column.choice) for column in inputs if column.choice]
    if plain:
        names = ", ".join(plain[:6]) + (", …" if len(plain) > 6 else "")
        choices.insert(0, (names, "numbers, used as they are"))
    return choices


def _dropped(inputs: "list[Column]") -> str:
    said = [f"{column.name} ({column.choice.removeprefix('dropped: ')})" for column in inputs[:4]]
    return ", ".join(said) + (", …" if len(inputs) > 4 else "")


def _without_missing(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    missing: str,
    target: str,
    choices: list[tuple[str, str]],
) -> tuple[np.ndarray, np.ndarray]:
    """Without the rows that have no target, and with `missing="drop"` any missing input."""
    from combined_losses.demo.numbers import is_constant

    without_target, incomplete = np.isnan(y), np.isnan(x).any(axis=1)
    if without_target.any():
        choices.append((target, f"rows without a target, dropped: {without_target.sum():,}"))
    incomplete &= ~without_target
    drop = without_target | incomplete if missing == "drop" else without_target
    if incomplete.any():
        how = f"{MISSING_CHOICES[missing]} (--missing {missing})"
        choices.append(("missing values", f"rows that have some: {incomplete.sum():,}; {how}"))
    advice = " (--missing mean keeps rows)" if missing == "drop" and incomplete.any() else ""
    _check_rows(path, int(np.sum(~drop)), f"without missing values{advice}" if drop.any() else "")
    x, y = x[~drop], y[~drop]
    if is_constant(y):
        raise InputError(
            f"--target {target} is {y[0]:g} in every row of {path} that is left, so there is "
            "nothing to learn: choose a column that varies"
        )
    return x, y
