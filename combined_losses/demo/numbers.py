"""Numbers as people write them: 1234.5 and 1,234.5, 1.234,5 and 1 234,5, 12 % and €5."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

MISSING = {
    *("", "-", "--", "?", ".", "na", "n/a", "#n/a", "#na", "nan", "null", "nil", "none", "nat"),
    *("missing", "unknown", "k.a.", "#div/0!", "#value!", "<na>"),
}
TRIED_CELLS = 2000  # of each column, to find the decimal sign
LARGEST = 1e150  # squares of larger numbers overflow
_INFINITE = re.compile(r"[+-]?(inf|infinity|∞)", re.IGNORECASE)
# Spaces (also those that do not break) and apostrophes group digits; signs of money and percent say
# nothing that the name of the column does not.
_NOISE = re.compile(r"(?<=\d)[\s\u00a0\u202f'\u2019](?=\d{3}(?!\d))|^[€$£¥]\s?|\s?[€$£¥%]$")
_FORMS = {
    decimal: re.compile(
        rf"[+-]?(?:\d{{1,3}}(?:{re.escape(group)}\d{{3}})+|\d+)?(?:{re.escape(decimal)}\d*)?"
        r"(?:[eE][+-]?\d+)?"
    )
    for decimal, group in ((".", ","), (",", "."))
}
_DIGIT = re.compile(r"\d")


def is_number(cell: str) -> bool:
    """Whether a text is a number, whatever its decimal sign."""
    return any(_parse(cell, decimal) is not None for decimal in _FORMS)


def _parse(cell: str, decimal: str) -> float | None:
    """The number, or None; infinity where it is said or is too large for a float."""
    if _INFINITE.fullmatch(cell):
        return float("-inf") if cell.startswith("-") else float("inf")
    cell = _NOISE.sub("", cell.replace("\u2212", "-"))  # a minus sign
    if not _FORMS[decimal].fullmatch(cell) or not _DIGIT.match(cell.lstrip("+-.,")):
        return None
    group = "," if decimal == "." else "."
    return float(cell.replace(group, "").replace(decimal, "."))


def find_decimal(columns: Iterable[pd.Series], separator: str) -> str:
    """The decimal sign of a file: what the cells say that can be read in one way only.

    12,5 has a decimal comma and 12.5 a point; 1,234 may be both. Where all may be both, a file
    with commas between columns has points, and so has one in which no comma stands.
    """
    votes = {".": 0, ",": 0}
    unclear = ""
    for column in columns:
        for cell in column.head(TRIED_CELLS):
            if "," in cell or "." in cell:
                reads = [decimal for decimal in _FORMS if _parse(cell, decimal) is not None]
                if len(reads) == 1:
                    votes[reads[0]] += 1
                elif reads:
                    unclear += cell
    if votes["."] != votes[","]:
        return max(votes, key=lambda decimal: votes[decimal])
    return "," if "," in unclear and "." not in unclear and separator != "," else "."


def to_numbers(cells: pd.Series, decimal: str) -> np.ndarray:
    """An array of floats; nan where a cell is no number."""
    simple = cells.where(cells.str.fullmatch(rf"[+-]?\d+(?:{re.escape(decimal)}\d+)?"))
    numbers: np.ndarray = pd.to_numeric(simple.str.replace(decimal, ".")).to_numpy(float, copy=True)
    for index in np.flatnonzero(np.isnan(numbers)):  # the others one by one, which is slow
        number = _parse(cells.iloc[index], decimal)
        numbers[index] = np.nan if number is None else number
    return numbers


def is_constant(values: np.ndarray) -> bool:
    """Whether all numbers are the same, up to rounding."""
    return bool(values.std() <= 1e-12 * np.abs(values).max())
