"""The numbers of experiment (a): the diabetes patients or a CSV file of the user's."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from combined_losses._core.shell import InputError

MIN_ROWS = 20


@dataclass(frozen=True)
class Table:
    """Inputs `x` (rows, columns), the target `y` (rows,), and how to speak of them."""

    name: str  # of the table
    rows: str  # what one calls the rows, in the plural
    unit: str  # of the target
    x: np.ndarray
    y: np.ndarray


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


def read_table(path: Path, target: str) -> Table:
    """Reads a CSV file of finite numbers; anything else is an `InputError` that says where."""
    lines = _read_lines(path)
    header = [name.strip() for name in lines[0][1]] if lines else []
    _check_header(path, header, target)
    rows = lines[1:]
    if len(rows) < MIN_ROWS:
        raise InputError(
            f"--data {path} has {len(rows)} rows below its header line; at least {MIN_ROWS} are "
            "needed to train and to test: add rows"
        )
    numbers = np.array([_to_numbers(path, header, line, cells) for line, cells in rows])
    column = header.index(target)
    y = numbers[:, column]
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.append(np.delete(numbers, column, axis=1).std(axis=0), y.std())
    if not np.isfinite(spread).all():
        raise InputError(f"--data {path} holds numbers beyond 1e150: rescale the column")
    if y.std() <= 1e-12 * np.abs(y).max():
        raise InputError(
            f"--target {target} is {y[0]:g} in every row of {path}, so there is nothing to learn: "
            "choose a column that varies"
        )
    unit = target if len(target) <= 16 and target.isprintable() else "target"
    return Table(path.name, "rows", unit, np.delete(numbers, column, axis=1), y)


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, each with its number in the file."""
    if not path.exists():
        raise InputError(f"--data {path} does not exist: give the path of a CSV file")
    if not path.is_file():
        raise InputError(f"--data {path} is not a file: give the path of a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except OSError as error:
        raise InputError(f"--data {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"--data {path} is not a CSV file in UTF-8 ({error}): save it as comma-separated text"
        ) from error


def _check_header(path: Path, header: list[str], target: str) -> None:
    names = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    if target not in header:
        commas = " (columns are separated by commas)" if len(header) < 2 else ""
        raise InputError(
            f"--target {target} is not a column of {path}: choose one of its first line's "
            f"names{commas}: {names or 'the file is empty'}"
        )
    if "" in header:
        raise InputError(
            f"column {header.index('') + 1} of {path} has no name in the first line: name or "
            "remove it (pandas: to_csv(..., index=False))"
        )
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"column {twice} stands twice in {path}: rename or remove one")
    if len(header) < 2:
        raise InputError(
            f"{path} has no column besides --target {target}: add at least one input column"
        )


def _to_numbers(path: Path, header: list[str], line: int, cells: list[str]) -> list[float]:
    if len(cells) != len(header):
        raise InputError(
            f"line {line} of {path} has {len(cells)} cells, its first line has {len(header)}: "
            "make them equal (columns are separated by commas, the decimal sign is a point)"
        )
    return [_to_number(path, name, line, cell) for name, cell in zip(header, cells, strict=True)]


def _to_number(path: Path, name: str, line: int, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    raise InputError(
        f"line {line}, column {name} of {path} holds {cell.strip()!r}; every cell must be a finite "
        "number: write one, or remove the row or the column"
    )
