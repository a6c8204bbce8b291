"""What becomes of each column of a file: a number, dates, one column for each text, or nothing."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from combined_losses.demo.numbers import LARGEST, MISSING, is_constant, to_numbers

MOST_TEXTS = 20  # different texts of a column that becomes one column for each
SHARE_OF_NUMBERS = 0.9  # from here on the other cells of a column are mistakes
DATE_FORMATS = ("ISO8601", *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y"))
TIMES = ("", " %H:%M", " %H:%M:%S")
ID_WORDS = {"id", "ids", "index", "idx", "nr", "no", "number", "key", "uuid", "guid", "rownames"}


@dataclass(frozen=True)
class Column:
    """What a column of texts becomes: arrays of floats by name, nan where a value is missing."""

    name: str
    arrays: dict[str, np.ndarray]
    choice: str  # what was done with it; "" where it simply holds numbers
    is_number: bool = False


class _Cells(NamedTuple):
    name: str
    texts: pd.Series
    present: pd.Series  # whether a cell holds something


def read_column(name: str, texts: pd.Series, decimal: str) -> Column:
    """Decides by what the cells hold."""
    cells = _Cells(name, texts, ~texts.str.lower().isin(MISSING))
    if not cells.present.any():
        return Column(name, {}, "dropped: no values")
    if cells.texts[cells.present].nunique() == 1:
        return Column(name, {}, f"dropped: the same in every row ({_first(cells.texts, cells)})")
    return _as_numbers(cells, decimal) or _as_dates(cells) or _as_texts(cells)


def _first(texts: pd.Series, cells: _Cells) -> str:
    text = str(texts[cells.present].iloc[0])
    return text if len(text) <= 20 else text[:19] + "…"


def _as_numbers(cells: _Cells, decimal: str) -> Column | None:
    numbers = to_numbers(cells.texts, decimal)
    numbers[~cells.present] = np.nan
    is_number = ~np.isnan(numbers)
    if is_number.sum() < SHARE_OF_NUMBERS * cells.present.sum():
        return None
    said = []
    others = cells.present & ~is_number
    if others.any():
        text = cells.texts[others].iloc[0]
        said.append(f"no number, so missing: {others.sum()} cells, as {text[:20]!r}")
    with np.errstate(invalid="ignore"):
        too_large = np.abs(numbers) > LARGEST
    if too_large.any():
        numbers[too_large] = np.nan
        said.append(f"infinite or beyond 1e150, so missing: {too_large.sum()} cells")
    if _is_id(cells.name, numbers):
        return Column(cells.name, {}, "dropped: an id, different in every row", is_number=True)
    values = numbers[~np.isnan(numbers)]
    if not len(values) or is_constant(values):
        return Column(cells.name, {}, "dropped: no two different numbers", is_number=True)
    return Column(cells.name, {cells.name: numbers}, "; ".join(said), is_number=True)


def _is_id(name: str, numbers: np.ndarray) -> bool:
    """Whether whole numbers are all different, in a column without a name or with that of an id."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    named = not words or words[0] in ("column", "unnamed:") or words[-1] in ID_WORDS
    named = named or re.search(r"[a-z]I[dD]$", name) is not None
    with np.errstate(invalid="ignore"):
        whole = bool(np.all(np.floor(numbers) == numbers))
    return named and whole and len(np.unique(numbers)) == len(numbers)


def _as_dates(cells: _Cells) -> Column | None:
    """Days since the first date, where all cells have one format."""
    texts = cells.texts[cells.present]
    if not texts.str.contains(r"\d", regex=True).all():
        return None
    for form in DATE_FORMATS:
        for time in TIMES if form != "ISO8601" else ("",):
            try:
                dates = pd.to_datetime(texts, format=form + time, utc=True)
            except (ValueError, OverflowError):
                continue
            days = (dates - dates.min()) / pd.Timedelta(days=1)
            array = days.reindex(cells.texts.index).to_numpy(float)
            read = "year-month-day" if form == "ISO8601" else form.replace("%", "")
            choice = f"dates ({read}): days since {dates.min():%Y-%m-%d}"
            return Column(cells.name, {cells.name: array}, choice)
    return None


def _as_texts(cells: _Cells) -> Column:
    count = cells.texts[cells.present].nunique()
    if count > MOST_TEXTS or count == cells.present.sum():
        return Column(cells.name, {}, f"dropped: {count:,} different texts, at most {MOST_TEXTS}")
    dummies = pd.get_dummies(cells.texts.where(cells.present), dtype=float)
    dummies[~cells.present] = np.nan
    arrays = {f"{cells.name}={text}": dummies[text].to_numpy() for text in dummies.columns}
    return Column(cells.name, arrays, f"text, {count} values: one column of 0 and 1 for each")
