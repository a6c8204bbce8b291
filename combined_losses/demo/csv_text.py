"""A file of any CSV dialect as a frame of texts: encoding, separator and header are found."""

import csv
import io
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from combined_losses._core.shell import InputError
from combined_losses.demo.numbers import MISSING, is_number

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_STATED = re.compile(rf"sep=([{re.escape(''.join(SEPARATORS))}])\r?\n")  # spreadsheets obey it
TRIED_ROWS = 200
TRIED_CHARACTERS = LONGEST_CELL = 1 << 20


@dataclass
class CsvText:
    """The cells of a file as texts, below the names of its columns, and what was found."""

    frame: pd.DataFrame
    separator: str  # one of SEPARATORS
    rows: int  # of the file, before --max-rows
    notes: list[str] = field(default_factory=list)


def read_csv_text(path: Path, target: str, *, max_rows: int, seed: int) -> CsvText:
    """Reads the file; more than `max_rows` rows are cut to a random sample in their order."""
    notes: list[str] = []
    text = _decode(path, _read_bytes(path), notes)
    stated = _STATED.match(text)
    text = text[stated.end() :] if stated else text
    separator = stated[1] if stated else _find_separator(text)
    lines = _split(path, text, separator)
    if not lines:
        raise InputError(f"--data {path} is empty: give a file with a header line and numbers")
    _cut_trailing_separators(lines, notes)
    names, rows = _header(path, lines, target, separator, notes)
    count = len(rows)
    if count > max_rows:
        chosen = np.sort(np.random.default_rng(seed).choice(count, max_rows, replace=False))
        rows = [rows[index] for index in chosen]
        notes.append(f"{max_rows:,} of {count:,} rows, drawn at random (--max-rows, --seed)")
    cells = _aligned(path, names, rows)
    return CsvText(pd.DataFrame(cells, columns=names, dtype=str), separator, count, notes)


def _read_bytes(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"--data {path} does not exist: give the path of a CSV file")
    if not path.is_file():
        raise InputError(f"--data {path} is not a file: give the path of a CSV file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"--data {path} cannot be read: {error.strerror}") from error


def _decode(path: Path, content: bytes, notes: list[str]) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            content = b"\0"
    if b"\0" in content or content.startswith(b"PK\3\4"):
        raise InputError(
            f"--data {path} is not a text file: save the table as CSV (comma-separated text)"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append("not UTF-8: read as Windows-1252 (Latin-1)")
        return content.decode("cp1252", errors="replace")


def _find_separator(text: str) -> str:
    """The separator that gives most rows as many cells as the first, and then most cells.

    Python's `csv.Sniffer` is not used: it takes decimal commas and letters for separators.
    """

    def merit(separator: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(text[:TRIED_CHARACTERS], newline=""), delimiter=separator)
        try:
            rows = list(itertools.islice(filter(_is_filled, reader), TRIED_ROWS))
        except csv.Error:
            return (0.0, 0)
        width = len(rows[0]) if rows else 0
        # A row may be short, because its last cells are missing, and end in empty cells.
        fits = [len(row) > 1 and len(_without_empty_end(row)) <= width for row in rows]
        return (sum(fits) / len(fits), width) if width > 1 else (0.0, 0)

    return max(SEPARATORS, key=merit)


def _is_filled(row: list[str]) -> bool:
    return any(cell.strip() for cell in row)


def _without_empty_end(row: list[str]) -> list[str]:
    end = len(row)
    while end and not row[end - 1].strip():
        end -= 1
    return row[:end]


def _split(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, each with its number in the file; cells without spaces."""
    csv.field_size_limit(LONGEST_CELL)
    total = text.count("\n") + 1
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    bar = track(
        reader,
        f"reading {path.name}",
        total=total,
        transient=True,
        console=Console(stderr=True),
        disable=total < 10_000,
    )
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in bar]
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {path} cannot be read as CSV ({error}): look for a quote "
            "that is not closed"
        ) from error
    return [(number, cells) for number, cells in lines if any(cells)]


def _cut_trailing_separators(lines: list[tuple[int, list[str]]], notes: list[str]) -> None:
    """Removes the empty cells that stand behind the last column in every line that has them."""
    width = max(len(_without_empty_end(cells)) for _, cells in lines)
    if any(len(cells) > width for _, cells in lines):
        notes.append("separators at the ends of lines are ignored")
        lines[:] = [(number, cells[:width]) for number, cells in lines]


def _header(
    path: Path,
    lines: list[tuple[int, list[str]]],
    target: str,
    separator: str,
    notes: list[str],
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, all different, and the rows."""
    first = lines[0][1]
    width = len(first)
    filled = [cell for cell in first if cell.lower() not in MISSING]
    headless = bool(filled) and all(map(is_number, filled))
    if headless and target not in first:
        notes.append("no header line: the columns are called by their number, from 1")
        names, rows = [str(index + 1) for index in range(width)], lines
    else:
        if headless:
            notes.append(f"the first line is taken as names, because {target} stands in it")
        names, rows = _named(first, notes), lines[1:]
    if first.count(target) > 1:
        raise InputError(
            f"--target {target} is the name of {first.count(target)} columns of {path}: rename one"
        )
    if target not in names:
        shown = ", ".join(names[:12]) + (", …" if width > 12 else "")
        raise InputError(
            f"--target {target} is not a column of {path}: choose one of {shown} (taking a "
            f"{SEPARATORS[separator]} as separator)"
        )
    if width < 2:
        raise InputError(
            f"{path} has no column besides --target {target}: add at least one input column "
            "(separated by a comma, semicolon, tab or bar)"
        )
    return names, rows


def _named(first: list[str], notes: list[str]) -> list[str]:
    """The header's names; a second one gets a number, and one that is empty its place."""
    names: list[str] = []
    for index, cell in enumerate(first):
        name = cell or f"column {index + 1}"
        number = 2
        while name in names:
            name = f"{cell or f'column {index + 1}'} ({number})"
            number += 1
        if cell and name != cell:
            notes.append(f"a second column {cell} is called {name}")
        names.append(name)
    return names


def _aligned(path: Path, names: list[str], rows: list[tuple[int, list[str]]]) -> list[list[str]]:
    """Rows as long as the header: missing cells at the end are empty, a longer row is an error."""
    width = len(names)
    for number, cells in rows:
        if len(cells) > width:
            raise InputError(
                f"line {number} of {path} has {len(cells)} cells, its first line has {width}: "
                "put a cell that holds the separator in quotes, or name the last columns"
            )
    return [[*cells, *[""] * (width - len(cells))] for _, cells in rows]
